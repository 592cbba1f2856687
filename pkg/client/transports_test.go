package client_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	registrymemory "github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/memory"
)

// closer is a transport that notes that it was closed.
type closer struct {
	transport.Transport
	closed *bool
}

func (c closer) Close() error { *c.closed = true; return nil }

// TestTransports: a node is called by the transport that it names, and one that names none, or a stranger's, by the client's own.
func TestTransports(t *testing.T) {
	t.Parallel()
	own, other := memory.New(), memory.New() // neither sees the other's addresses
	reg := registrymemory.New()
	defer reg.Close()
	serve := func(tr transport.Transport, service, label string) {
		s, err := server.New(service)
		if err != nil {
			t.Fatal(err)
		}
		_ = server.Handle(s, "Say.Hello", func(context.Context, *struct{}) (*struct{}, error) { return new(struct{}), nil })
		l, err := tr.Listen(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l) }()
		t.Cleanup(func() { stop(); <-done })
		n := registry.Node{ID: service + "-1", Service: service, Address: service, Metadata: map[string]string{registry.MetaTransport: label}}
		if err := reg.Register(t.Context(), n, 0); err != nil {
			t.Fatal(err)
		}
	}
	serve(own, "ours", "memory")
	serve(own, "strange", "pigeon")
	serve(other, "theirs", "other")
	serve(other, "lost", "broken")
	opened, closed := 0, false
	errBroken := errors.New("it does not open")
	c, err := client.New(client.WithTransport(own), client.WithRegistry(reg), client.WithTransports(transport.Openers{
		"other": func(context.Context, *url.URL) (transport.Transport, error) {
			opened++
			return closer{other, &closed}, nil
		},
		"broken": func(context.Context, *url.URL) (transport.Transport, error) { return nil, errBroken },
	}))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, service := range []string{"ours", "strange", "theirs"} {
			if _, err := client.Call[struct{}](t.Context(), c, service, "Say.Hello", &struct{}{}); err != nil {
				t.Errorf("%s: %v", service, err)
			}
		}
	}
	if _, err := client.Call[struct{}](t.Context(), c, "lost", "Say.Hello", &struct{}{}); !errors.Is(err, errBroken) || !transport.NotSent(err) {
		t.Errorf("by a transport that does not open: %v", err)
	}
	for addr, want := range map[string]bool{"other://theirs": true, "memory://ours": true, "theirs": false, "pigeon://strange": false} {
		if _, err := client.Call[struct{}](t.Context(), c, "", "Say.Hello", &struct{}{}, client.Address(addr)); (err == nil) != want {
			t.Errorf("at %s: %v", addr, err)
		}
	}
	n := registry.Node{Address: "theirs", Metadata: map[string]string{registry.MetaTransport: "other"}}
	if got := c.AddressOf(n); got != "other://theirs" {
		t.Errorf("AddressOf gives %q", got)
	}
	if err := c.Close(); err != nil || opened != 1 || !closed {
		t.Errorf("Close: %v; it was opened %d times, closed %t", err, opened, closed)
	}
}

// labelled is a transport of a scheme.
type labelled struct {
	transport.Transport
	scheme string
}

func (l labelled) Scheme() string { return l.scheme }

// TestNoStepDown: a record that names the transport without TLS does not bring a client of TLS to it.
func TestNoStepDown(t *testing.T) {
	t.Parallel()
	open := func(context.Context, *url.URL) (transport.Transport, error) { return memory.New(), nil }
	reg := registrymemory.New()
	defer reg.Close()
	for _, tt := range []struct{ own, label, want string }{
		{"https", "http", "a:1"}, {"https", "https", "a:1"}, {"wss", "ws", "a:1"}, {"http", "https", "https://a:1"}, {"ws", "wss", "wss://a:1"}, {"https", "ws", "ws://a:1"},
		{"http", "grpc", "grpc://a:1"}, {"https", "grpc", "grpcs://a:1"}, {"grpcs", "grpc", "a:1"},
	} {
		c, err := client.New(client.WithTransport(labelled{memory.New(), tt.own}), client.WithRegistry(reg),
			client.WithTransports(transport.Openers{"http": open, "https": open, "ws": open, "wss": open, "grpc": open, "grpcs": open}))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.AddressOf(registry.Node{Address: "a:1", Metadata: map[string]string{registry.MetaTransport: tt.label}}); got != tt.want {
			t.Errorf("%s dials a node of %s by %q, want %q", tt.own, tt.label, got, tt.want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// polyglot is a transport that knows a protocol beside its own, and notes what it is to dial.
type polyglot struct {
	labelled
	dialled *[]string
}

func (p polyglot) Speaks(protocol string) bool { return protocol == "mucp" }

func (p polyglot) Dial(_ context.Context, addr string) (transport.Conn, error) {
	*p.dialled = append(*p.dialled, addr)
	return nil, transport.ErrNotSent
}

// TestProtocols: a node that is not of this project is dialled as its protocol has it, which its record tells; gRPC is not tried without its
// transport.
func TestProtocols(t *testing.T) {
	t.Parallel()
	var dialled, others []string
	opener := func(context.Context, *url.URL) (transport.Transport, error) {
		return polyglot{labelled{memory.New(), "grpc"}, &others}, nil
	}
	for _, tt := range []struct {
		name    string
		openers transport.Openers
		labels  map[string]string
		own     string // what the client's own transport dials
		other   string // what that of gRPC dials
	}{
		{"ours", nil, map[string]string{"protocol": "mucp", "transport": "http", "upgrade": "micro"}, "a:1", ""},
		{"go-micro's", nil, map[string]string{"protocol": "mucp", "transport": "http"}, "mucp://a:1", ""},
		{"one that does not say", nil, map[string]string{"transport": "http"}, "a:1", ""},
		{"nobody's", nil, nil, "a:1", ""},
		{"a stranger's", nil, map[string]string{"protocol": "smoke"}, "a:1", ""},
		{"gRPC", transport.Openers{"grpc": opener}, map[string]string{"protocol": "grpc", "transport": "grpc"}, "", "a:1"},
		{"gRPC by its protocol", transport.Openers{"grpc": opener}, map[string]string{"protocol": "grpc", "transport": "http"}, "", "a:1"},
		{"gRPC without it", nil, map[string]string{"protocol": "grpc", "transport": "grpc"}, "", ""},
	} {
		dialled, others = nil, nil
		reg := registrymemory.New()
		if err := reg.Register(t.Context(), registry.Node{ID: "x-1", Service: "x", Address: "a:1", Metadata: tt.labels}, 0); err != nil {
			t.Fatal(err)
		}
		c, err := client.New(client.WithTransport(polyglot{labelled{memory.New(), "http"}, &dialled}), client.WithRegistry(reg), client.WithTransports(tt.openers))
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Call[struct{}](t.Context(), c, "x", "Say.Hello", &struct{}{})
		if !transport.NotSent(err) || strings.Join(dialled, " ") != tt.own || strings.Join(others, " ") != tt.other {
			t.Errorf("%s: %q and by gRPC %q were dialled, %v", tt.name, dialled, others, err)
		}
		if says := strings.Contains(err.Error(), "speaks gRPC"); says != (tt.own == "" && tt.other == "") {
			t.Errorf("%s: %v", tt.name, err)
		}
		c.Close()
		reg.Close()
	}
}
