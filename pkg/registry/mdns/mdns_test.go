package mdns_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// private gives a domain that no other test of this machine uses.
func private() string { return fmt.Sprintf("t%016x", rand.Uint64()) }

func open(t testing.TB, o mdns.Options) *mdns.Registry {
	t.Helper()
	r, err := mdns.New(o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func at(address string) registry.Node {
	return registry.Node{ID: "greeter-1", Service: "greeter", Version: "1.0.0", Address: address, Metadata: map[string]string{"protocol": "mucp"}}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, registrytest.Harness{
		New: func(*testing.T) registrytest.Open {
			domain := private()
			return func(t *testing.T) registry.Registry { return open(t, mdns.Options{Domain: domain}) }
		},
		Shared: true, Endpoints: true,
		TTL:  time.Second, // a record's ttl counts seconds (RFC 1035 section 3.2.1)
		Kill: func(_ *testing.T, r registry.Registry) { mdns.Kill(r.(*mdns.Registry)) },
	})
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"mdns://":                                   "",
		"mdns://?scope=host":                        "",
		"mdns://?scope=lan&domain=a.b&iface=":       "",
		"mdns://?iface=eth0,eth1":                   "",
		"mdns://?domain=private.":                   "",
		"mdns://?scope=wan":                         "want host or lan",
		"mdns://?scop=lan":                          "unknown parameter",
		"mdns://?scope=lan&scope=lan":               "stands 2 times",
		"mdns://?domain=a_b":                        "is not a domain",
		"mdns://?domain=..":                         "is not a domain",
		"mdns://?domain=" + strings.Repeat("a", 65): "is not a domain",
		"mdns://10.0.0.1":                           "no server",
		"mdns:///path":                              "no server",
	} {
		t.Run(raw, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			r, err := mdns.Open(t.Context(), u)
			if r != nil {
				defer r.Close()
			}
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]mdns.Options{
		"ttl":    {TTL: time.Millisecond},
		"scope":  {Scope: 7},
		"domain": {Domain: "-"},
	} {
		if _, err := mdns.New(o); err == nil || !strings.HasPrefix(err.Error(), "mdns: "+name) && name != "domain" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNamesThatCannotBeAnnounced(t *testing.T) {
	t.Parallel()
	r := open(t, mdns.Options{Domain: private()})
	n := at("127.0.0.1:80")
	n.Service = strings.Repeat("s", 64)
	err := r.Register(t.Context(), n, 0)
	if !errors.Is(err, registry.ErrInvalid) || !strings.Contains(err.Error(), "DNS takes 63") {
		t.Errorf("Register gave %v, want ErrInvalid with the reason", err)
	}
	if _, err := r.Get(t.Context(), n.Service); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("Get of the name gave %v, want ErrNotFound", err)
	}
}

func TestNoSuchInterface(t *testing.T) {
	t.Parallel()
	r := open(t, mdns.Options{Domain: private(), Scope: mdns.LAN, Interfaces: []string{"nonesuch"}})
	err := r.Register(t.Context(), at("127.0.0.1:80"), 0)
	if !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("Register gave %v, want ErrUnavailable", err)
	}
	_, err = r.List(t.Context())
	if !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("List gave %v, want ErrUnavailable", err)
	}
	for _, err := range r.Watch(t.Context(), "") {
		if !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("Watch yielded %v, want ErrUnavailable", err)
		}
		break
	}
}

func TestGetEndsWithItsContext(t *testing.T) {
	t.Parallel()
	r := open(t, mdns.Options{Domain: private()})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Get(ctx, "nobody"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get gave %v, want DeadlineExceeded", err)
	}
}

