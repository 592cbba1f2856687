package etcd_test

import (
	"errors"
	"net"
	"strings"
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

// TestFrozen: of a server whose connections come about, and that says nothing, that is said.
func TestFrozen(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts: the system does
	must(t, err)
	defer l.Close()
	r, err := registry.Openers{"etcd": etcd.Open}.Open(t.Context(), "etcd://"+l.Addr().String())
	must(t, err)
	defer r.Close()
	if _, err := r.List(t.Context()); !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "is not answering: no answer in time") {
		t.Errorf("List: %v", err)
	}
}
