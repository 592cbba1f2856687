package dns_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/dns"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// records gives what stands at a name.
func records(t testing.TB, addr, name string, kind uint16) []wire.RR {
	t.Helper()
	m := new(wire.Msg)
	m.SetQuestion(wire.Fqdn(name), kind)
	c := wire.Client{Net: "tcp", Timeout: wait}
	a, _, err := c.Exchange(m, addr)
	must(t, err)
	return a.Answer
}

// tamper has the zone changed as an operator would.
func tamper(t testing.TB, addr string, change func(m *wire.Msg)) {
	t.Helper()
	m := new(wire.Msg)
	m.SetUpdate(zone + ".")
	change(m)
	m.SetTsig(keyName+".", wire.HmacSHA256, 300, time.Now().Unix())
	c := wire.Client{Net: "tcp", Timeout: wait, TsigSecret: map[string]string{keyName + ".": secret}}
	a, _, err := c.Exchange(m, addr)
	must(t, err)
	if a.Rcode != wire.RcodeSuccess {
		t.Fatalf("the change gave %s", wire.RcodeToString[a.Rcode])
	}
}

func everythingAt(name string) []wire.RR {
	return []wire.RR{&wire.ANY{Hdr: wire.RR_Header{Name: wire.Fqdn(name)}}}
}

// A process that is killed takes its nodes with it, with its record's ttl: not when the hour is over that they were registered for. The
// record stays, until somebody who runs the service removes it.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	addr, domain := shared.Addr(t), domain()
	r := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key, TTL: 2 * time.Second})
	sets := registrytest.Follow(t, r, "greeter")
	kill := registrytest.Spawn(t, node("mortal"), addr, domain)
	registrytest.Expect(t, sets, "the node of the process", registrytest.IDs("mortal"))
	kill()
	killed := time.Now()
	registrytest.Expect(t, sets, "no node", registrytest.IDs())
	if took := time.Since(killed); took > 3*time.Second+wait/3 {
		t.Errorf("it was listed for %v", took)
	}
	if len(records(t, addr, "mortal._micro._tcp."+domain, wire.TypeTXT)) != 1 {
		t.Error("its record is gone")
	}
	must(t, r.Register(t.Context(), node("heir"), 0))
	registrytest.Eventually(t, "its record is removed", func() bool {
		return len(records(t, addr, "mortal._micro._tcp."+domain, wire.TypeTXT)) == 0 && len(records(t, addr, "_greeter._sub._micro._tcp."+domain, wire.TypePTR)) == 1
	})
	if len(records(t, addr, "mortal._micro._tcp."+domain, wire.TypeSRV)) != 0 {
		t.Error("its SRV record is still there")
	}
}

// Who looks for the first time goes by the clock: what is long over is not listed, and Prune removes it.
func TestLongDead(t *testing.T) {
	t.Parallel()
	addr, domain := shared.Addr(t), domain()
	r := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key})
	must(t, r.Register(t.Context(), node("alive"), 0))
	must(t, r.Register(t.Context(), node("dead"), 0))
	at := "dead._micro._tcp." + domain
	old := records(t, addr, at, wire.TypeTXT)[0].(*wire.TXT)
	tamper(t, addr, func(m *wire.Msg) { // as if its owner had died an hour ago
		long := wire.Copy(old).(*wire.TXT)
		for i, s := range long.Txt {
			if strings.HasPrefix(s, "until=") {
				long.Txt[i] = fmt.Sprint("until=", time.Now().Add(-time.Hour).UnixMilli())
			}
			if strings.HasPrefix(s, "owner=") {
				long.Txt[i] = "owner=somebody-else"
			}
		}
		m.RemoveRRset([]wire.RR{old})
		m.Insert([]wire.RR{long})
	})
	late := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key})
	nodes, err := late.Get(t.Context(), "greeter")
	if !registrytest.IDs("alive")(registrytest.Set{Nodes: nodes, Err: err}) {
		t.Errorf("Get gave %+v, %v", nodes, err)
	}
	if n, err := late.Prune(t.Context()); n > 1 || err != nil {
		t.Errorf("Prune removed %d, %v", n, err)
	}
	nodes, err = late.List(t.Context())
	if !registrytest.IDs("alive")(registrytest.Set{Nodes: nodes, Err: err}) {
		t.Errorf("List gave %+v, %v", nodes, err)
	}
	if len(records(t, addr, at, wire.TypeTXT)) != 0 {
		t.Error("the record is still there")
	}
	must(t, late.Register(t.Context(), node("dead"), 0)) // its id is free
}

