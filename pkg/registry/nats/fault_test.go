package nats_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/nats"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func second[T any](_ T, err error) error { return err }

// A process that is killed takes its nodes with it: not when the hour is over that they were registered for, but with its lease. Its id
// is free at once.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	sets := registrytest.Follow(t, r, "greeter")
	kill := registrytest.Spawn(t, node("mortal"), addr, prefix)
	registrytest.Expect(t, sets, "the node of the process", registrytest.IDs("mortal"))
	if err := r.Register(t.Context(), node("mortal"), 0); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("its id gave %v, want ErrConflict", err)
	}
	kill()
	killed := time.Now()
	registrytest.Expect(t, sets, "no node", registrytest.IDs())
	if took := time.Since(killed); took > 5*time.Second {
		t.Errorf("the node went after %v, its lease is 1s", took)
	}

	kill = registrytest.Spawn(t, node("mortal"), addr, prefix)
	registrytest.Expect(t, sets, "the node of the process", registrytest.IDs("mortal"))
	kill()
	heir := node("mortal")
	heir.Address = "127.0.0.1:4712"
	registrytest.Eventually(t, "the id is free", func() bool { return r.Register(t.Context(), heir, 0) == nil })
	registrytest.Expect(t, sets, "the heir", func(s registrytest.Set) bool { return len(s.Nodes) == 1 && s.Nodes[0].Equal(heir) })
}

// A NATS that is stopped and started anew is an error for a while, and loses nothing.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"KILL", "TERM"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := own(t)
			r := open(t, nats.Options{Servers: []string{s.Addr}, TTL: time.Second})
			other := open(t, nats.Options{Servers: []string{s.Addr}})
			sets := registrytest.Follow(t, other, "")
			must(t, r.Register(t.Context(), node("a"), 0))
			must(t, r.Register(t.Context(), node("b"), time.Minute))
			registrytest.Expect(t, sets, "two nodes", registrytest.IDs("a", "b"))

			s.Stop(how)
			if got := registrytest.Expect(t, sets, "that NATS is away", func(s registrytest.Set) bool { return s.Err != nil }); !errors.Is(got.Err, registry.ErrUnavailable) {
				t.Errorf("the watch yielded %v, want ErrUnavailable", got.Err)
			}
			registrytest.Eventually(t, "the reason is known", func() bool { return errors.Is(second(r.List(t.Context())), syscall.ECONNREFUSED) })
			for what, err := range map[string]error{
				"a renewal": r.Register(t.Context(), node("b"), time.Minute), "a registration": r.Register(t.Context(), node("c"), time.Minute),
				"Get": second(r.Get(t.Context(), "greeter")), "List": second(other.List(t.Context())),
				"Deregister": other.Deregister(t.Context(), node("a")),
			} {
				if !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), s.Addr+" is not answering: connection refused") {
					t.Errorf("%s gave %v, want ErrUnavailable, the address and the reason", what, err)
				}
			}
			time.Sleep(2500 * time.Millisecond) // over twice the leases

			s.MustStart(t)
			if got := registrytest.Expect(t, sets, "a set", func(s registrytest.Set) bool { return s.Err == nil }); !registrytest.IDs("a", "b")(got) {
				t.Errorf("the first set after the restart has %+v", got.Nodes)
			}
			registrytest.Eventually(t, "a node can be taken away", func() bool { return r.Deregister(t.Context(), node("a")) == nil })
			registrytest.Expect(t, sets, "one node less", registrytest.IDs("b"))
			late := open(t, nats.Options{Servers: []string{s.Addr}})
			if nodes, err := late.List(t.Context()); err != nil || len(nodes) != 1 {
				t.Errorf("a new registry lists %+v, %v", nodes, err)
			}
		})
	}
}

