package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/transport/memory"
	"github.com/cb02dfca/micro/pkg/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(*testing.T) transporttest.Harness {
		return transporttest.Harness{Transport: memory.New()}
	})
}