// What others change of a node's records is mended with the next renewal.
func TestMended(t *testing.T) {
	t.Parallel()
	addr, domain := shared.Addr(t), domain()
	r := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key, TTL: time.Second})
	sets := registrytest.Follow(t, open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key}), "greeter")
	must(t, r.Register(t.Context(), node("a"), 0))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	tamper(t, addr, func(m *wire.Msg) { m.RemoveName(everythingAt("a._micro._tcp." + domain)) })
	registrytest.Expect(t, sets, "that the node is gone", registrytest.IDs())
	registrytest.Expect(t, sets, "the node again", registrytest.IDs("a"))
	tamper(t, addr, func(m *wire.Msg) {
		m.RemoveName(everythingAt("_greeter._sub._micro._tcp." + domain))
		m.RemoveName(everythingAt("_services._micro._tcp." + domain))
	})
	registrytest.Expect(t, sets, "that the node is gone", registrytest.IDs())
	registrytest.Expect(t, sets, "the node again", registrytest.IDs("a"))
	registrytest.Eventually(t, "it is listed", func() bool {
		nodes, err := r.List(t.Context())
		return registrytest.IDs("a")(registrytest.Set{Nodes: nodes, Err: err})
	})
}

// The records that other programs read.
func TestRecords(t *testing.T) {
	t.Parallel()
	addr, domain := shared.Addr(t), domain()
	r := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key})
	four, six, name, other := node("a"), node("b.c/d"), node("UPPER"), node(strings.Repeat("long-", 40)+"x")
	four.Address, six.Address, name.Address, other.Address = "10.0.0.5:80", "[2001:db8::1]:81", "Host.example.org:82", "memory-7"
	for _, n := range []registry.Node{four, six, name, other} {
		must(t, r.Register(t.Context(), n, 0))
	}
	srv := func(instance string) (string, uint16) {
		t.Helper()
		got := records(t, addr, instance+"._micro._tcp."+domain, wire.TypeSRV)
		if len(got) != 1 {
			t.Fatalf("%s has %v", instance, got)
		}
		return got[0].(*wire.SRV).Target, got[0].(*wire.SRV).Port
	}
	target, port := srv("a")
	if got := records(t, addr, target, wire.TypeA); port != 80 || !strings.HasPrefix(target, "ip-10-0-0-5-") || len(got) != 1 || got[0].(*wire.A).A.String() != "10.0.0.5" {
		t.Errorf("a has %s:%d, %v", target, port, got)
	}
	target6, port := srv(`b\.c/d`)
	if got := records(t, addr, target6, wire.TypeAAAA); port != 81 || len(got) != 1 || got[0].(*wire.AAAA).AAAA.String() != "2001:db8::1" {
		t.Errorf("b.c/d has %s:%d, %v", target6, port, got)
	}
	if got := records(t, addr, "_greeter._sub._micro._tcp."+domain, wire.TypePTR); len(got) != 4 {
		t.Errorf("the service has %v", got)
	}
	nodes, err := r.Get(t.Context(), "greeter")
	if !registrytest.IDs("UPPER", "a", "b.c/d", other.ID)(registrytest.Set{Nodes: nodes, Err: err}) || nodes[0].Address != name.Address || nodes[3].Address != "memory-7" {
		t.Errorf("Get gave %+v, %v", nodes, err)
	}
	moved := four.Clone()
	moved.Service, moved.Address = "Auth", "10.0.0.6:80"
	must(t, r.Register(t.Context(), moved, 0))
	if got := records(t, addr, target, wire.TypeA); len(got) != 0 {
		t.Errorf("the old address is still there: %v", got)
	}
	for _, n := range []registry.Node{moved, six, name, other} {
		must(t, r.Deregister(t.Context(), n))
	}
	for what, name := range map[string]string{"services": "_services._micro._tcp.", "the service": "_greeter._sub._micro._tcp."} {
		if got := records(t, addr, name+domain, wire.TypePTR); len(got) != 0 {
			t.Errorf("%s: left %v", what, got)
		}
	}
	if got := records(t, addr, target6, wire.TypeAAAA); len(got) != 0 {
		t.Errorf("the address of a node that is gone: %v", got)
	}
}

