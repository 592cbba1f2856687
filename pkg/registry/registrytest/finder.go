package registrytest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

func (s *suite) lifecycle() {
	r := s.one()
	if nodes := s.list(r); nodes == nil || len(nodes) != 0 {
		s.Fatalf("List of an empty registry gave %#v, want an empty list", nodes)
	}
	b, a, other := node("greeter", "greeter-b"), node("greeter", "greeter-a"), node("auth", "auth-1")
	for _, n := range []registry.Node{b, other, a} {
		s.register(r, n, 0)
	}
	s.eventually(r, "greeter", a, b)
	s.eventually(r, "auth", other)
	s.eventuallyAll(r, other, a, b)

	s.deregister(r, registry.Node{ID: a.ID, Service: a.Service}) // service and id are enough
	s.eventually(r, "greeter", b)
	s.deregister(r, a) // it is not there: no error
	s.deregister(r, node("nobody", "nobody-1"))
	s.deregister(r, b)
	s.eventually(r, "greeter")
	s.eventuallyAll(r, other)

	s.register(r, a, 0) // and back
	s.eventuallyAll(r, other, a)
}

func (s *suite) fields() {
	r := s.one()
	plain := registry.Node{ID: "bare-1", Service: "bare", Address: "127.0.0.1:8080"}
	full := node("full.svc_x-y", "full.svc_x-y-0123456789abcdef")
	full.Version = "v2.0.0-rc.1+build 7"
	full.Metadata = map[string]string{"Key": "Upper", "key": "lower", "empty": "", "sp ace": " a = b ", "json": `{"a":"\\\""}`}
	s.register(r, plain, 0)
	s.register(r, full, 0)
	s.eventuallyAll(r, plain, full)
	s.eventually(r, full.Service, full)
}

func (s *suite) endpoints() {
	if !s.h.Endpoints {
		s.Skip("the backend carries no endpoints")
	}
	r := s.one()
	n := node("greeter", "greeter-1")
	n.Endpoints = []registry.Endpoint{
		{Name: "Say.Hello", Request: &registry.Value{Name: "HelloRequest", Type: "HelloRequest",
			Values: []*registry.Value{{Name: "name", Type: "string"}, {Name: "tags", Type: "[]string"}}}},
		{Name: "Say.Count", Metadata: map[string]string{"stream": "true"}},
		{Name: "Say.Echo"},
	}
	s.register(r, n, 0)
	s.eventually(r, "greeter", n)

	n = n.Clone()
	n.Endpoints = n.Endpoints[:2]
	s.register(r, n, 0)
	s.eventually(r, "greeter", n)
}

func (s *suite) versions() {
	r := s.one()
	v1, v2, hidden := node("greeter", "greeter-1"), node("greeter", "greeter-2"), node("greeter", "greeter-3")
	v2.Version = "2.0.0"
	hidden.Version = ""
	hidden.Metadata = map[string]string{registry.MetaHidden: "true", registry.MetaTopic: "user.created"}
	for _, n := range []registry.Node{v1, v2, hidden} {
		s.register(r, n, 0)
	}
	s.eventually(r, "greeter", v1, v2, hidden) // to hide is for listings, not for registries
	s.eventuallyAll(r, v1, v2, hidden)
}

func (s *suite) unicode() {
	r := s.one()
	n := node("greeter", "greeter-1")
	n.Version = "версия-1"
	n.Metadata = map[string]string{"größe": "日本語", "emoji": "👋🏽", "accents": "e\u0301 é"}
	s.register(r, n, 0)
	s.eventually(r, "greeter", n)
}

func (s *suite) oneID() {
	r := s.one()
	first, second := node("greeter", "copy-1"), node("greeter", "copy-1")
	second.Address = "127.0.0.1:4712"
	s.register(r, first, 0)
	s.register(r, second, 0)
	s.eventually(r, "greeter", second)

	// Under another service the id moves, or is refused; two nodes with one id it never makes.
	moved := node("auth", "copy-1")
	want := moved
	if err := r.Register(s.Context(), moved, 0); errors.Is(err, registry.ErrConflict) || errors.Is(err, registry.ErrInvalid) {
		want = second
	} else if err != nil {
		s.Fatalf("Register of a moved node: %v", err)
	}
	s.eventuallyAll(r, want)
}

func (s *suite) exactNames() {
	r := s.one()
	names := []string{"a", "a-b", "a.b", "a_b", "ab", "greeter", "greeter2", strings.Repeat("n", 60)}
	want := map[string]registry.Node{}
	for i, name := range names {
		want[name] = node(name, fmt.Sprintf("id-%d", i))
		s.register(r, want[name], 0)
	}
	for _, name := range names {
		s.eventually(r, name, want[name])
	}
	if got := s.get(r, "greete"); len(got) != 0 {
		s.Fatalf("Get of a prefix gave\n%s", show(got))
	}
}

