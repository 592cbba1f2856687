package etcd_test

import (
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/internal/tryout"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/etcd"
)

// TestByURL: a service that takes its registry from the environment is found by another program, and by the command, of the same
// URL; and it is gone when it stops.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	tryout.Registry{
		URL:     "etcd://" + shared.Addr(t) + prefixOf(t) + "?ttl=5s",
		Openers: registry.Openers{"etcd": etcd.Open},
		Away:    "etcd://" + testserver.FreeAddr(),
	}.Try(t)
}
