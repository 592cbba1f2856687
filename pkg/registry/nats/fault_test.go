package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/nats"
)

// journal is a logger that keeps what it is told.
type journal struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func second[T any](_ T, err error) error { return err }

// A process that is killed takes its nodes with it: not when the hour is over that they were registered for, but with its lease. Its id
// is free at once.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	sets := watching(t, r, "greeter")
	kill := spawn(t, addr, prefix, "mortal")
	expect(t, sets, "the node of the process", ids("mortal"))
	if err := r.Register(t.Context(), node("mortal"), 0); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("its id gave %v, want ErrConflict", err)
	}
	kill()
	killed := time.Now()
	expect(t, sets, "no node", ids())
	if took := time.Since(killed); took > 5*time.Second {
		t.Errorf("the node went after %v, its lease is 1s", took)
	}

	kill = spawn(t, addr, prefix, "mortal")
	expect(t, sets, "the node of the process", ids("mortal"))
	kill()
	heir := node("mortal")
	heir.Address = "127.0.0.1:4712"
	eventually(t, "the id is free", func() bool { return r.Register(t.Context(), heir, 0) == nil })
	expect(t, sets, "the heir", func(s set) bool { return len(s.nodes) == 1 && s.nodes[0].Equal(heir) })
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
			sets := watching(t, other, "")
			must(t, r.Register(t.Context(), node("a"), 0))
			must(t, r.Register(t.Context(), node("b"), time.Minute))
			expect(t, sets, "two nodes", ids("a", "b"))

			s.Stop(how)
			if got := expect(t, sets, "that NATS is away", func(s set) bool { return s.err != nil }); !errors.Is(got.err, registry.ErrUnavailable) {
				t.Errorf("the watch yielded %v, want ErrUnavailable", got.err)
			}
			eventually(t, "the reason is known", func() bool { return errors.Is(second(r.List(t.Context())), syscall.ECONNREFUSED) })
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
			if got := expect(t, sets, "a set", func(s set) bool { return s.err == nil }); !ids("a", "b")(got) {
				t.Errorf("the first set after the restart has %+v", got.nodes)
			}
			eventually(t, "a node can be taken away", func() bool { return r.Deregister(t.Context(), node("a")) == nil })
			expect(t, sets, "one node less", ids("b"))
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
	sets := watching(t, other, "greeter")
	for _, id := range []string{"a", "b", "c"} {
		must(t, r.Register(t.Context(), node(id), 0))
	}
	expect(t, sets, "the nodes", ids("a", "b", "c"))
	way.Kill()
	eventually(t, "it is away", func() bool { return second(r.List(t.Context())) != nil })
	for _, id := range []string{"a", "b"} {
		if err := r.Deregister(t.Context(), node(id)); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("Deregister gave %v, want ErrUnavailable", err)
		}
	}
	if err := r.Register(t.Context(), node("b"), 0); !errors.Is(err, registry.ErrUnavailable) { // it was wanted after all
		t.Errorf("Register gave %v, want ErrUnavailable", err)
	}
	way.Revive()
	expect(t, sets, "what was not taken away", ids("b", "c"))
}

// A NATS that is not there yet is told of with its address and the reason, and is found when it comes.
func TestAwayAtStart(t *testing.T) {
	t.Parallel()
	s := unstarted(t)
	said := &journal{}
	r := open(t, nats.Options{Servers: []string{s.Addr}, Logger: said.logger()})
	sets := watching(t, r, "greeter")
	want := "registry: unavailable: " + s.Addr + " is not answering: connection refused"
	for what, err := range map[string]error{
		"Register": r.Register(t.Context(), node("a"), time.Minute), "Get": second(r.Get(t.Context(), "greeter")),
		"Deregister": r.Deregister(t.Context(), node("a")),
		"Watch":      expect(t, sets, "an error", func(s set) bool { return s.err != nil }).err,
	} {
		if !errors.Is(err, registry.ErrUnavailable) || !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != want {
			t.Errorf("%s gave %v, want %s", what, err, want)
		}
	}
	s.MustStart(t)
	expect(t, sets, "an empty set", ids())
	eventually(t, "a node can be registered", func() bool { return r.Register(t.Context(), node("a"), time.Minute) == nil })
	expect(t, sets, "the node", ids("a"))
	if log := said.String(); strings.Count(log, "nats is away") != 1 || strings.Count(log, "nats is back") != 1 {
		t.Errorf("the logger was told\n%s", log)
	}
}

// Close while NATS is away says so, and does not wait for it.
func TestCloseWhileAway(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	way := testserver.NewRelay(t, addr)
	r := open(t, nats.Options{Servers: []string{way.Addr}, Prefix: prefix})
	must(t, r.Register(t.Context(), node("a"), time.Hour))
	sets := watching(t, r, "greeter")
	expect(t, sets, "the node", ids("a"))
	way.Kill()
	begun := time.Now()
	if err := r.Close(); !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "lapse: 1") {
		t.Errorf("Close gave %v", err)
	}
	if took := time.Since(begun); took > wait {
		t.Errorf("Close took %v", took)
	}
}