// Large nodes are compressed, and go without their endpoints if need be.
func TestLarge(t *testing.T) {
	t.Parallel()
	addr, domain := shared.Addr(t), domain()
	r := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key})
	n := node("a")
	for i := range 120 {
		n.Endpoints = append(n.Endpoints, registry.Endpoint{Name: "Say.Hello" + strings.Repeat("x", i%7), Metadata: map[string]string{"doc": strings.Repeat("word ", 30)}})
	}
	must(t, r.Register(t.Context(), n, 0))
	got, err := r.Get(t.Context(), "greeter")
	if err != nil || len(got) != 1 || !got[0].Equal(n) {
		t.Fatalf("Get gave %d nodes, %v", len(got), err)
	}
	for i := range n.Endpoints {
		n.Endpoints[i].Metadata = map[string]string{"doc": noise(400, uint64(i))}
	}
	must(t, r.Register(t.Context(), n, 0))
	bare := n
	bare.Endpoints = nil
	if got, err = r.Get(t.Context(), "greeter"); err != nil || len(got) != 1 || !got[0].Equal(bare) {
		t.Fatalf("Get gave %+v, %v", got, err)
	}
	n.Endpoints = nil
	for i := range 12 {
		n.Metadata[noise(8, uint64(i))] = noise(4000, uint64(i))
	}
	if err := r.Register(t.Context(), n, 0); !errors.Is(err, registry.ErrInvalid) || !strings.Contains(err.Error(), "metadata") {
		t.Errorf("metadata that does not fit gave %v", err)
	}
}

// noise gives text that cannot be compressed much.
func noise(size int, seed uint64) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	out := make([]byte, size)
	for i := range out {
		seed = seed*6364136223846793005 + 1442695040888963407
		out[i] = letters[seed>>58]
	}
	return string(out)
}

// A nameserver that is killed keeps what it took: its journal. Watches say that it is away, once, and go on.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	for _, signal := range []string{"KILL", "TERM"} {
		t.Run(signal, func(t *testing.T) {
			t.Parallel()
			s, said := own(t, ""), &registrytest.Journal{}
			o := dns.Options{Servers: []string{s.Addr}, Zone: zone, Key: key, Logger: said.Logger()}
			r, other := open(t, o), open(t, o)
			sets := registrytest.Follow(t, r, "greeter")
			must(t, r.Register(t.Context(), node("a"), time.Hour))
			must(t, other.Register(t.Context(), node("b"), time.Hour))
			registrytest.Expect(t, sets, "both", registrytest.IDs("a", "b"))
			s.Stop(signal)
			if got := registrytest.Expect(t, sets, "that it is away", func(s registrytest.Set) bool { return s.Err != nil }); !errors.Is(got.Err, registry.ErrUnavailable) {
				t.Errorf("the watch yielded %v, want ErrUnavailable", got.Err)
			}
			want := "registry: unavailable: " + s.Addr + " is not answering: connection refused"
			for what, err := range map[string]error{
				"a renewal": r.Register(t.Context(), node("a"), time.Hour), "a registration": r.Register(t.Context(), node("c"), time.Hour),
				"Get": second(r.Get(t.Context(), "greeter")), "List": second(r.List(t.Context())), "Deregister": other.Deregister(t.Context(), node("b")),
			} {
				if !errors.Is(err, registry.ErrUnavailable) || !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != want {
					t.Errorf("%s gave %v, want %s", what, err, want)
				}
			}
			s.MustStart(t)
			if got := registrytest.Expect(t, sets, "a set", func(s registrytest.Set) bool { return s.Err == nil }); !registrytest.IDs("a", "b")(got) {
				t.Errorf("the first set after the restart has %+v", got.Nodes)
			}
			must(t, r.Deregister(t.Context(), node("a")))
			registrytest.Expect(t, sets, "one node less", registrytest.IDs("b"))
			if log := said.String(); !strings.Contains(log, "the nameserver is away") || !strings.Contains(log, "the nameserver is back") {
				t.Errorf("the logger was told\n%s", log)
			}
		})
	}
}

