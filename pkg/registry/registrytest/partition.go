package registrytest

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/netspace"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
)

// Partitions says how a backend is cut off from its server, whose packets are lost without a word. Times are on a busy machine.
type Partitions struct {
	// Server says how the server is run. A test that cannot run it is skipped here.
	Server func(t *testing.T) testserver.Spec
	// Serve serves on a listener until the end of the test, and returns at once. It is given in the place of Server.
	Serve func(t *testing.T, l net.Listener)
	// Open opens a registry on that server, by host:port.
	Open func(t *testing.T, address string) registry.Registry
	// TTL is the lease of the nodes that such a registry registers with ttl 0: the server forgets them after it. Default 2 s.
	TTL time.Duration
	// Late is how much later than that others may see it. Default 2 s.
	Late time.Duration
	// Notice is how long it may take a registry to notice that it is cut off: its watches say so then. Default 16 s.
	Notice time.Duration
	// Back is how long after the partition's end it may take until all is as it should be. Default 8 s.
	Back time.Duration
	// Answer is how long a request may take of one that is cut off. Default 11 s: 5 s for it, and as long for a connection that is
	// found dead.
	Answer time.Duration
}

// cutTime is how long a partition lasts at least: so long that TCP, which doubles its pauses, would say nothing for many seconds after
// its end.
const cutTime = 16 * time.Second

// RunPartitions runs, as subtests of t, what happens to nodes and to callers that are cut off from their server for longer than a
// lease. It calls t.Parallel. Where no network can be made the test is skipped.
func RunPartitions(t *testing.T, p Partitions) {
	t.Helper()
	for v, d := range map[*time.Duration]time.Duration{&p.TTL: 2 * time.Second, &p.Late: 2 * time.Second, &p.Notice: cutTime, &p.Back: 8 * time.Second, &p.Answer: 11 * time.Second} {
		if *v == 0 {
			*v = d
		}
	}
	t.Parallel()
	if !netspace.Alone(t) {
		return
	}
	s := &partition{Partitions: p}
	if p.Serve != nil {
		s.server = testserver.ListenBeyond(t, func(address string) (string, error) {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return "", err
			}
			p.Serve(t, l)
			return l.Addr().String(), nil
		})
	} else {
		s.server = testserver.NewBeyond(t, p.Server(t))
	}
	for _, f := range []netspace.Flow{netspace.To, netspace.From, netspace.Both} {
		t.Run("a node, packets lost: "+f.String(), func(t *testing.T) { t.Parallel(); s.node(t, f) })
		t.Run("a caller, packets lost: "+f.String(), func(t *testing.T) { t.Parallel(); s.caller(t, f) })
	}
	t.Run("close", func(t *testing.T) { t.Parallel(); s.close(t) })
}

// partition is a server, and what is asked of its backend.
type partition struct {
	Partitions
	server *testserver.Beyond
}

// beyond is a node of another machine.
func beyond(service, id string) registry.Node {
	n := node(service, id)
	n.Address = "192.0.2.1:4711"
	return n
}

// member is a registry with a way of its own.
type member struct {
	registry.Registry
	way *netspace.Way
}

func (p *partition) member(t *testing.T) *member {
	t.Helper()
	addr, way := p.server.Way()
	return &member{p.open(t, addr), way}
}

