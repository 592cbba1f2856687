package registrytest

import (
	"fmt"

	"github.com/cb02dfca/micro/pkg/registry"
)

func (s *suite) watchFirst() {
	r := s.one()
	s.watch(r, "").expect()
	s.watch(r, "greeter").expect()
	n := node("greeter", "greeter-1")
	s.register(r, n, 0)
	s.eventually(r, "greeter", n)
	s.watch(r, "").expect(n)
	s.watch(r, "greeter").expect(n)
	s.watch(r, "nobody").expect()
}

func (s *suite) watchService() {
	r := s.one()
	w := s.watch(r, "greeter")
	w.expect()
	a, b := node("greeter", "greeter-a"), node("greeter", "greeter-b")
	s.register(r, node("auth", "auth-1"), 0)
	s.register(r, b, 0)
	w.expect(b)
	s.register(r, a, 0)
	w.expect(a, b)
	s.deregister(r, b)
	w.expect(a)
	s.deregister(r, a)
	w.expect()
}

func (s *suite) watchAll() {
	r := s.one()
	w := s.watch(r, "")
	w.expect()
	a, b, other := node("greeter", "greeter-a"), node("greeter", "greeter-b"), node("auth", "auth-1")
	s.register(r, b, 0)
	w.expect(b)
	s.register(r, other, 0)
	w.expect(other, b)
	s.register(r, a, 0)
	w.expect(other, a, b)
	s.deregister(r, b)
	w.expect(other, a)
}

func (s *suite) watchChanges() {
	r := s.one()
	w, all := s.watch(r, "greeter"), s.watch(r, "")
	n := node("greeter", "greeter-1")
	s.register(r, n, 0)
	w.expect(n)
	changes := []func(){
		func() { n.Address = "127.0.0.1:4712" },
		func() { n.Version = "2.0.0" },
		func() { n.Metadata["zone"] = "b" },
		func() { n.Metadata["added"] = "yes" },
		func() { delete(n.Metadata, "added") },
		func() { n.Metadata = nil },
	}
	if s.h.Endpoints {
		changes = append(changes,
			func() { n.Endpoints = []registry.Endpoint{{Name: "Say.Hello"}} },
			func() { n.Endpoints[0].Metadata = map[string]string{"stream": "true"} },
			func() { n.Endpoints[0].Request = &registry.Value{Name: "Req", Type: "Req"} },
			func() { n.Endpoints = nil },
		)
	}
	for _, change := range changes {
		n = n.Clone()
		change()
		s.register(r, n, 0)
		w.expect(n)
		all.expect(n)
	}
}

func (s *suite) watchRenewal() {
	r := s.one()
	n, fence := node("greeter", "greeter-1"), node("greeter", "greeter-2")
	n.Endpoints = []registry.Endpoint{{Name: "Say.Hello"}}
	s.register(r, n, 0)
	s.eventually(r, "greeter", n)
	w, all := s.watch(r, "greeter"), s.watch(r, "")
	before, beforeAll := w.expect(n), all.expect(n)
	for range 10 {
		s.register(r, n.Clone(), 60*s.h.TTL)
	}
	s.register(r, node("auth", "auth-1"), 0)
	all.expect(node("auth", "auth-1"), n)
	s.register(r, fence, 0)
	if got := w.expect(n, fence); got != before+1 {
		s.Errorf("watch yielded %d sets for ten renewals, a node of another service and one new node, want 1", got-before)
	}
	if got := all.expect(node("auth", "auth-1"), n, fence); got != beforeAll+2 {
		s.Errorf("watch of all yielded %d sets for ten renewals and two new nodes, want 2", got-beforeAll)
	}
}

func (s *suite) watchSlow() {
	r := s.one()
	gate := make(chan struct{})
	w := s.gatedWatch(r, "greeter", gate)
	w.expect()
	n := node("greeter", "greeter-1")
	for i := range 100 { // none of them waits for the reader
		n = n.Clone()
		n.Metadata["count"] = fmt.Sprint(i)
		s.register(r, n, 0)
	}
	s.eventually(r, "greeter", n)
	close(gate)
	w.expect(n)
}

func (s *suite) watchContext() {
	r := s.one()
	w := s.watch(r, "")
	w.expect()
	w.stop()
	w.ends()
	s.register(r, node("greeter", "greeter-1"), 0)
	if n, _ := w.seen(); n != 1 {
		s.Errorf("%d sets, the last after the context was cancelled", n)
	}
}

func (s *suite) watchBreak() {
	r := s.one()
	s.register(r, node("greeter", "greeter-1"), 0)
	for range r.Watch(s.Context(), "") {
		break
	}
	s.register(r, node("greeter", "greeter-2"), 0)
	s.eventually(r, "greeter", node("greeter", "greeter-1"), node("greeter", "greeter-2"))
}

func (s *suite) watchTwice() {
	r := s.one()
	seq := r.Watch(s.Context(), "")
	for range 2 { // one after the other, the same sequence
		for nodes, err := range seq {
			if err != nil || len(nodes) != 0 {
				s.Errorf("first set: %d nodes, %v", len(nodes), err)
			}
			break
		}
	}
}