// A nameserver that comes back without its zone's changes gets the nodes again.
func TestLostData(t *testing.T) {
	t.Parallel()
	s := own(t, "")
	r := open(t, dns.Options{Servers: []string{s.Addr}, Zone: zone, Key: key, TTL: 3 * time.Second})
	sets := registrytest.Follow(t, r, "greeter")
	must(t, r.Register(t.Context(), node("a"), time.Hour))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	s.Stop("KILL")
	registrytest.Expect(t, sets, "that it is away", func(s registrytest.Set) bool { return s.Err != nil })
	s.Dir = t.TempDir()
	s.MustStart(t)
	registrytest.Expect(t, sets, "the node again", registrytest.IDs("a"))
	must(t, r.Register(t.Context(), node("b"), time.Hour))
	registrytest.Expect(t, sets, "both", registrytest.IDs("a", "b"))
}

// A nameserver that is away for longer than the ttl does not make the nodes that are renewed when it is back go.
func TestLongAway(t *testing.T) {
	t.Parallel()
	addr, domain := shared.Addr(t), domain()
	ways := []*testserver.Relay{testserver.NewRelay(t, addr), testserver.NewRelay(t, addr)}
	o := dns.Options{Zone: domain, Key: key, TCP: true, TTL: 3 * time.Second}
	o.Servers = []string{ways[0].Addr}
	r := open(t, o)
	o.Servers = []string{ways[1].Addr}
	sets := registrytest.Follow(t, open(t, o), "greeter")
	must(t, r.Register(t.Context(), node("a"), 0))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	for _, way := range ways {
		way.Kill()
	}
	registrytest.Expect(t, sets, "that it is away", func(s registrytest.Set) bool { return s.Err != nil })
	time.Sleep(4 * time.Second) // the ttl, which a nameserver cannot be told to let go by
	ways[1].Revive()
	if got := registrytest.Expect(t, sets, "a set", func(s registrytest.Set) bool { return s.Err == nil }); !registrytest.IDs("a")(got) {
		t.Errorf("the first set has %+v", got.Nodes)
	}
	ways[0].Revive()
	time.Sleep(4 * time.Second)
	for len(sets) > 0 {
		if got := <-sets; !registrytest.IDs("a")(got) {
			t.Errorf("a set has %+v, %v", got.Nodes, got.Err)
		}
	}
}

// What another has made of a node's record since it was last seen is not overwritten, nor removed.
func TestTakenUnseen(t *testing.T) {
	t.Parallel()
	addr, domain := shared.Addr(t), domain()
	r := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key})
	for _, id := range []string{"a", "b"} {
		must(t, r.Register(t.Context(), node(id), time.Hour))
		tamper(t, addr, func(m *wire.Msg) {
			theirs := records(t, addr, id+"._micro._tcp."+domain, wire.TypeTXT)[0].(*wire.TXT)
			theirs.Txt[1] = "owner=somebody-else"
			m.RemoveRRset([]wire.RR{theirs})
			m.Insert([]wire.RR{wire.Copy(theirs)})
		})
	}
	if err := r.Register(t.Context(), node("a"), time.Hour); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("Register gave %v, want ErrConflict", err)
	}
	if err := r.Deregister(t.Context(), node("b")); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("Deregister gave %v, want ErrConflict", err)
	}
	must(t, r.Close())
	if got := records(t, addr, "_greeter._sub._micro._tcp."+domain, wire.TypePTR); len(got) != 2 {
		t.Errorf("left are %v", got)
	}
}

