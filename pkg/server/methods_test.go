package server_test

import (
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/server"
)

// bound are the methods of Say as generated code has them.
func bound(s *Say) []server.BoundMethod {
	return []server.BoundMethod{
		server.UnaryMethod("Hi", s.Hi, server.Doc("hi"), server.Idempotent()),
		server.ServerStreamMethod("Count", s.Count),
		server.ClientStreamMethod("Join", s.Join),
		server.BidiMethod("Chat", s.Chat),
	}
}

func TestRegisterMethods(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	err := s.RegisterMethods("Say", bound(new(Say)), server.Named("Greeter"), server.Skip("Join"), server.Method("Hi", server.Doc("hello"), server.EndpointMetadata("a", "b")))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]server.Kind{}
	for _, e := range s.Endpoints() {
		kinds[e.Name] = e.Kind
		if e.Name == "Greeter.Hi" && (!e.Idempotent || e.Doc != "hello" || e.Metadata["a"] != "b" || e.RequestType != "Hello") {
			t.Errorf("%+v", e)
		}
	}
	for name, kind := range map[string]server.Kind{"Greeter.Hi": server.Unary, "Greeter.Count": server.ServerStream, "Greeter.Chat": server.Bidi, "Greeter.Join": ""} {
		if kinds[name] != kind {
			t.Errorf("%s is %q, want %q", name, kinds[name], kind)
		}
	}
	c := start(t, s)
	if rsp := exchange(t, c, call("Greeter.Hi", `{"name":"x"}`)); string(rsp.Body) != `{"msg":"Hi x"}` {
		t.Errorf("%s %v", rsp.Body, errorOf(rsp))
	}
}

func TestRegisterMethodsRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		methods []server.BoundMethod
		opts    []server.RegisterOption
		want    string
	}{
		{nil, nil, "methods of Say: no handler"},
		{bound(new(Say)), []server.RegisterOption{server.Skip("Helo")}, `Skip names "Helo", which is no method`},
		{bound(new(Say)), []server.RegisterOption{server.Method("Helo")}, `Method names "Helo", which is no method`},
		{bound(new(Say)), []server.RegisterOption{server.Named("not a name")}, "want letters, digits"},
		{bound(new(Say)), []server.RegisterOption{server.Method("Chat", server.Idempotent())}, "a stream is never sent again"},
	} {
		s := newServer(t)
		err := s.RegisterMethods("Say", tc.methods, tc.opts...)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
		if s.Err() == nil {
			t.Errorf("%q: the server would serve", tc.want)
		}
	}
}
