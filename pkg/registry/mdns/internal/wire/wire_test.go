package wire_test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain = "micro."

func node() registry.Node {
	return registry.Node{
		ID: "greeter-1", Service: "greeter", Version: "1.2.3", Address: "127.0.0.1:8080",
		Metadata: map[string]string{"protocol": "mucp"},
	}
}

func TestGoMicroIsRead(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1", "v2", "v5"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			alive, gone, listed := map[string]registry.Node{}, map[string]bool{}, map[string]bool{}
			p := wire.NewParser(domain)
			for _, c := range captures(t, version) {
				m, err := p.Parse(c.packet)
				if err != nil {
					t.Fatalf("%s: %v", c.head, err)
				}
				for _, f := range m.Found {
					if f.Gone {
						gone[f.Instance] = true
						continue
					}
					alive[f.Instance] = f.Node
					if f.TTL != 120*time.Second {
						t.Errorf("%s: ttl %v", f.Instance, f.TTL)
					}
				}
				for _, s := range m.Services {
					listed[s] = true
				}
				if m.Response == (len(m.Questions) > 0) {
					t.Errorf("%s: response %v with questions %v", c.head, m.Response, m.Questions)
				}
			}
			if want := slices.Sorted(maps.Keys(alive)); len(want) == 0 || !slices.Equal(slices.Sorted(maps.Keys(gone)), want) {
				t.Errorf("goodbyes of %v, announced were %v", slices.Sorted(maps.Keys(gone)), want)
			}
			check(t, alive, listed)
		})
	}
}

// check compares what all versions of go-micro have in common: the service greeter, and its subscriber to
// greeter.events under the broker's name.
func check(t *testing.T, alive map[string]registry.Node, listed map[string]bool) {
	t.Helper()
	services := map[string]bool{}
	for _, n := range alive {
		services[n.Service] = true
		switch {
		case n.Service == "greeter":
			if !strings.HasPrefix(n.ID, "greeter-") || n.Address != "127.0.0.1:18080" || n.Metadata["protocol"] == "" || len(n.Endpoints) == 0 {
				t.Errorf("node %+v", n)
			}
			if i := slices.IndexFunc(n.Endpoints, func(e registry.Endpoint) bool { return e.Name == "Say.Hello" }); i < 0 || n.Endpoints[i].Request == nil {
				t.Errorf("endpoints %+v", n.Endpoints)
			}
		case n.Metadata["topic"] == "greeter.events":
			if !strings.HasPrefix(n.ID, "greeter.events-") || n.Version != "ff.http.broadcast" || n.Address != "127.0.0.1:18081" {
				t.Errorf("subscriber %+v", n)
			}
		}
	}
	if !services["greeter"] || !maps.Equal(services, listed) {
		t.Errorf("services %v, listed %v", services, listed)
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*registry.Node){
		"plain":          func(*registry.Node) {},
		"bare":           func(n *registry.Node) { *n = registry.Node{ID: "a", Service: "b", Address: "10.0.0.1:1"} },
		"IPv6":           func(n *registry.Node) { n.Address = "[2001:db8::1]:8080" },
		"dots":           func(n *registry.Node) { n.ID, n.Service = "greeter.events-1", "micro.http.broker" },
		"unicode":        func(n *registry.Node) { n.Metadata["größe"] = "日本語 \"\\" },
		"endpoints":      func(n *registry.Node) { n.Endpoints = endpoints(3) },
		"a large record": func(n *registry.Node) { n.Metadata["large"] = noise(3000, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := node()
			change(&n)
			got := parse(t, n)
			if len(got) != 1 || !got[0].Node.Equal(n) || got[0].TTL != 30*time.Second {
				t.Errorf("got %+v\nwant %+v", got, n)
			}
		})
	}
}