// Close while the nameserver is away says so, and does not wait for it.
func TestCloseWhileAway(t *testing.T) {
	t.Parallel()
	way := testserver.NewRelay(t, shared.Addr(t))
	r := open(t, dns.Options{Servers: []string{way.Addr}, Zone: domain(), Key: key, TCP: true})
	must(t, r.Register(t.Context(), node("a"), time.Hour))
	way.Kill()
	begun := time.Now()
	if err := r.Close(); !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "lapse: 1") {
		t.Errorf("Close gave %v", err)
	}
	if took := time.Since(begun); took > wait {
		t.Errorf("Close took %v", took)
	}
}

// A server that accepts connections and says nothing does not hold up a caller for ever. What it took of a node without an answer is found
// out later.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	way := testserver.NewRelay(t, shared.Addr(t))
	way.Hold()
	r := open(t, dns.Options{Servers: []string{way.Addr}, Zone: domain(), Key: key, TCP: true, Timeout: 300 * time.Millisecond})
	if _, err := r.Get(t.Context(), "greeter"); !errors.Is(err, registry.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get gave %v, want ErrUnavailable and DeadlineExceeded", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Register(ctx, node("a"), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Register gave %v, want Canceled", err)
	}
	way.Release()
	registrytest.Eventually(t, "it answers", func() bool { return r.Register(t.Context(), node("a"), 0) == nil })
}

// Of several servers one that is there is enough.
func TestSeveralServers(t *testing.T) {
	t.Parallel()
	addr := shared.Addr(t)
	first := testserver.NewRelay(t, addr)
	r := open(t, dns.Options{Servers: []string{first.Addr, testserver.FreeAddr(), addr}, Zone: domain(), Key: key})
	sets := registrytest.Follow(t, r, "greeter")
	must(t, r.Register(t.Context(), node("a"), 0))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	first.Kill()
	changed := node("a")
	changed.Version = "2"
	must(t, r.Register(t.Context(), changed, 0))
	registrytest.Expect(t, sets, "the change", func(s registrytest.Set) bool { return len(s.Nodes) == 1 && s.Nodes[0].Equal(changed) })
}

// Another owner's records, and those that are nobody's, are left alone.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	addr, domain, said := shared.Addr(t), domain(), &registrytest.Journal{}
	r := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key, Logger: said.Logger()})
	at := wire.Fqdn("a._micro._tcp." + domain)
	tamper(t, addr, func(m *wire.Msg) {
		m.Insert([]wire.RR{&wire.TXT{Hdr: wire.RR_Header{Name: at, Rrtype: wire.TypeTXT, Ttl: 5}, Txt: []string{"v=spf1 -all"}}})
		m.Insert([]wire.RR{&wire.PTR{Hdr: wire.RR_Header{Name: wire.Fqdn("_greeter._sub._micro._tcp." + domain), Rrtype: wire.TypePTR, Ttl: 5}, Ptr: at}})
	})
	if err := r.Register(t.Context(), node("a"), 0); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("Register gave %v, want ErrConflict", err)
	}
	must(t, r.Register(t.Context(), node("b"), 0))
	if nodes, err := r.Get(t.Context(), "greeter"); !registrytest.IDs("b")(registrytest.Set{Nodes: nodes, Err: err}) {
		t.Errorf("Get gave %+v, %v", nodes, err)
	}
	if !strings.Contains(said.String(), "records that are no nodes") {
		t.Errorf("the logger was told\n%s", said)
	}
	must(t, r.Deregister(t.Context(), node("a")))
	if len(records(t, addr, at, wire.TypeTXT)) != 1 {
		t.Error("the record was removed")
	}
}