func (s *suite) invalid() {
	r := s.one()
	for name, breakIt := range map[string]func(*registry.Node){
		"no service":         func(n *registry.Node) { n.Service = "" },
		"no id":              func(n *registry.Node) { n.ID = "" },
		"no address":         func(n *registry.Node) { n.Address = "" },
		"service with slash": func(n *registry.Node) { n.Service = "a/b" },
		"service of dots":    func(n *registry.Node) { n.Service = ".." },
		"id that climbs":     func(n *registry.Node) { n.ID = "../../etc/passwd" },
		"id with newline":    func(n *registry.Node) { n.ID = "a\nb" },
		"long service":       func(n *registry.Node) { n.Service = strings.Repeat("a", registry.MaxName+1) },
		"version with esc":   func(n *registry.Node) { n.Version = "1\x1b[31m" },
		"address with space": func(n *registry.Node) { n.Address = "127.0.0.1 :80" },
		"metadata with nul":  func(n *registry.Node) { n.Metadata = map[string]string{"k": "a\x00b"} },
		"broken utf-8":       func(n *registry.Node) { n.Metadata = map[string]string{"k": "a\x80b"} },
		"empty metadata key": func(n *registry.Node) { n.Metadata = map[string]string{"": "v"} },
		"long value": func(n *registry.Node) {
			n.Metadata = map[string]string{"k": strings.Repeat("v", registry.MaxMetaValue+1)}
		},
		"record too large": func(n *registry.Node) { n.Metadata = large() },
	} {
		n := node("greeter", "greeter-1")
		breakIt(&n)
		if err := r.Register(s.Context(), n, 0); !errors.Is(err, registry.ErrInvalid) {
			s.Errorf("%s: Register gave %v, want ErrInvalid", name, err)
		}
	}
	s.eventuallyAll(r)
	s.register(r, node("greeter", "greeter-1"), 0) // nothing is broken by what was refused
	s.eventuallyAll(r, node("greeter", "greeter-1"))
}

// large gives metadata of which each pair is within the limits, and all together pass MaxRecord.
func large() map[string]string {
	m := map[string]string{}
	for i := range registry.MaxRecord/registry.MaxMetaValue + 1 {
		m[fmt.Sprint("k", i)] = strings.Repeat("v", registry.MaxMetaValue)
	}
	return m
}

func (s *suite) notFound() {
	r := s.one()
	for _, service := range []string{"nobody", "no body", "../x", ""} {
		if nodes, err := r.Get(s.Context(), service); !errors.Is(err, registry.ErrNotFound) || len(nodes) != 0 {
			s.Errorf("Get %q gave %d nodes and %v, want ErrNotFound", service, len(nodes), err)
		}
	}
}

func (s *suite) copied() {
	r := s.one()
	n := node("greeter", "greeter-1")
	n.Endpoints = []registry.Endpoint{{Name: "Say.Hello", Metadata: map[string]string{"k": "v"}}}
	want := n.Clone()
	w := s.watch(r, "greeter")
	s.register(r, n, 0)
	n.Metadata["zone"] = "changed"
	n.Endpoints[0].Name = "Changed"
	n.Endpoints[0].Metadata["k"] = "changed"
	w.expect(want)
	s.eventually(r, "greeter", want)
}

func (s *suite) givenSets() {
	r := s.one()
	a, b := node("greeter", "greeter-a"), node("greeter", "greeter-b")
	s.register(r, a, 0)
	s.register(r, b, 0)
	s.eventually(r, "greeter", a, b)
	for _, nodes := range [][]registry.Node{s.get(r, "greeter"), s.list(r)} {
		nodes[0].Address = "changed:1"
		nodes[0], nodes[1] = nodes[1], nodes[0]
		_ = append(nodes[:1], registry.Node{})
	}
	s.eventually(r, "greeter", a, b)
	s.eventuallyAll(r, a, b)
}

func (s *suite) contextDone() {
	r := s.one()
	n := node("greeter", "greeter-1")
	s.register(r, n, 0)
	s.eventually(r, "greeter", n)
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	other := node("auth", "auth-1")
	_, getErr := r.Get(ctx, "greeter")
	_, listErr := r.List(ctx)
	for what, err := range map[string]error{
		"Register": r.Register(ctx, other, 0), "Deregister": r.Deregister(ctx, n), "Get": getErr, "List": listErr,
	} {
		if !errors.Is(err, context.Canceled) {
			s.Errorf("%s with a cancelled context gave %v, want context.Canceled", what, err)
		}
	}
	yielded, ended := 0, make(chan struct{})
	go func() {
		defer close(ended)
		for range r.Watch(ctx, "") {
			yielded++
		}
	}()
	select {
	case <-ended:
		if yielded > 0 {
			s.Errorf("Watch with a cancelled context yielded %d times", yielded)
		}
	case <-time.After(s.h.Wait):
		s.Fatal("Watch with a cancelled context did not end")
	}
	s.eventuallyAll(r, n)
}
