package loop_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/examples/plugins/loop"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	brokertest.Run(t, brokertest.Harness{
		New: func(t *testing.T) func() broker.Broker {
			return func() broker.Broker {
				b := loop.New()
				t.Cleanup(func() { _ = b.Close() })
				return b
			}
		},
		Can: brokertest.Capabilities{Report: true, Busy: true, Status: true},
	})
}
