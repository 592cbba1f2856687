package consul_test

import (
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/consul"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// childTTL is how long the check of another process's node lasts.
const childTTL = 2 * time.Second

func TestMain(m *testing.M) {
	registrytest.Child(func(args []string) (registry.Registry, error) {
		return consul.New(consul.Options{Address: args[0], TTL: childTTL})
	})
	goleak.VerifyTestMain(stopping{m})
}

// stopping stops the agents when the tests have run.
type stopping struct{ *testing.M }

func (m stopping) Run() int {
	defer stopAll()
	return m.M.Run()
}

const wait = 15 * time.Second

func node(id string) registry.Node {
	return registry.Node{ID: id, Service: "greeter", Version: "1.0.0", Address: "127.0.0.1:4711", Metadata: map[string]string{"protocol": "mucp"}}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open gives a registry, which is closed at the end of the test.
func open(t testing.TB, o consul.Options) *consul.Registry {
	t.Helper()
	r, err := consul.New(o)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestConformance(t *testing.T) {
	t.Parallel()
	var relays sync.Map // of registries
	registrytest.Run(t, registrytest.Harness{
		New: func(t *testing.T) registrytest.Open {
			addr := addrOf(t)
			return func(t *testing.T) registry.Registry {
				p := testserver.NewRelay(t, addr)
				r := open(t, consul.Options{Address: p.Addr})
				relays.Store(r, p)
				return r
			}
		},
		Kill: func(_ *testing.T, r registry.Registry) {
			p, _ := relays.Load(r)
			p.(*testserver.Relay).Kill()
		},
		Shared: true, Endpoints: true, Conflicts: true, TTL: time.Second, Wait: 2 * wait,
	})
}

func failed(s registrytest.Set) bool { return s.Err != nil }

func second[T any](_ T, err error) error { return err }
