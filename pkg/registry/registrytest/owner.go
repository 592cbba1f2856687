package registrytest

import (
	"errors"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

func (s *suite) ttlLapses() {
	if s.h.NoTTL {
		s.Skip("the backend keeps no ttl")
	}
	r := s.one()
	n, stays := node("greeter", "greeter-1"), node("greeter", "greeter-2")
	s.register(r, stays, 0)
	w := s.watch(r, "greeter")
	w.expect(stays)
	s.lapse(r, n, stays)
	w.expect(stays) // whether or not it was fast enough to see n
	s.eventuallyAll(r, stays)
}

// lapse registers n for the harness's TTL and waits until rest alone is left of its service: not before the TTL is over.
func (s *suite) lapse(r registry.Registry, n registry.Node, rest ...registry.Node) {
	s.Helper()
	start := time.Now()
	s.register(r, n, s.h.TTL)
	s.eventually(r, n.Service, rest...)
	if lived := time.Since(start); lived < s.h.TTL {
		s.Errorf("the node was gone %v after its registration, its ttl was %v", lived, s.h.TTL)
	}
}

func (s *suite) ttlRenewal() {
	if s.h.NoTTL {
		s.Skip("the backend keeps no ttl")
	}
	r := s.one()
	n := node("greeter", "greeter-1")
	renewed := time.Now()
	s.register(r, n, s.h.TTL)
	s.eventually(r, "greeter", n)
	tick := time.NewTicker(s.h.TTL / 4)
	defer tick.Stop()
	for end := time.Now().Add(3 * s.h.TTL); time.Now().Before(end); <-tick.C {
		present := len(s.get(r, "greeter")) == 1
		if age := time.Since(renewed); !present && age < s.h.TTL { // a starved test may come too late itself
			s.Fatalf("the node is gone %v after its renewal, its ttl is %v", age, s.h.TTL)
		}
		renewed = time.Now()
		s.register(r, n, s.h.TTL)
	}
	s.eventually(r, "greeter")
}

func (s *suite) ttlZero() {
	if s.h.NoTTL {
		s.Skip("the backend keeps no ttl")
	}
	r := s.one()
	n, clock := node("greeter", "greeter-1"), node("clock", "clock-1")
	s.register(r, n, s.h.TTL)
	s.register(r, n, 0) // lifts the ttl
	s.lapse(r, clock)
	s.eventuallyAll(r, n)
}

func (s *suite) ttlReturn() {
	if s.h.NoTTL {
		s.Skip("the backend keeps no ttl")
	}
	r := s.one()
	n := node("greeter", "greeter-1")
	w := s.watch(r, "greeter")
	for range 2 {
		s.lapse(r, n)
		w.expect()
	}
	s.register(r, n, 0)
	w.expect(n)
	s.eventually(r, "greeter", n)
}

func (s *suite) shared() {
	if !s.h.Shared {
		s.Skip("registries of one system do not see each other")
	}
	a := s.one()
	b := s.another()
	n, m := node("greeter", "greeter-1"), node("greeter", "greeter/path.of.a/topic-2") // go-micro's broker has such ids
	n.Endpoints = []registry.Endpoint{{Name: "Say.Hello", Request: &registry.Value{Name: "R", Type: "R"}}}
	s.register(a, n, 0)
	s.register(b, m, 0)
	for _, r := range []registry.Registry{a, b, s.another()} {
		s.eventually(r, "greeter", n, m)
		s.eventuallyAll(r, n, m)
	}
	n = n.Clone()
	n.Metadata["zone"] = "b"
	s.register(a, n, 0)
	s.eventually(b, "greeter", n, m)
	s.deregister(a, n)
	s.eventually(b, "greeter", m)
}

func (s *suite) sharedWatch() {
	if !s.h.Shared {
		s.Skip("registries of one system do not see each other")
	}
	a := s.one()
	b := s.another()
	w, all := s.watch(b, "greeter"), s.watch(b, "")
	w.expect()
	all.expect()
	n, m := node("greeter", "greeter-1"), node("auth", "auth-1")
	s.register(a, n, 0)
	w.expect(n)
	all.expect(n)
	s.register(a, m, 0)
	all.expect(m, n)
	n = n.Clone()
	n.Version = "2.0.0"
	s.register(a, n, 0)
	w.expect(n)
	s.deregister(a, n)
	w.expect()
	all.expect(m)
}

func (s *suite) closeWithdraws() {
	if !s.h.Shared {
		s.Skip("registries of one system do not see each other")
	}
	a := s.one()
	b := s.another()
	mine := node("greeter", "greeter-b")
	s.register(b, mine, 0)
	first, second := node("greeter", "greeter-a"), node("auth", "auth-1")
	s.register(a, first, 0)
	s.register(a, second, time.Minute)
	w := s.watch(b, "")
	w.expect(second, first, mine)
	if err := a.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	w.expect(mine)
	s.eventuallyAll(b, mine)
	s.eventually(b, "greeter", mine)
}

func (s *suite) twoOwners() {
	if !s.h.Shared || s.h.Conflicts {
		s.Skip("see: a taken id is refused")
	}
	a := s.one()
	b := s.another()
	n, m := node("greeter", "copy-1"), node("greeter", "copy-1")
	m.Address = "127.0.0.1:4712"
	s.register(a, n, 0)
	s.register(b, m, 0)
	c := s.another()
	var nodes []registry.Node
	if !s.until(func() bool { nodes = s.get(c, "greeter"); return len(nodes) == 1 }) {
		s.Fatalf("Get gave\n%s\nwant one node", show(nodes))
	}
	if !s.same(nodes, []registry.Node{n}) && !s.same(nodes, []registry.Node{m}) {
		s.Fatalf("Get gave\n%s\nwant one of\n%s", show(nodes), show([]registry.Node{n, m}))
	}
}

func (s *suite) conflict() {
	if !s.h.Shared || !s.h.Conflicts {
		s.Skip("the backend does not know who owns a node")
	}
	a := s.one()
	b := s.another()
	n, m := node("greeter", "copy-1"), node("greeter", "copy-1")
	m.Address = "127.0.0.1:4712"
	s.register(a, n, 0)
	s.eventually(b, "greeter", n)
	if err := b.Register(s.Context(), m, 0); !errors.Is(err, registry.ErrConflict) {
		s.Fatalf("Register of a taken id gave %v, want ErrConflict", err)
	}
	if err := b.Deregister(s.Context(), n); !errors.Is(err, registry.ErrConflict) {
		s.Fatalf("Deregister of another's node gave %v, want ErrConflict", err)
	}
	s.eventually(b, "greeter", n)
	s.register(a, n, time.Minute) // its owner may go on
	s.deregister(a, n)
	s.eventually(b, "greeter")
	s.register(b, m, 0)
	s.eventually(a, "greeter", m)
	if err := b.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	s.eventually(a, "greeter")
	s.register(a, n, 0)
	s.eventually(a, "greeter", n)
}

func (s *suite) killed() {
	if !s.h.Shared || s.h.Kill == nil || s.h.NoTTL && !s.h.SeesDeath {
		s.Skip("nothing can be killed in a test of this backend")
	}
	ttl := time.Hour
	if !s.h.SeesDeath {
		ttl = s.h.TTL
	}
	b := s.one()
	a := s.another()
	mine, n := node("greeter", "greeter-b"), node("greeter", "greeter-a")
	s.register(b, mine, 0)
	w := s.watch(b, "greeter")
	s.register(a, n, ttl)
	if s.h.SeesDeath { // else a starved watcher may come when the ttl is over
		w.expect(n, mine)
	}
	s.h.Kill(s.T, a)
	w.expect(mine)
	s.eventually(b, "greeter", mine)
	s.eventuallyAll(b, mine)

	// It comes back under the same id, twice: the second time with nobody having looked in between.
	for _, address := range []string{"127.0.0.1:4713", "127.0.0.1:4714"} {
		a = s.another()
		n = n.Clone()
		n.Address = address
		if !s.until(func() bool { return a.Register(s.Context(), n, ttl) == nil }) {
			s.Fatalf("a node whose owner was killed cannot be registered again: %v", a.Register(s.Context(), n, ttl))
		}
		s.register(a, n, 0)
		w.expect(n, mine)
		s.eventually(b, "greeter", n, mine)
		if s.h.SeesDeath {
			s.h.Kill(s.T, a)
			continue
		}
		s.deregister(a, n)
	}
	w.expect(mine)
}
