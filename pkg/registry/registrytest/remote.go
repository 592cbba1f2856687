package registrytest

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
)

// Remote is a backend whose nodes stand at a server, which may be away.
type Remote struct {
	// Name is the server's, as the logger is told it: "etcd is away".
	Name string
	// Shared gives the address of a server that other tests use too, and a prefix that no other test has, where the backend has such.
	Shared func(t *testing.T) (addr, prefix string)
	// Unstarted gives a server that the test starts.
	Unstarted func(t *testing.T) *testserver.Server
	// Open opens a registry.
	Open func(t *testing.T, w Way) registry.Registry
	// Several: a registry takes several servers, and one that is there is enough.
	Several bool
	// FreeAtOnce: the id of an owner whose connection broke is free at once, not with its lease.
	FreeAtOnce bool
}

// Way is what a registry is opened with. What is not set is the backend's default.
type Way struct {
	Addrs        []string
	Prefix       string
	Timeout, TTL time.Duration
	Logger       *slog.Logger
}

// RunRemote runs, as subtests of t, what happens while the server is away. It calls t.Parallel.
func RunRemote(t *testing.T, r Remote) {
	t.Helper()
	t.Parallel()
	for name, run := range map[string]func(Remote, *testing.T){
		"away at the start": Remote.awayAtStart, "close while away": Remote.closeWhileAway, "silent": Remote.silent,
		"one of several": Remote.oneOfSeveral, "lost to another": Remote.lostToAnother,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); run(r, t) })
	}
}

// open gives a registry, which is closed at the end of the test.
func (r Remote) open(t *testing.T, w Way) registry.Registry {
	t.Helper()
	reg := r.Open(t, w)
	t.Cleanup(func() { _ = reg.Close() })
	return reg
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }

// A server that is not there yet is told of with its address and the reason, and is found when it comes.
func (r Remote) awayAtStart(t *testing.T) {
	s, said := r.Unstarted(t), &Journal{}
	reg := r.open(t, Way{Addrs: []string{s.Addr}, Logger: said.Logger()})
	sets, all := Follow(t, reg, "greeter"), Follow(t, reg, "")
	failed := func(s Set) bool { return s.Err != nil }
	want := "registry: unavailable: " + s.Addr + " is not answering: connection refused"
	for what, err := range map[string]error{
		"Register": reg.Register(t.Context(), node("greeter", "a"), time.Minute), "Deregister": reg.Deregister(t.Context(), node("greeter", "a")),
		"Get": second(reg.Get(t.Context(), "greeter")), "List": second(reg.List(t.Context())),
		"Watch": Expect(t, sets, "an error", failed).Err, "Watch of all": Expect(t, all, "an error", failed).Err,
	} {
		if !errors.Is(err, registry.ErrUnavailable) || !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != want {
			t.Errorf("%s gave %v, want %s", what, err, want)
		}
	}
	s.MustStart(t)
	Expect(t, sets, "an empty set", IDs())
	Eventually(t, "a node can be registered", func() bool { return reg.Register(t.Context(), node("greeter", "a"), time.Minute) == nil })
	Expect(t, sets, "the node", IDs("a"))
	Expect(t, all, "the node", IDs("a"))
	if log := said.String(); strings.Count(log, r.Name+" is away") != 1 || strings.Count(log, r.Name+" is back") != 1 {
		t.Errorf("the logger was told\n%s", log)
	}
}

// Close while the server is away says so, and does not wait for it.
func (r Remote) closeWhileAway(t *testing.T) {
	addr, prefix := r.Shared(t)
	way := testserver.NewRelay(t, addr)
	reg := r.open(t, Way{Addrs: []string{way.Addr}, Prefix: prefix})
	must(t, reg.Register(t.Context(), node("greeter", "a"), time.Hour))
	Expect(t, Follow(t, reg, "greeter"), "the node", IDs("a"))
	way.Kill()
	begun := time.Now()
	if err := reg.Close(); !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "lapse: 1") {
		t.Errorf("Close gave %v", err)
	}
	if took := time.Since(begun); took > patience/2 {
		t.Errorf("Close took %v", took)
	}
}

