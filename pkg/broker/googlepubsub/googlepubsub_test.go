package googlepubsub_test

import (
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
)

func TestBroker(t *testing.T) {
	brokertest.Run(t, brokertest.Harness{
		Can: brokertest.Capabilities{Several: true, Keeps: true, Redelivers: true, Tries: 5, Unordered: true},
		New: func(t *testing.T) func() broker.Broker {
			s := startServer(t)
			return func() broker.Broker { return open(t, s.options()) }
		},
		Server: func(t *testing.T) brokertest.Server {
			s := startServer(t)
			o := s.options()
			o.Timeout = time.Second // for which Publish tries
			return brokertest.Server{Open: func() broker.Broker { return open(t, o) }, Kill: s.kill, Start: func() { s.start(t) }}
		},
	})
}