// The record of a node whose owner was cut off may be another's when it comes back. It leaves it to that one.
func TestLostToAnother(t *testing.T) {
	t.Parallel()
	addr, domain := shared.Addr(t), domain()
	way, said := testserver.NewRelay(t, addr), &registrytest.Journal{}
	r := open(t, dns.Options{Servers: []string{way.Addr}, Zone: domain, Key: key, TCP: true, TTL: 2 * time.Second, Logger: said.Logger()})
	must(t, r.Register(t.Context(), node("a"), 0))
	way.Kill()
	heir := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key})
	theirs := node("a")
	theirs.Address = "127.0.0.1:4712"
	if err := heir.Register(t.Context(), theirs, 0); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("the id of a node that is not over yet: %v", err)
	}
	registrytest.Eventually(t, "the id is free", func() bool { return heir.Register(t.Context(), theirs, 0) == nil })
	way.Revive()
	registrytest.Eventually(t, "the first owner learns of the second", func() bool { return strings.Contains(said.String(), "another owner") })
	if err := r.Register(t.Context(), node("a"), time.Minute); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("the first owner's renewal gave %v, want ErrConflict", err)
	}
	must(t, r.Close())
	if nodes, err := heir.Get(t.Context(), "greeter"); err != nil || len(nodes) != 1 || !nodes[0].Equal(theirs) {
		t.Errorf("Get gave %+v, %v", nodes, err)
	}
}

// A service of many nodes; and what a nameserver says that takes no more of them.
func TestManyNodes(t *testing.T) {
	t.Parallel()
	roomy := open(t, dns.Options{Servers: []string{own(t, "max-records-per-type 0;").Addr}, Zone: zone, Key: key})
	sets := registrytest.Follow(t, roomy, "greeter")
	for i := range 150 {
		must(t, roomy.Register(t.Context(), node(fmt.Sprint("node-", i)), 0))
	}
	registrytest.Expect(t, sets, "all of them", func(s registrytest.Set) bool { return s.Err == nil && len(s.Nodes) == 150 })
	if nodes, err := roomy.Get(t.Context(), "greeter"); len(nodes) != 150 || err != nil {
		t.Errorf("Get gave %d nodes, %v", len(nodes), err)
	}
	narrow := open(t, dns.Options{Servers: []string{own(t, "max-records-per-type 2;").Addr}, Zone: zone, Key: key})
	must(t, narrow.Register(t.Context(), node("a"), 0))
	must(t, narrow.Register(t.Context(), node("b"), 0))
	if err := narrow.Register(t.Context(), node("c"), 0); !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "max-records-per-type") {
		t.Errorf("one node too many gave %v", err)
	}
}

// Names that are odd, and what is none at all.
func TestOddNames(t *testing.T) {
	t.Parallel()
	r := open(t, dns.Options{Servers: []string{shared.Addr(t)}, Zone: domain(), Key: key})
	registrytest.Expect(t, registrytest.Follow(t, r, "../x"), "an empty set", registrytest.IDs())
	if err := r.Register(t.Context(), node("a"), -1); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("a negative ttl gave %v", err)
	}
	must(t, r.Deregister(t.Context(), registry.Node{ID: "../x", Service: "greeter"}))
	for _, service := range []string{"greeter", "Greeter", strings.Repeat("n", registry.MaxName)} { // DNS does not tell upper case from lower
		n := node("of-" + service[:7])
		n.Service = service
		must(t, r.Register(t.Context(), n, 0))
		if nodes, err := r.Get(t.Context(), service); !registrytest.IDs(n.ID)(registrytest.Set{Nodes: nodes, Err: err}) {
			t.Errorf("Get %s gave %+v, %v", service, nodes, err)
		}
	}
}