// A server that accepts connections and says nothing does not hold up a caller for ever.
func (r Remote) silent(t *testing.T) {
	addr, prefix := r.Shared(t)
	way := testserver.NewRelay(t, addr)
	way.Hold()
	reg := r.open(t, Way{Addrs: []string{way.Addr}, Prefix: prefix, Timeout: 300 * time.Millisecond})
	if _, err := reg.Get(t.Context(), "greeter"); !errors.Is(err, registry.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get gave %v, want ErrUnavailable and DeadlineExceeded", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := reg.Register(ctx, node("greeter", "a"), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Register gave %v, want Canceled", err)
	}
	way.Release()
	Eventually(t, "it answers", func() bool { return reg.Register(t.Context(), node("greeter", "a"), 0) == nil })
}

// Of several servers one that is there is enough.
func (r Remote) oneOfSeveral(t *testing.T) {
	if !r.Several {
		t.Skip("the backend takes one server")
	}
	addr, prefix := r.Shared(t)
	first, last := testserver.NewRelay(t, addr), testserver.NewRelay(t, addr)
	reg := r.open(t, Way{Addrs: []string{first.Addr, testserver.FreeAddr(), last.Addr}, Prefix: prefix})
	sets := Follow(t, reg, "greeter")
	must(t, reg.Register(t.Context(), node("greeter", "a"), 0))
	Expect(t, sets, "the node", IDs("a"))
	first.Kill()
	changed := node("greeter", "a")
	changed.Version = "2"
	Eventually(t, "the other takes the change", func() bool { return reg.Register(t.Context(), changed, 0) == nil })
	Expect(t, sets, "the change", func(s Set) bool { return len(s.Nodes) == 1 && s.Nodes[0].Equal(changed) })
}

// A node whose owner was cut off may be another's when it comes back. It leaves it to that one.
func (r Remote) lostToAnother(t *testing.T) {
	addr, prefix := r.Shared(t)
	way, said := testserver.NewRelay(t, addr), &Journal{}
	reg := r.open(t, Way{Addrs: []string{way.Addr}, Prefix: prefix, TTL: 2 * time.Second, Logger: said.Logger()})
	heir := r.open(t, Way{Addrs: []string{addr}, Prefix: prefix})
	sets := Follow(t, r.open(t, Way{Addrs: []string{addr}, Prefix: prefix}), "greeter")
	must(t, reg.Register(t.Context(), node("greeter", "a"), time.Minute))
	Expect(t, sets, "the node", IDs("a"))
	way.Kill()
	theirs := node("greeter", "a")
	theirs.Address = "127.0.0.1:4712"
	if err := heir.Register(t.Context(), theirs, time.Minute); !r.FreeAtOnce && !errors.Is(err, registry.ErrConflict) {
		t.Errorf("Register of an id whose lease runs gave %v, want ErrConflict", err)
	}
	Eventually(t, "the id is free", func() bool { return heir.Register(t.Context(), theirs, time.Minute) == nil })
	way.Revive()
	Eventually(t, "the first owner learns of the second", func() bool { return strings.Contains(said.String(), "another owner") })
	if err := reg.Register(t.Context(), node("greeter", "a"), time.Minute); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("the first owner's renewal gave %v, want ErrConflict", err)
	}
	must(t, reg.Close())
	Expect(t, sets, "the second", func(s Set) bool { return len(s.Nodes) == 1 && s.Nodes[0].Equal(theirs) })
	if nodes, err := heir.Get(t.Context(), "greeter"); err != nil || len(nodes) != 1 || !nodes[0].Equal(theirs) {
		t.Errorf("Get gave %+v, %v", nodes, err)
	}
}