// parse encodes a node and reads it back.
func parse(t *testing.T, n registry.Node) []wire.Found {
	t.Helper()
	r, err := wire.NewRecord(n, domain)
	if err != nil {
		t.Fatal(err)
	}
	packet, err := wire.Response(0, nil, r.Pointer(r.Service, 30))
	if err != nil || len(packet) > wire.MaxPacket {
		t.Fatalf("%d bytes, %v", len(packet), err)
	}
	m, err := wire.NewParser(domain).Parse(packet)
	if err != nil {
		t.Fatal(err)
	}
	return m.Found
}

func endpoints(n int) (out []registry.Endpoint) {
	for i := range n {
		value := &registry.Value{Name: "Req", Type: "Req", Values: []*registry.Value{{Name: fmt.Sprint("field", i), Type: "string"}}}
		out = append(out, registry.Endpoint{Name: fmt.Sprintf("Say.Hello%d", i), Request: value, Response: value})
	}
	return out
}

// noise is text that does not compress well.
func noise(n int, seed uint32) string {
	b := make([]byte, n)
	x := seed
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = 'a' + byte(x>>24)%26
	}
	return string(b)
}

func TestEndpointsAreLeftOutOfALargeRecord(t *testing.T) {
	t.Parallel()
	n := node()
	n.Endpoints = endpoints(400)
	got := parse(t, n)
	if len(got) != 1 || got[0].Node.Endpoints != nil || got[0].Node.Metadata["protocol"] != "mucp" {
		t.Fatalf("got %+v", got)
	}
	n.Endpoints = nil
	if !got[0].Node.Equal(n) {
		t.Errorf("got %+v", got[0].Node)
	}
}

func TestWhatCannotBeAnnounced(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*registry.Node){
		"a service of 64 bytes":  func(n *registry.Node) { n.Service = strings.Repeat("s", 64) },
		"an id with a long part": func(n *registry.Node) { n.ID = "a." + strings.Repeat("i", 64) + ".b" },
		"a name of over 255 bytes": func(n *registry.Node) {
			n.ID = strings.Repeat("i.", 75) + "i"
			n.Service = strings.Repeat("s.", 50) + "s"
		},
		"a host name":               func(n *registry.Node) { n.Address = "example.com:80" },
		"no port":                   func(n *registry.Node) { n.Address = "10.0.0.1" },
		"port zero":                 func(n *registry.Node) { n.Address = "10.0.0.1:0" },
		"every interface":           func(n *registry.Node) { n.Address = "0.0.0.0:80" },
		"every IPv6 interface":      func(n *registry.Node) { n.Address = "[::]:80" },
		"a multicast address":       func(n *registry.Node) { n.Address = "224.0.0.251:80" },
		"an address with a zone":    func(n *registry.Node) { n.Address = "[fe80::1%eth0]:80" },
		"a transport's own address": func(n *registry.Node) { n.Address = "memory-1" },
		"too much metadata": func(n *registry.Node) {
			for i := range 5 {
				n.Metadata[fmt.Sprint("k", i)] = noise(4000, uint32(i))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := node()
			change(&n)
			if err := registry.Validate(n); err != nil {
				t.Fatalf("the case is none: %v", err)
			}
			if _, err := wire.NewRecord(n, domain); !errors.Is(err, registry.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
}

// TestLongestName: what is as long as DNS takes is announced, and read back.
func TestLongestName(t *testing.T) {
	t.Parallel()
	n := node()
	n.Service = strings.Repeat("s", 63)
	n.ID = strings.Repeat("i", 63) + "." + strings.Repeat("j", 63) + "." + strings.Repeat("k", 55)
	if got := parse(t, n); len(got) != 1 || !got[0].Node.Equal(n) {
		t.Errorf("got %+v", got)
	}
	n.ID += "k"
	if _, err := wire.NewRecord(n, domain); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("one byte more gave %v, want ErrInvalid", err)
	}
}

func TestManyNodesInAPacket(t *testing.T) {
	t.Parallel()
	var rrs []dns.RR
	for i := range 20 {
		n := node()
		n.ID = fmt.Sprintf("greeter-%d", i)
		n.Address = fmt.Sprintf("10.0.0.%d:80", i+1)
		r, err := wire.NewRecord(n, domain)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, r.Pointer(wire.NodesName(domain), 30)...)
	}
	packet, err := wire.Response(0, nil, rrs)
	if err != nil {
		t.Fatal(err)
	}
	m, err := wire.NewParser(domain).Parse(packet)
	if err != nil || len(m.Found) != 20 {
		t.Fatalf("%d nodes, %v", len(m.Found), err)
	}
	for i, f := range m.Found {
		if f.Node.Address != fmt.Sprintf("10.0.0.%d:80", i+1) {
			t.Errorf("node %d at %s", i, f.Node.Address)
		}
	}
}

// TestSharedHostName: go-micro's nodes of one machine share a host name, also where their addresses differ.
func TestSharedHostName(t *testing.T) {
	t.Parallel()
	var rrs []dns.RR
	for i, a := range []string{"10.0.0.1", "10.0.0.2"} {
		rrs = append(rrs, instance(t, fmt.Sprintf("greeter-%d", i), net.ParseIP(a), `{"Service":"greeter"}`)...)
	}
	m := response(t, rrs)
	if len(m.Found) != 2 || m.Found[0].Node.Address != "10.0.0.1:80" || m.Found[1].Node.Address != "10.0.0.2:80" {
		t.Errorf("got %+v", m.Found)
	}
}

// instance gives records of a node of greeter as somebody else may write them.
func instance(t testing.TB, id string, ip net.IP, plain string) []dns.RR {
	return raw(id, ip, pack(t, plain))
}

func raw(id string, ip net.IP, text []string) []dns.RR {
	name := id + ".greeter.micro."
	h := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 120}
	}
	return []dns.RR{
		&dns.SRV{Hdr: h(name, dns.TypeSRV), Port: 80, Target: "vm."},
		&dns.A{Hdr: h("vm.", dns.TypeA), A: ip},
		&dns.TXT{Hdr: h(name, dns.TypeTXT), Txt: text},
	}
}