// TestRefresh: a node that stays is still there when its records' ttl is over, because who watches asks again.
func TestRefresh(t *testing.T) {
	t.Parallel()
	domain := private()
	serve := open(t, mdns.Options{Domain: domain, TTL: 2 * time.Second})
	watch := open(t, mdns.Options{Domain: domain})
	n := at("127.0.0.1:80")
	if err := serve.Register(t.Context(), n, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	sets := 0
	for nodes, err := range watch.Watch(ctx, "greeter") {
		if sets++; err != nil || len(nodes) != 1 {
			t.Errorf("set %d: %v, %v", sets, nodes, err)
		}
	}
	if sets != 1 {
		t.Errorf("%d sets, want one", sets)
	}
}

// TestDomainsAreApart: what is registered in one domain does not show in another.
func TestDomainsAreApart(t *testing.T) {
	t.Parallel()
	a, b := open(t, mdns.Options{Domain: private()}), open(t, mdns.Options{Domain: private()})
	if err := a.Register(t.Context(), at("127.0.0.1:80"), 0); err != nil {
		t.Fatal(err)
	}
	if nodes, err := b.List(t.Context()); err != nil || len(nodes) != 0 {
		t.Errorf("List gave %v, %v", nodes, err)
	}
}

// Other processes: the whole way of a node through them.
func TestProcesses(t *testing.T) {
	t.Parallel()
	uri := "mdns://?domain=" + private()
	watch := start(t, nil, role{Do: "watch", URL: uri})
	watch.until(0)
	var serve []*process
	for i := range 5 {
		n := at(fmt.Sprintf("127.0.0.1:%d", 8080+i))
		n.ID = fmt.Sprintf("greeter-%d", i)
		serve = append(serve, start(t, nil, role{Do: "serve", URL: uri, Node: n, Lease: 3 * time.Second}))
	}
	for _, p := range serve {
		p.line()
	}
	watch.until(5)
	get := start(t, nil, role{Do: "get", URL: uri, Get: "greeter"})
	if len(get.nodes()) == 0 {
		t.Error("get gave no nodes")
	}
	serve[0].kill()
	serve[1].stop()
	watch.until(3)
}

func BenchmarkGet(b *testing.B) {
	domain := private()
	serve, ask := open(b, mdns.Options{Domain: domain}), open(b, mdns.Options{Domain: domain})
	if err := serve.Register(b.Context(), at("127.0.0.1:80"), 0); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := ask.Get(b.Context(), "greeter"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetWatched(b *testing.B) {
	r := open(b, mdns.Options{Domain: private()})
	if err := r.Register(b.Context(), at("127.0.0.1:80"), 0); err != nil {
		b.Fatal(err)
	}
	for range r.Watch(b.Context(), "greeter") {
		for b.Loop() {
			if _, err := r.Get(b.Context(), "greeter"); err != nil {
				b.Fatal(err)
			}
		}
		break
	}
}

// BenchmarkList asks 100 registries of one process for a node each.
func BenchmarkList(b *testing.B) {
	domain := private()
	for i := range 100 {
		n := at("127.0.0.1:80")
		n.ID = fmt.Sprintf("greeter-%d", i)
		if err := open(b, mdns.Options{Domain: domain}).Register(b.Context(), n, 0); err != nil {
			b.Fatal(err)
		}
	}
	ask, missed := open(b, mdns.Options{Domain: domain}), 0
	for b.Loop() {
		nodes, err := ask.List(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		missed += 100 - len(nodes)
	}
	b.ReportMetric(float64(missed)/float64(b.N), "missed/op")
}

// BenchmarkNew is the time from a node's registration to a set of an open watch.
func BenchmarkNew(b *testing.B) {
	domain := private()
	serve, ask := open(b, mdns.Options{Domain: domain}), open(b, mdns.Options{Domain: domain})
	sets := make(chan int)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for nodes := range ask.Watch(ctx, "") {
			select {
			case sets <- len(nodes):
			case <-ctx.Done():
			}
		}
	}()
	defer func() { cancel(); <-done }()
	<-sets
	n := at("127.0.0.1:80")
	for b.Loop() {
		if err := serve.Register(b.Context(), n, 0); err != nil {
			b.Fatal(err)
		}
		for <-sets != 1 {
		}
		b.StopTimer()
		if err := serve.Deregister(b.Context(), n); err != nil {
			b.Fatal(err)
		}
		for <-sets != 0 {
		}
		b.StartTimer()
	}
}
