package nats_test

import (
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/internal/tryout"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/nats"
)

// TestByURL: a service that takes its registry from the environment is found by another program, and by the command, of the same
// URL; and it is gone when it stops.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	tryout.Registry{
		URL:     "nats://" + shared.Addr(t) + "?ttl=5s&prefix=" + prefixOf(t),
		Openers: registry.Openers{"nats": nats.Open},
		Away:    "nats://" + testserver.FreeAddr(),
	}.Try(t)
}