func response(t *testing.T, rrs []dns.RR) *wire.Message {
	t.Helper()
	packet, err := wire.Response(0, nil, rrs)
	if err != nil {
		t.Fatal(err)
	}
	m, err := wire.NewParser(domain).Parse(packet)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestBadText(t *testing.T) {
	t.Parallel()
	bomb := pack(t, `{"Metadata":{"k":"`+strings.Repeat("A", 8<<20)+`"},"Service":"greeter"}`)
	for name, text := range map[string][]string{
		"none":              {""},
		"key and value":     {"txtvers=1"},
		"no zlib":           {"00112233"},
		"half a zlib":       {pack(t, `{"Service":"greeter"}`)[0][:20]},
		"no JSON":           pack(t, "hello"),
		"JSON of an array":  pack(t, `["greeter"]`),
		"another service":   pack(t, `{"Service":"other"}`),
		"no service":        pack(t, `{"Version":"1"}`),
		"service of a type": pack(t, `{"Service":7}`),
		"an escape":         pack(t, `{"Service":"greeter","Version":"\u001b[31m"}`),
		"a bad endpoint":    pack(t, `{"Service":"greeter","Endpoints":[{"name":""}]}`),
		"a compressed bomb": bomb,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if size := len(strings.Join(text, "")); size > 32<<10 {
				t.Fatalf("the case does not fit into a packet: %d", size)
			}
			m := response(t, raw("greeter-1", net.IPv4(127, 0, 0, 1), text))
			if len(m.Found) != 0 {
				t.Errorf("got %+v", m.Found)
			}
			m = response(t, append(raw("greeter-1", net.IPv4(127, 0, 0, 1), text), instance(t, "greeter-2", net.IPv4(127, 0, 0, 1), `{"Service":"greeter"}`)...))
			if len(m.Found) != 1 || m.Found[0].Node.ID != "greeter-2" {
				t.Errorf("the good node beside it: %+v", m.Found)
			}
		})
	}
}