// What is deregistered while NATS is away is gone when it is back.
func TestDeregisterWhileAway(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	way := testserver.NewRelay(t, addr)
	r := open(t, nats.Options{Servers: []string{way.Addr}, Prefix: prefix})
	other := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	sets := registrytest.Follow(t, other, "greeter")
	for _, id := range []string{"a", "b", "c"} {
		must(t, r.Register(t.Context(), node(id), 0))
	}
	registrytest.Expect(t, sets, "the nodes", registrytest.IDs("a", "b", "c"))
	way.Kill()
	registrytest.Eventually(t, "it is away", func() bool { return second(r.List(t.Context())) != nil })
	for _, id := range []string{"a", "b"} {
		if err := r.Deregister(t.Context(), node(id)); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("Deregister gave %v, want ErrUnavailable", err)
		}
	}
	if err := r.Register(t.Context(), node("b"), 0); !errors.Is(err, registry.ErrUnavailable) { // it was wanted after all
		t.Errorf("Register gave %v, want ErrUnavailable", err)
	}
	way.Revive()
	registrytest.Expect(t, sets, "what was not taken away", registrytest.IDs("b", "c"))
}

// What changed while a connection was lost is seen with the next one: what came at once, what went when its lease is over.
func TestWatchResumes(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	writer := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix, TTL: time.Second})
	way := testserver.NewRelay(t, addr)
	r := open(t, nats.Options{Servers: []string{way.Addr}, Prefix: prefix})
	sets, all := registrytest.Follow(t, r, "greeter"), registrytest.Follow(t, r, "")
	must(t, writer.Register(t.Context(), node("a"), 0))
	must(t, writer.Register(t.Context(), node("b"), 0))
	for _, w := range []<-chan registrytest.Set{sets, all} {
		registrytest.Expect(t, w, "two nodes", registrytest.IDs("a", "b"))
	}
	for range 2 {
		way.Hold()
		must(t, writer.Deregister(t.Context(), node("a")))
		must(t, writer.Register(t.Context(), node("c"), 0))
		way.Release()
		for _, w := range []<-chan registrytest.Set{sets, all} {
			registrytest.Expect(t, w, "what came", registrytest.IDs("a", "b", "c"))
			registrytest.Expect(t, w, "that one has gone", registrytest.IDs("b", "c"))
		}
		must(t, writer.Deregister(t.Context(), node("c")))
		must(t, writer.Register(t.Context(), node("a"), 0))
		for _, w := range []<-chan registrytest.Set{sets, all} {
			registrytest.Expect(t, w, "the next changes", registrytest.IDs("a", "b"))
		}
	}
}

// Of several that take an id at the same time one has it.
func TestClaimsAtOnce(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	const many = 6
	var rs []*nats.Registry
	for range many {
		r := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
		must(t, second(r.List(t.Context()))) // it is connected
		rs = append(rs, r)
	}
	for round := range 10 {
		n := node(fmt.Sprint("n", round))
		errs := make([]error, many)
		var wg sync.WaitGroup
		for i, r := range rs {
			wg.Go(func() {
				n := n
				n.Address = fmt.Sprint("127.0.0.1:", 5000+i)
				errs[i] = r.Register(t.Context(), n, 0)
			})
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatalf("round %d: both %d and %d have the id", round, winner, i)
			case !errors.Is(err, registry.ErrConflict):
				t.Fatalf("round %d: Register gave %v, want ErrConflict", round, err)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: nobody has the id", round)
		}
		for _, r := range rs {
			registrytest.Eventually(t, "all see the one who has it", func() bool {
				nodes, err := r.List(t.Context())
				return err == nil && len(nodes) == 1 && nodes[0].Address == fmt.Sprint("127.0.0.1:", 5000+winner)
			})
		}
		must(t, rs[winner].Deregister(t.Context(), n))
		for _, r := range rs {
			registrytest.Eventually(t, "it is gone", func() bool { return len(list(t, r)) == 0 })
		}
	}
}

func list(t *testing.T, r *nats.Registry) []registry.Node {
	t.Helper()
	nodes, err := r.List(t.Context())
	must(t, err)
	return nodes
}

// A holder of an id that NATS has a connection of, and that does not answer, is not waited for.
func TestSilentHolder(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	c := raw(t, addr)
	_, err := c.SubscribeSync(prefix + ".node.a")
	must(t, err)
	must(t, c.Flush())
	r := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	must(t, r.Register(t.Context(), node("a"), 0))
	registrytest.Expect(t, registrytest.Follow(t, r, ""), "the node", registrytest.IDs("a"))
}

