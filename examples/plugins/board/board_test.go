package board_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/examples/plugins/board"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	registrytest.Run(t, registrytest.Harness{
		New: func(*testing.T) registrytest.Open {
			b := board.New()
			return func(*testing.T) registry.Registry { return b.Open() }
		},
		Shared: true, Endpoints: true, Conflicts: true,
	})
}
