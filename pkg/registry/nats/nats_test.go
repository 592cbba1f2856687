package nats_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/nats"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestMain(m *testing.M) {
	registrytest.Child(func(args []string) (registry.Registry, error) {
		return nats.New(nats.Options{Servers: args[:1], Prefix: args[1], TTL: time.Second})
	})
	goleak.VerifyTestMain(stopping{m})
}

// stopping stops the shared server when the tests have run.
type stopping struct{ *testing.M }

func (m stopping) Run() int {
	defer shared.Stop()
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
func open(t testing.TB, o nats.Options) *nats.Registry {
	t.Helper()
	r, err := nats.New(o)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// prefixOf is a prefix that no other test has, nor another run of this one.
func prefixOf(testing.TB) string {
	return "test." + strings.TrimPrefix(natsgo.NewInbox(), natsgo.InboxPrefix)
}

// raw gives a connection of NATS's own client.
func raw(t testing.TB, addr string) *natsgo.Conn {
	t.Helper()
	c, err := natsgo.Connect("nats://" + addr)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestConformance(t *testing.T) {
	t.Parallel()
	var relays sync.Map // of registries
	registrytest.Run(t, registrytest.Harness{
		New: func(t *testing.T) registrytest.Open {
			addr, prefix := shared.Addr(t), prefixOf(t)
			return func(t *testing.T) registry.Registry {
				p := testserver.NewRelay(t, addr)
				r := open(t, nats.Options{Servers: []string{p.Addr}, Prefix: prefix, TTL: time.Second})
				relays.Store(r, p)
				return r
			}
		},
		Kill: func(_ *testing.T, r registry.Registry) {
			p, _ := relays.Load(r)
			p.(*testserver.Relay).Kill()
		},
		Shared: true, Endpoints: true, Conflicts: true, Wait: 2 * wait,
	})
}
