package dns_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/dns"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestMain(m *testing.M) {
	registrytest.Child(func(args []string) (registry.Registry, error) {
		return dns.New(dns.Options{Servers: args[:1], Zone: args[1], Key: key, TTL: 3 * time.Second})
	})
	goleak.VerifyTestMain(stopping{m})
}

// stopping stops the shared server when the tests have run.
type stopping struct{ *testing.M }

func (m stopping) Run() int {
	defer shared.Stop()
	return m.M.Run()
}

const (
	wait = 30 * time.Second
	poll = 100 * time.Millisecond
)

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
func open(t testing.TB, o dns.Options) *dns.Registry {
	t.Helper()
	if o.Poll == 0 {
		o.Poll = poll
	}
	r, err := dns.New(o)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

var domains atomic.Int64

// domain is a domain in the zone that no other test has, nor another run of this one.
func domain() string {
	return fmt.Sprintf("t%d-%d.%s", domains.Add(1), time.Now().UnixNano(), zone)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	var relays sync.Map // of registries
	registrytest.Run(t, registrytest.Harness{
		New: func(t *testing.T) registrytest.Open {
			addr, domain := shared.Addr(t), domain()
			return func(t *testing.T) registry.Registry {
				p := testserver.NewRelay(t, addr)
				r := open(t, dns.Options{Servers: []string{p.Addr}, Zone: domain, Key: key, TCP: true, Timeout: wait})
				relays.Store(r, p)
				return r
			}
		},
		Kill: func(_ *testing.T, r registry.Registry) {
			p, _ := relays.Load(r)
			p.(*testserver.Relay).Kill()
		},
		Shared: true, Endpoints: true, Conflicts: true, TTL: 3 * time.Second, Wait: 2 * wait, Crowd: 200,
	})
}

func second[T any](_ T, err error) error { return err }