// TestEndpointsBeyondTheLimit: go-micro's node with hundreds of endpoints is found without them.
func TestEndpointsBeyondTheLimit(t *testing.T) {
	t.Parallel()
	many := `{"Metadata":{"protocol":"mucp"},"Service":"greeter","Version":"1","Endpoints":[` + strings.Repeat(`{"name":"Say.Hello"},`, 8000) + `{"name":"X"}]}`
	m := response(t, instance(t, "greeter-1", net.IPv4(127, 0, 0, 1), many))
	want := registry.Node{ID: "greeter-1", Service: "greeter", Version: "1", Address: "127.0.0.1:80", Metadata: map[string]string{"protocol": "mucp"}}
	if len(m.Found) != 1 || !m.Found[0].Node.Equal(want) {
		t.Errorf("got %+v", m.Found)
	}
}

func TestManyBombsInAPacket(t *testing.T) {
	t.Parallel()
	bomb := pack(t, strings.Repeat("A", 100<<10))
	var rrs []dns.RR
	for i := range 100 {
		rrs = append(rrs, raw(fmt.Sprintf("bomb-%d", i), net.IPv4(127, 0, 0, 1), bomb)...)
	}
	packet, err := wire.Response(0, nil, rrs)
	if err != nil {
		t.Fatal(err)
	}
	p := wire.NewParser(domain)
	if _, err := p.Parse(packet); err != nil {
		t.Fatal(err)
	}
	if allocs := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			_, _ = p.Parse(packet)
		}
	}).AllocedBytesPerOp(); allocs > 1<<20 {
		t.Errorf("%d bytes allocated for a packet of %d", allocs, len(packet))
	}
}

func TestBadPackets(t *testing.T) {
	t.Parallel()
	good, err := wire.Query(1, "greeter.micro.")
	if err != nil {
		t.Fatal(err)
	}
	many := make([]string, 17)
	for i := range many {
		many[i] = "greeter.micro."
	}
	questions, err := wire.Query(1, many...)
	if err != nil {
		t.Fatal(err)
	}
	with := func(i int, b byte) []byte { p := slices.Clone(good); p[i] |= b; return p }
	for name, packet := range map[string][]byte{
		"empty":                        {},
		"half a header":                good[:6],
		"half a question":              good[:15],
		"another opcode":               with(2, 0x28),
		"an error code":                with(3, 0x03),
		"seventeen questions":          questions,
		"a count of records":           with(6, 0xff),
		"a name that points to itself": append([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0xc0, 12, 0, 12, 0, 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if m, err := wire.NewParser(domain).Parse(packet); err == nil && (name != "a count of records" || len(m.Found) > 0) {
				t.Errorf("got %+v", m)
			}
		})
	}
}

func TestAnotherDomain(t *testing.T) {
	t.Parallel()
	r, err := wire.NewRecord(node(), "private.")
	if err != nil {
		t.Fatal(err)
	}
	packet, err := wire.Response(0, nil, r.Pointer(r.Service, 30))
	if err != nil {
		t.Fatal(err)
	}
	for d, want := range map[string]int{"private.": 1, "micro.": 0} {
		if m, err := wire.NewParser(d).Parse(packet); err != nil || len(m.Found) != want {
			t.Errorf("in %s: %+v, %v", d, m, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, version := range []string{"v1", "v2", "v5"} {
		for _, c := range captures(f, version) {
			f.Add(c.packet)
		}
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		m, err := wire.NewParser(domain).Parse(packet)
		if err != nil {
			return
		}
		for _, found := range m.Found {
			if found.Gone {
				continue
			}
			if err := registry.Validate(found.Node); err != nil {
				t.Errorf("an invalid node was given: %v", err)
			}
			if err := registry.ValidHostPort(found.Node.Address); err != nil {
				t.Errorf("a node that cannot be dialled was given: %v", err)
			}
		}
		for _, name := range m.Services {
			if !registry.ValidName(name) {
				t.Errorf("an invalid name was given: %q", name)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	p := wire.NewParser(domain)
	c := captures(b, "v5")[0]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Parse(c.packet); err != nil {
			b.Fatal(err)
		}
	}
}
