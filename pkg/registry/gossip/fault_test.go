package gossip_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/gossip"
	"github.com/cb02dfca/micro/pkg/status"
)

// A process that is killed is found dead, and its nodes go, however long they were registered for. What took its address hides
// them at once.
func TestKilled(t *testing.T) {
	t.Parallel()
	seed := testserver.FreeAddr()
	r := open(t, at(seed))
	must(t, r.Register(t.Context(), node("stays"), 0))
	sets := watching(t, r, "greeter")
	p := start(t, role{URL: "gossip://" + seed, Nodes: []registry.Node{node("goes")}}, here(t))
	expect(t, sets, "both", ids("goes", "stays"))
	killed := time.Now()
	p.kill()
	expect(t, sets, "one", ids("stays"))
	t.Logf("a killed process was off the list after %v", time.Since(killed).Round(100*time.Millisecond))
	lists(t, r, "stays")

	p = start(t, role{URL: "gossip://" + seed, Nodes: []registry.Node{node("leaves")}}, here(t))
	expect(t, sets, "the next one", ids("leaves", "stays"))
	left := time.Now()
	p.leave()
	expect(t, sets, "one", ids("stays"))
	t.Logf("one that left was off the list after %v", time.Since(left).Round(10*time.Millisecond))
}

// Who is started at the address of one that was killed has its place at once.
func TestStartedAgain(t *testing.T) {
	t.Parallel()
	seed, own := testserver.FreeAddr(), testserver.FreeAddr()
	r := open(t, at(seed))
	must(t, r.Register(t.Context(), node("stays"), 0))
	sets := watching(t, r, "greeter")
	first := open(t, gossip.Options{Seeds: []string{seed}, Bind: own})
	must(t, first.Register(t.Context(), node("former"), 0))
	must(t, first.Register(t.Context(), node("same"), 0))
	expect(t, sets, "its nodes", ids("former", "same", "stays"))
	first.Kill()
	again := open(t, gossip.Options{Seeds: []string{seed}, Bind: own})
	expect(t, sets, "that they are gone", ids("stays"))
	eventually(t, "the id is free", func() bool { return again.Register(t.Context(), node("same"), 0) == nil })
	expect(t, sets, "the same id again", ids("same", "stays"))
}

// When the member that holds the door ends another takes its place, and who comes then finds all.
func TestDoor(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(*gossip.Registry){"closed": func(r *gossip.Registry) { _ = r.Close() }, "killed": (*gossip.Registry).Kill} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			seed := testserver.FreeAddr()
			a, b := open(t, at(seed)), open(t, at(seed))
			must(t, a.Register(t.Context(), node("a"), 0))
			must(t, b.Register(t.Context(), node("b"), 0))
			lists(t, b, "a", "b")
			end(a)
			lists(t, b, "b")
			eventually(t, "somebody is at the door", func() bool {
				c, err := net.Dial("tcp", seed)
				if err == nil {
					_ = c.Close()
				}
				return err == nil
			})
			if nodes, err := open(t, at(seed)).List(t.Context()); err != nil || !ids("b")(set{nodes: nodes}) {
				t.Errorf("who comes later lists %v, %v", names(nodes), err)
			}
		})
	}
}

// When the process that has the door is killed another has it at once: whoever comes then finds those that live, at its first answer,
// and who registers then is found by them, though memberlist finds the killed one dead seconds later.
func TestDoorKilled(t *testing.T) {
	t.Parallel()
	seed := testserver.FreeAddr()
	stays := open(t, at(seed))
	first := start(t, role{URL: "gossip://" + seed, Nodes: []registry.Node{node("first")}}, here(t))
	lists(t, stays, "first")
	must(t, stays.Register(t.Context(), node("stays"), 0))
	doors := []*process{first}
	for _, id := range []string{"second", "third"} {
		doors = append(doors, start(t, role{URL: "gossip://" + seed, Nodes: []registry.Node{node(id)}}, here(t)))
	}
	lists(t, stays, "first", "second", "stays", "third")
	sets := watching(t, stays, "")
	for i, p := range doors {
		p.kill()
		killed := time.Now()
		r := open(t, at(seed))
		nodes, err := r.List(t.Context())
		if err != nil || !strings.Contains(strings.Join(names(nodes), " "), "stays") {
			t.Errorf("who came after kill %d lists %v, %v", i, names(nodes), err)
		}
		came := time.Since(killed)
		late := node(fmt.Sprint("late-", i))
		must(t, r.Register(t.Context(), late, 0))
		expect(t, sets, "who came late", func(s set) bool { return strings.Contains(strings.Join(names(s.nodes), " "), late.ID) })
		t.Logf("after kill %d who came listed %v at %v, and was listed at %v", i, names(nodes), came.Round(time.Millisecond), time.Since(killed).Round(time.Millisecond))
		if took := time.Since(killed); took > 5*time.Second {
			t.Errorf("it took %v to meet: as long as to find out that a process is dead", took)
		}
		must(t, r.Close())
	}
}

// Two that were started when neither was to be found meet, whoever is first to have a node.
func TestMeetLater(t *testing.T) {
	t.Parallel()
	seed := testserver.FreeAddr()
	a, b, c := open(t, at(seed)), open(t, at(seed)), open(t, at(seed))
	lists(t, a)
	lists(t, b)
	must(t, c.Register(t.Context(), node("c"), 0))
	lists(t, a, "c")
	lists(t, b, "c")
}

