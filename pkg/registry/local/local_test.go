package local_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childRole) != "" {
		os.Exit(childMain())
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, poll := range map[string]bool{"events": false, "poll": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registrytest.Run(t, registrytest.Harness{
				New: func(t *testing.T) registrytest.Open {
					dir := filepath.Join(t.TempDir(), "nodes")
					return func(t *testing.T) registry.Registry {
						return open(t, local.Options{Dir: dir, Poll: poll, PollInterval: pollInterval})
					}
				},
				Shared: true, Endpoints: true, Conflicts: true, SeesDeath: true,
				Kill: func(_ *testing.T, r registry.Registry) { r.(*local.Registry).Kill() },
			})
		})
	}
}