// What changed while a connection was lost is seen with the next one: what came at once, what went when its lease is over.
func TestWatchResumes(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	writer := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix, TTL: time.Second})
	way := testserver.NewRelay(t, addr)
	r := open(t, nats.Options{Servers: []string{way.Addr}, Prefix: prefix})
	sets, all := watching(t, r, "greeter"), watching(t, r, "")
	must(t, writer.Register(t.Context(), node("a"), 0))
	must(t, writer.Register(t.Context(), node("b"), 0))
	for _, w := range []<-chan set{sets, all} {
		expect(t, w, "two nodes", ids("a", "b"))
	}
	for range 2 {
		way.Hold()
		must(t, writer.Deregister(t.Context(), node("a")))
		must(t, writer.Register(t.Context(), node("c"), 0))
		way.Release()
		for _, w := range []<-chan set{sets, all} {
			expect(t, w, "what came", ids("a", "b", "c"))
			expect(t, w, "that one has gone", ids("b", "c"))
		}
		must(t, writer.Deregister(t.Context(), node("c")))
		must(t, writer.Register(t.Context(), node("a"), 0))
		for _, w := range []<-chan set{sets, all} {
			expect(t, w, "the next changes", ids("a", "b"))
		}
	}
}

// The id of a node whose owner was cut off may be another's when it comes back. It leaves it to that one.
func TestLostToAnother(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	way, said := testserver.NewRelay(t, addr), &journal{}
	r := open(t, nats.Options{Servers: []string{way.Addr}, Prefix: prefix, Logger: said.logger()})
	must(t, r.Register(t.Context(), node("a"), time.Minute))
	way.Kill()
	heir := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	sets := watching(t, open(t, nats.Options{Servers: []string{addr}, Prefix: prefix}), "greeter")
	theirs := node("a")
	theirs.Address = "127.0.0.1:4712"
	eventually(t, "the id is free", func() bool { return heir.Register(t.Context(), theirs, time.Minute) == nil })
	way.Revive()
	eventually(t, "the first owner learns of the second", func() bool { return strings.Contains(said.String(), "another owner") })
	if err := r.Register(t.Context(), node("a"), time.Minute); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("the first owner's renewal gave %v, want ErrConflict", err)
	}
	must(t, r.Close())
	if nodes, err := heir.Get(t.Context(), "greeter"); err != nil || len(nodes) != 1 || !nodes[0].Equal(theirs) {
		t.Errorf("Get gave %+v, %v", nodes, err)
	}
	expect(t, sets, "the second", func(s set) bool { return len(s.nodes) == 1 && s.nodes[0].Equal(theirs) })
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
			eventually(t, "all see the one who has it", func() bool {
				nodes, err := r.List(t.Context())
				return err == nil && len(nodes) == 1 && nodes[0].Address == fmt.Sprint("127.0.0.1:", 5000+winner)
			})
		}
		must(t, rs[winner].Deregister(t.Context(), n))
		for _, r := range rs {
			eventually(t, "it is gone", func() bool { return len(list(t, r)) == 0 })
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
	expect(t, watching(t, r, ""), "the node", ids("a"))
}

// A server that accepts connections and says nothing does not hold up a caller for ever.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	way := testserver.NewRelay(t, shared.Addr(t))
	way.Hold()
	r := open(t, nats.Options{Servers: []string{way.Addr}, Prefix: prefixOf(t), Timeout: 300 * time.Millisecond})
	if _, err := r.Get(t.Context(), "greeter"); !errors.Is(err, registry.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get gave %v, want ErrUnavailable and DeadlineExceeded", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Register(ctx, node("a"), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Register gave %v, want Canceled", err)
	}
	way.Release()
	eventually(t, "it answers", func() bool { return r.Register(t.Context(), node("a"), 0) == nil })
}

// Of several servers one that is there is enough.
func TestSeveralServers(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	first, last := testserver.NewRelay(t, addr), testserver.NewRelay(t, addr)
	r := open(t, nats.Options{Servers: []string{first.Addr, testserver.FreeAddr(), last.Addr}, Prefix: prefix})
	sets := watching(t, r, "greeter")
	must(t, r.Register(t.Context(), node("a"), 0))
	expect(t, sets, "the node", ids("a"))
	first.Kill()
	changed := node("a")
	changed.Version = "2"
	eventually(t, "the other server takes the change", func() bool { return r.Register(t.Context(), changed, 0) == nil })
	expect(t, sets, "the change", func(s set) bool { return len(s.nodes) == 1 && s.nodes[0].Equal(changed) })
}

// More than can be read at once is asked for anew, and nothing is missing at the end.
func TestFlood(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	sets := watching(t, r, "greeter")
	expect(t, sets, "an empty set", ids())
	c := raw(t, addr)
	for i := range 60_000 { // of a registry that does not go on
		m := &natsgo.Msg{Subject: prefix + ".watch", Data: fmt.Appendf(nil, `{"Service":{"name":"greeter","nodes":[{"id":"flood-%d","address":"127.0.0.1:1"}]},"Action":"create"}`, i%100)}
		m.Header = natsgo.Header{"Micro-Owner": {"flood"}, "Micro-Seq": {fmt.Sprint(i)}, "Micro-Lease": {"1000"}}
		must(t, c.PublishMsg(m))
	}
	must(t, c.Flush())
	other := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	must(t, other.Register(t.Context(), node("a"), 0))
	expect(t, sets, "the node, and nothing that is not announced any more", ids("a"))
}

// Names that are odd, and what is none at all.
func TestOddNames(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, nats.Options{Servers: []string{addr}, Prefix: prefix})
	expect(t, watching(t, r, "../x"), "an empty set", ids())
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