func (p *partition) open(t *testing.T, address string) registry.Registry {
	t.Helper()
	r := p.Open(t, address)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// within reads sets until one is as ok wants it, each of which has to be as always wants it, and logs how long it took.
func within(t *testing.T, sets <-chan Set, d time.Duration, what string, ok, always func(Set) bool) {
	t.Helper()
	begun := time.Now()
	timeout := time.After(d)
	for {
		select {
		case s := <-sets:
			if !always(s) {
				t.Errorf("before %s the watch showed %d nodes %v, %v", what, len(s.Nodes), ids(s.Nodes), s.Err)
			}
			if ok(s) {
				t.Logf("%s: after %v", what, time.Since(begun).Round(10*time.Millisecond))
				return
			}
		case <-timeout:
			t.Errorf("%s: not within %v", what, d)
			return
		}
	}
}

func anything(Set) bool { return true }

// away reports whether a watch says that its server is away.
func away(s Set) bool { return errors.Is(s.Err, registry.ErrUnavailable) }

// has wants a node in each set.
func has(id string) func(Set) bool {
	return func(s Set) bool { return s.Err != nil || slices.Contains(ids(s.Nodes), id) }
}

// node: one whose registry is cut off goes, and comes back by itself. Its own watch tells of both, and forgets nothing.
func (p *partition) node(t *testing.T, f netspace.Flow) {
	service := "node-" + [...]string{"", "to", "from", "both"}[f]
	r, other := p.member(t), p.open(t, p.server.Addr)
	n := beyond(service, service+"-1")
	sets, own := Follow(t, other, service), Follow(t, r, service)
	if err := r.Register(t.Context(), n, 0); err != nil {
		t.Fatal(err)
	}
	Expect(t, sets, "the node", IDs(n.ID))
	Expect(t, own, "the node", IDs(n.ID))
	r.way.Cut(f)
	begun := time.Now()
	gone := p.TTL + p.Late
	if f == netspace.From { // what renews the lease arrives, until the connection is given up
		gone += p.Notice
	}
	within(t, sets, gone, "others see it gone", IDs(), anything)
	keeps := has(n.ID)
	if f == netspace.To { // what the server says still arrives
		keeps = anything
	}
	within(t, own, p.Notice, "its own watch knows", away, keeps)
	if err := p.bounded(t, "Register", func() error { return r.Register(t.Context(), beyond(service, service+"-2"), 0) }); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("Register gave %v, want ErrUnavailable", err)
	}
	time.Sleep(cutTime - time.Since(begun))
	r.way.Heal()
	healed := time.Now()
	within(t, sets, p.Back, "others see it again", func(s Set) bool { return has(n.ID)(s) && s.Err == nil }, func(s Set) bool { return s.Err == nil })
	within(t, own, max(time.Second, p.Back-time.Since(healed)), "its own watch is whole", func(s Set) bool { return has(n.ID)(s) && s.Err == nil }, anything)
	if err := r.Deregister(t.Context(), n); err != nil {
		t.Errorf("Deregister gave %v", err)
	}
}

// caller: one that is cut off keeps what it knows, says that this may be old, and gets all that changed meanwhile.
func (p *partition) caller(t *testing.T, f netspace.Flow) {
	service := "caller-" + [...]string{"", "to", "from", "both"}[f]
	r, other := p.member(t), p.open(t, p.server.Addr)
	leaves, stays, comes, last := beyond(service, "1-leaves-"+service), beyond(service, "2-stays-"+service), beyond(service, "3-comes-"+service), beyond(service, "4-last-"+service)
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(other.Register(t.Context(), leaves, 0))
	do(other.Register(t.Context(), stays, 0))
	sets := Follow(t, r, service)
	Expect(t, sets, "two nodes", IDs(leaves.ID, stays.ID))
	r.way.Cut(f)
	begun := time.Now()
	do(other.Deregister(t.Context(), leaves))
	do(other.Register(t.Context(), comes, 0))
	within(t, sets, p.Notice, "the watch knows", away, has(stays.ID))
	_ = p.bounded(t, "Get", func() error {
		nodes, err := r.Get(t.Context(), service)
		if err == nil && !has(stays.ID)(Set{Nodes: nodes}) || err != nil && !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("Get gave %v, %v; want what is known, or ErrUnavailable", ids(nodes), err)
		}
		return err
	})
	time.Sleep(cutTime - time.Since(begun))
	r.way.Heal()
	within(t, sets, p.Back, "the watch shows what changed", IDs(stays.ID, comes.ID), has(stays.ID))
	do(other.Register(t.Context(), last, 0))
	within(t, sets, p.Back, "the next change", IDs(stays.ID, comes.ID, last.ID), has(stays.ID))
}

// close: whoever is cut off and leaves is not kept from it.
func (p *partition) close(t *testing.T) {
	r := p.member(t)
	n := beyond("closing", "closing-1")
	if err := r.Register(t.Context(), n, 0); err != nil {
		t.Fatal(err)
	}
	sets := Follow(t, r, "closing")
	Expect(t, sets, "the node", IDs(n.ID))
	r.way.Cut(netspace.Both)
	_ = p.bounded(t, "Close", r.Close)
}

// bounded gives f's error, and wants it soon enough.
func (p *partition) bounded(t *testing.T, what string, f func() error) error {
	t.Helper()
	ctx, over := context.WithTimeout(t.Context(), p.Answer)
	defer over()
	begun := time.Now()
	err := f()
	if ctx.Err() != nil {
		t.Errorf("%s took %v", what, time.Since(begun))
	}
	t.Logf("%s: after %v: %v", what, time.Since(begun).Round(10*time.Millisecond), err)
	return err
}