// Of several servers one that is there is enough.
func TestSeveralServers(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	first, last := testserver.NewRelay(t, addr), testserver.NewRelay(t, addr)
	r := open(t, nats.Options{Servers: []string{first.Addr, testserver.FreeAddr(), last.Addr}, Prefix: prefix})
	sets := registrytest.Follow(t, r, "greeter")
	must(t, r.Register(t.Context(), node("a"), 0))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	first.Kill()
	changed := node("a")
	changed.Version = "2"
	registrytest.Eventually(t, "the other server takes the change", func() bool { return r.Register(t.Context(), changed, 0) == nil })
	registrytest.Expect(t, sets, "the change", func(s registrytest.Set) bool { return len(s.Nodes) == 1 && s.Nodes[0].Equal(changed) })
}

// More than can be read at once is asked for anew, and nothing is missing at the end.
func TestFlood(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	sets := registrytest.Follow(t, r, "greeter")
	registrytest.Expect(t, sets, "an empty set", registrytest.IDs())
	c := raw(t, addr)
	for i := range 60_000 { // of a registry that does not go on
		m := &natsgo.Msg{Subject: prefix + ".watch", Data: fmt.Appendf(nil, `{"Service":{"name":"greeter","nodes":[{"id":"flood-%d","address":"127.0.0.1:1"}]},"Action":"create"}`, i%100)}
		m.Header = natsgo.Header{"Micro-Owner": {"flood"}, "Micro-Seq": {fmt.Sprint(i)}, "Micro-Lease": {"1000"}}
		must(t, c.PublishMsg(m))
	}
	must(t, c.Flush())
	other := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	must(t, other.Register(t.Context(), node("a"), 0))
	registrytest.Expect(t, sets, "the node, and nothing that is not announced any more", registrytest.IDs("a"))
}

// Names that are odd, and what is none at all.
func TestOddNames(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	registrytest.Expect(t, registrytest.Follow(t, r, "../x"), "an empty set", registrytest.IDs())
	if err := r.Register(t.Context(), node("a"), -1); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("a negative ttl gave %v", err)
	}
	must(t, r.Deregister(t.Context(), registry.Node{ID: "../x", Service: "greeter"}))
	other := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	for _, id := range []string{"a/b", "a.b", "a-b", strings.Repeat("a.", 120) + "a"} {
		must(t, r.Register(t.Context(), node(id), 0))
		if err := other.Register(t.Context(), node(id), 0); !errors.Is(err, registry.ErrConflict) {
			t.Errorf("%s: the second owner's gave %v, want ErrConflict", id, err)
		}
	}
	if nodes := list(t, other); len(nodes) != 4 {
		t.Errorf("List gave %+v", nodes)
	}
}

// A service that nobody has is known not to be there at once, where no process could have it, and from memory the next time.
func TestNobody(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	must(t, r.Register(t.Context(), node("a"), 0)) // its own does not count: it is known
	begun := time.Now()
	if _, err := r.Get(t.Context(), "nobody"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("Get gave %v, want ErrNotFound", err)
	}
	if took := time.Since(begun); took > 200*time.Millisecond { // less than it waits for answers that do not come; below 1 ms on a quiet machine
		t.Errorf("it took %v to know", took)
	}
}

// What holds of each backend whose server is away.
func TestRemote(t *testing.T) {
	registrytest.RunRemote(t, registrytest.Remote{
		Name:      "nats",
		Shared:    func(t *testing.T) (addr, prefix string) { return shared.Addr(t), prefixOf(t) },
		Unstarted: func(t *testing.T) *testserver.Server { return unstarted(t) },
		Open: func(t *testing.T, w registrytest.Way) registry.Registry {
			return open(t, nats.Options{Servers: w.Addrs, Prefix: w.Prefix, Timeout: w.Timeout, TTL: w.TTL, Logger: w.Logger})
		},
		Several: true, FreeAtOnce: true,
	})
}