// Of two that have one id and do not know of each other the one that was registered first stays, and the other is told.
func TestOneIDTwice(t *testing.T) {
	t.Parallel()
	own := []string{testserver.FreeAddr(), testserver.FreeAddr()}
	said := &journal{}
	a := open(t, gossip.Options{Seeds: []string{testserver.FreeAddr()}, Bind: own[0], Logger: said.logger()})
	b := open(t, gossip.Options{Seeds: []string{testserver.FreeAddr()}, Bind: own[1], Logger: said.logger()})
	first, later := node("x"), node("x")
	first.Version, later.Version = "first", "later"
	must(t, a.Register(t.Context(), first, 0))
	must(t, b.Register(t.Context(), later, 0))
	sets := watching(t, b, "")
	expect(t, sets, "its own", ids("x"))
	c := open(t, gossip.Options{Seeds: own}) // by whom they meet
	for _, r := range []*gossip.Registry{a, b, c} {
		eventually(t, "the first stays", func() bool {
			nodes, err := r.List(t.Context())
			return err == nil && len(nodes) == 1 && nodes[0].Version == "first"
		})
	}
	if err := b.Register(t.Context(), later, 0); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("the later one's renewal gave %v, want ErrConflict", err)
	}
	must(t, a.Register(t.Context(), first, time.Hour))
	if !strings.Contains(said.String(), "another member has a node of ours") {
		t.Errorf("the logger was told\n%s", said)
	}
	must(t, a.Close())
	eventually(t, "the id is free", func() bool { return b.Register(t.Context(), later, 0) == nil })
}

// What does not fit into a packet is asked for.
func TestLargeNodes(t *testing.T) {
	t.Parallel()
	members := cluster(t, 3)
	large := node("large")
	large.Metadata = map[string]string{"a": strings.Repeat("x", registry.MaxMetaValue), "b": strings.Repeat("y", registry.MaxMetaValue)}
	must(t, members[0].Register(t.Context(), large, 0))
	must(t, members[1].Register(t.Context(), node("small"), 0))
	for _, r := range members {
		lists(t, r, "large", "small")
	}
	large = large.Clone()
	large.Metadata["c"] = "z"
	must(t, members[0].Register(t.Context(), large, 0))
	for _, r := range members {
		eventually(t, "the change is known", func() bool {
			nodes, err := r.List(t.Context())
			return err == nil && len(nodes) == 2 && nodes[0].Equal(large)
		})
	}
}

// TestManyNodes: 1,000 nodes of four members, and one who comes later and has them all at the first answer.
func TestManyNodes(t *testing.T) {
	t.Parallel()
	const size, each = 4, 250
	members := cluster(t, size)
	var want []registry.Node
	begun := time.Now()
	for i := range each {
		for m, r := range members {
			n := node(fmt.Sprintf("m%d-%03d", m, i))
			n.Service = fmt.Sprint("service-", i%5)
			must(t, r.Register(t.Context(), n, time.Hour))
			want = append(want, n)
		}
	}
	registry.Sort(want)
	all := func(nodes []registry.Node) bool {
		return strings.Join(names(nodes), " ") == strings.Join(names(want), " ")
	}
	for i, r := range members {
		eventually(t, fmt.Sprintf("member %d lists all", i), func() bool {
			nodes, err := r.List(t.Context())
			return err == nil && all(nodes)
		})
	}
	t.Logf("%d nodes were known to all of %d members %v after the first", len(want), size, time.Since(begun).Round(10*time.Millisecond))
	begun = time.Now()
	late := open(t, gossip.Options{Seeds: []string{members[0].Addr()}})
	if nodes, err := late.List(t.Context()); err != nil || !all(nodes) {
		t.Errorf("who comes later lists %d nodes, %v", len(nodes), err)
	}
	t.Logf("who came later listed them %v after its start", time.Since(begun).Round(time.Millisecond))
	sets := watching(t, late, "")
	must(t, members[1].Close())
	expect(t, sets, "those of three", func(s set) bool { return len(s.nodes) == (size-1)*each })
}

func TestTooMany(t *testing.T) {
	t.Parallel()
	r := open(t, at(testserver.FreeAddr()))
	for i := range 4096 {
		must(t, r.Register(t.Context(), node(fmt.Sprint("n", i)), 0))
	}
	err := r.Register(t.Context(), node("more"), 0)
	if !errors.Is(err, &status.Error{Code: status.ResourceExhausted}) {
		t.Errorf("one too many gave %v", err)
	}
	must(t, r.Register(t.Context(), node("n7"), time.Hour)) // what is there may be renewed
	must(t, r.Deregister(t.Context(), node("n7")))
	must(t, r.Register(t.Context(), node("more"), 0))
}

// Seeds that do not answer are told of by who has nothing of its own to tell. Where they are of this machine, and nobody is
// there, there is nothing to be known.
func TestNoSeeds(t *testing.T) {
	t.Parallel()
	lists(t, open(t, at(testserver.FreeAddr())))
	other, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and closes them
	must(t, err)
	defer other.Close()
	go func() {
		for {
			c, err := other.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	r := open(t, at(other.Addr().String()))
	_, err = r.List(t.Context())
	want := "registry: unavailable: " + other.Addr().String() + " is not answering: "
	if !errors.Is(err, registry.ErrUnavailable) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("List gave %v, want %s", err, want)
	}
	sets := watching(t, r, "")
	expect(t, sets, "the error", func(s set) bool { return errors.Is(s.err, registry.ErrUnavailable) })
	must(t, r.Register(t.Context(), node("a"), 0)) // the first service of a fleet
	expect(t, sets, "its own node", ids("a"))
	lists(t, r, "a")
}
