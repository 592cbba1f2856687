package http_test

import (
	"context"
	"errors"
	"net"
	stdhttp "net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http"
	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childRole) != "" {
		os.Exit(childMain())
	}
	if os.Getenv(commandRole) != "" {
		os.Exit(commandMain())
	}
	goleak.VerifyTestMain(m)
}

// running is a server that can be stopped and started anew on the same address.
type running struct {
	t       *testing.T
	o       registryserver.Options
	address string
	stop    func()
}

func serve(t *testing.T, o registryserver.Options) *running {
	t.Helper()
	s := &running{t: t, o: o, address: "127.0.0.1:0"}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *running) start() {
	s.t.Helper()
	var l net.Listener
	var err error
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if l, err = net.Listen("tcp", s.address); err == nil {
			break
		}
		if time.Now().After(deadline) { // somebody else has its port
			s.t.Fatal(err)
		}
	}
	s.address = l.Addr().String()
	server, err := registryserver.New(s.o)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ctx, l); err != nil {
			s.t.Errorf("Serve: %v", err)
		}
	})
	s.stop = sync.OnceFunc(func() { cancel(); serving.Wait() })
}

func (s *running) url() string { return "http://" + s.address }

func (s *running) client(o http.Options) *http.Registry {
	s.t.Helper()
	o.URL = s.url()
	r, err := http.New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = r.Close() })
	return r
}

func node(id string) registry.Node {
	return registry.Node{ID: id, Service: "greeter", Version: "1", Address: "127.0.0.1:1"}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	var cuts sync.Map // of registries
	registrytest.Run(t, registrytest.Harness{
		New: func(t *testing.T) registrytest.Open {
			s := serve(t, registryserver.Options{MinTTL: time.Millisecond})
			return func(*testing.T) registry.Registry {
				c := &cut{inner: &stdhttp.Transport{}}
				t.Cleanup(c.inner.CloseIdleConnections)
				r := s.client(http.Options{Client: &stdhttp.Client{Transport: c}})
				cuts.Store(r, c)
				return r
			}
		},
		Shared: true, Endpoints: true, Conflicts: true,
		Kill: func(t *testing.T, r registry.Registry) {
			c, _ := cuts.Load(r)
			c.(*cut).dead.Store(true)
		},
	})
}

// cut is a network that is gone once dead is set: no request leaves the client, as if its process had been killed.
type cut struct {
	inner *stdhttp.Transport
	dead  atomic.Bool
}

func (c *cut) RoundTrip(r *stdhttp.Request) (*stdhttp.Response, error) {
	if c.dead.Load() {
		return nil, errors.New("killed")
	}
	return c.inner.RoundTrip(r)
}

// A server that gives out leases far shorter than what its clients ask for.
func TestConformanceWithShortLeases(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, registrytest.Harness{
		New: func(t *testing.T) registrytest.Open {
			s := serve(t, registryserver.Options{MinTTL: time.Millisecond, TTL: 3 * time.Second, MaxTTL: 3 * time.Second, Token: "secret"})
			return func(*testing.T) registry.Registry { return s.client(http.Options{Token: "secret"}) }
		},
		Shared: true, Endpoints: true, Conflicts: true, Crowd: 50,
	})
}
