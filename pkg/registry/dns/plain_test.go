package dns_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/dns"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// Services that have nothing but an SRV record, as an operator or Kubernetes makes them.
func TestPlainSRV(t *testing.T) {
	t.Parallel()
	addr := shared.Addr(t)
	for _, tt := range []struct {
		service, srv string
		want         []string // id, address
	}{
		{"greeter", "", []string{"web-1.static.test/8080", "10.0.0.1:8080", "web-2.static.test/8081", "10.0.0.2:8081"}},
		{"moved", "", []string{"web-1.static.test/8080", "10.0.0.1:8080", "web-2.static.test/8081", "10.0.0.2:8081"}},
		{"cart.shop", "_grpc._tcp.{service}", []string{"web-2.static.test/50051", "10.0.0.2:50051"}},
		{"cart", "_grpc._tcp.{service}.shop.static.test.", []string{"web-2.static.test/50051", "10.0.0.2:50051"}},
		{"far", "", []string{"host.elsewhere.test/80", "host.elsewhere.test:80"}},
		{"closed", "", nil},
		{"nobody", "", nil},
		{"cart.shop", "", nil},
		{strings.Repeat("n", 100), "", nil},
	} {
		t.Run(tt.service+" "+tt.srv, func(t *testing.T) {
			t.Parallel()
			r := open(t, dns.Options{Servers: []string{addr}, Zone: "static.test", SRV: tt.srv})
			nodes, err := r.Get(t.Context(), tt.service)
			var got []string
			for _, n := range nodes {
				got = append(got, n.ID, n.Address)
				if n.Service != tt.service || n.Metadata[dns.MetaTarget] == "" || registry.Validate(n) != nil {
					t.Errorf("a node is %+v", n)
				}
			}
			if !slices.Equal(got, tt.want) || (err != nil) != (tt.want == nil) || err != nil && !errors.Is(err, registry.ErrNotFound) {
				t.Errorf("Get gave %q, %v, want %q", got, err, tt.want)
			}
			first := registrytest.Expect(t, registrytest.Follow(t, r, tt.service), "a set", func(registrytest.Set) bool { return true })
			if len(first.Nodes) != len(tt.want)/2 || first.Err != nil {
				t.Errorf("the watch began with %+v, %v", first.Nodes, first.Err)
			}
		})
	}
}

// A watch sees what an operator changes, and nodes of ours go before SRV records by hand.
func TestPlainWatch(t *testing.T) {
	t.Parallel()
	addr, domain := shared.Addr(t), domain()
	r := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key})
	sets := registrytest.Follow(t, r, "greeter")
	registrytest.Expect(t, sets, "an empty set", registrytest.IDs())
	srv := func(port uint16) []wire.RR {
		return []wire.RR{&wire.SRV{Hdr: wire.RR_Header{Name: wire.Fqdn("_greeter._tcp." + domain), Rrtype: wire.TypeSRV, Ttl: 1}, Target: "web.example.org.", Port: port}}
	}
	tamper(t, addr, func(m *wire.Msg) { m.Insert(srv(1)) })
	registrytest.Expect(t, sets, "the target", registrytest.IDs("web.example.org/1"))
	tamper(t, addr, func(m *wire.Msg) { m.Insert(srv(2)) })
	registrytest.Expect(t, sets, "both", registrytest.IDs("web.example.org/1", "web.example.org/2"))
	must(t, r.Register(t.Context(), node("ours"), 0))
	registrytest.Expect(t, sets, "ours", registrytest.IDs("ours"))
	must(t, r.Deregister(t.Context(), node("ours")))
	tamper(t, addr, func(m *wire.Msg) { m.Remove(srv(1)) })
	registrytest.Expect(t, sets, "the one that is left", registrytest.IDs("web.example.org/2"))
	if nodes, err := r.List(t.Context()); len(nodes) != 0 || err != nil {
		t.Errorf("List gave %+v, %v", nodes, err)
	}
}

// Those that are named are listed.
func TestPlainServices(t *testing.T) {
	t.Parallel()
	r := open(t, dns.Options{Servers: []string{shared.Addr(t)}, Zone: "static.test", Services: []string{"greeter", "moved", "nobody"}})
	nodes, err := r.List(t.Context())
	if !registrytest.IDs("web-1.static.test/8080", "web-2.static.test/8081", "web-1.static.test/8080", "web-2.static.test/8081")(registrytest.Set{Nodes: nodes, Err: err}) || nodes[0].Service != "greeter" || nodes[2].Service != "moved" {
		t.Errorf("List gave %+v, %v", nodes, err)
	}
	registrytest.Expect(t, registrytest.Follow(t, r, ""), "them", func(s registrytest.Set) bool { return s.Err == nil && len(s.Nodes) > 0 })
}
