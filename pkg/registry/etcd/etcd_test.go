package etcd_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/etcd"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestMain(m *testing.M) {
	registrytest.Child(func(args []string) (registry.Registry, error) {
		return etcd.New(etcd.Options{Endpoints: args[:1], Prefix: args[1], TTL: 2 * time.Second})
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
func open(t testing.TB, o etcd.Options) *etcd.Registry {
	t.Helper()
	r, err := etcd.New(o)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// prefixOf is a prefix that no other test has, nor another run of this one.
func prefixOf(t testing.TB) string {
	return fmt.Sprintf("/test/%s/%d/", strings.ReplaceAll(t.Name(), " ", "-"), time.Now().UnixNano())
}

// raw gives etcd's own client.
func raw(t testing.TB, addr string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
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
				r := open(t, etcd.Options{Endpoints: []string{p.Addr}, Prefix: prefix})
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
