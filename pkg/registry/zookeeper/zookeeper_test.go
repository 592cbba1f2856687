package zookeeper_test

import (
	"fmt"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
	"github.com/cb02dfca/micro/pkg/registry/zookeeper"
)

func TestMain(m *testing.M) {
	registrytest.Child(func(args []string) (registry.Registry, error) {
		return zookeeper.New(zookeeper.Options{Endpoints: args[:1], Prefix: args[1], TTL: 2 * time.Second})
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
func open(t testing.TB, o zookeeper.Options) *zookeeper.Registry {
	t.Helper()
	r, err := zookeeper.New(o)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

var notName = regexp.MustCompile("[^a-zA-Z0-9/]+")

// prefixOf is a prefix that no other test has, nor another run of this one.
func prefixOf(t testing.TB) string {
	return fmt.Sprintf("/test/%s/%d", notName.ReplaceAllString(t.Name(), "-"), time.Now().UnixNano())
}

// raw gives the library's client, with a session of its own.
func raw(t testing.TB, addr string) *zk.Conn {
	t.Helper()
	c, events, err := zk.Connect([]string{addr}, 10*time.Second, zk.WithLogger(quiet{}))
	must(t, err)
	t.Cleanup(func() {
		c.Close()
		for range events {
		}
	})
	return c
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

func TestConformance(t *testing.T) {
	t.Parallel()
	var relays sync.Map // of registries
	registrytest.Run(t, registrytest.Harness{
		New: func(t *testing.T) registrytest.Open {
			addr, prefix := shared.Addr(t), prefixOf(t)
			return func(t *testing.T) registry.Registry {
				p := testserver.NewRelay(t, addr)
				r := open(t, zookeeper.Options{Endpoints: []string{p.Addr}, Prefix: prefix})
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
