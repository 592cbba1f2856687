package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	registrymemory "github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type Hello struct {
	Name string `json:"name"`
}

type Greeting struct {
	Msg string `json:"msg"`
}

// system is a registry and a transport with services on them, for one test.
type system struct {
	t         *testing.T
	registry  *registrymemory.Registry
	transport *memory.Transport
}

func newSystem(t *testing.T) *system {
	s := &system{t, registrymemory.New(), memory.New()}
	t.Cleanup(func() { _ = s.registry.Close() })
	return s
}

// node runs a server under id, registered, until the test ends or the function that it gives is called.
func (s *system) node(id string, handlers func(s *server.Server), meta map[string]string) (stop func()) {
	s.t.Helper()
	srv, err := server.New("greeter", server.NodeID(id))
	if err != nil {
		s.t.Fatal(err)
	}
	handlers(srv)
	l, err := s.transport.Listen(s.t.Context(), "")
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	s.register(id, l.Addr(), meta)
	var once atomic.Bool
	stop = func() {
		if !once.Swap(true) {
			cancel()
			<-done
		}
	}
	s.t.Cleanup(stop)
	return stop
}

func (s *system) register(id, addr string, meta map[string]string) {
	s.t.Helper()
	n := registry.Node{ID: id, Service: "greeter", Address: addr, Metadata: meta}
	if err := s.registry.Register(s.t.Context(), n, 0); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) client(opts ...client.Option) *client.Client {
	s.t.Helper()
	c, err := client.New(append([]client.Option{client.WithRegistry(s.registry), client.WithTransport(s.transport)}, opts...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			s.t.Errorf("Close: %v", err)
		}
	})
	return c
}

// await calls until a call succeeds: until the client has heard of the latest node.
func (s *system) await(c *client.Client) {
	s.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := client.Call[Greeting](s.t.Context(), c, "greeter", "Say.Hello", &Hello{})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal(err)
		}
	}
}

func hello(s *server.Server) {
	_ = server.Handle(s, "Say.Hello", func(_ context.Context, in *Hello) (*Greeting, error) {
		return &Greeting{Msg: "Hello " + in.Name}, nil
	})
}

func TestCall(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	sys.node("greeter-1", hello, nil)
	c := sys.client()
	for range 3 {
		rsp, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{Name: "x"})
		if err != nil || rsp.Msg != "Hello x" {
			t.Fatalf("%v %v", rsp, err)
		}
	}
	rsp, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello", ContentType: "application/json", Body: []byte(`{"name":"y"}`)})
	if err != nil || string(rsp.Body) != `{"msg":"Hello y"}` || rsp.Node.ID != "greeter-1" || rsp.Attempts != 1 {
		t.Errorf("Do: %+v %v", rsp, err)
	}
}

func TestMetadataTravels(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	sys.node("greeter-1", func(s *server.Server) {
		_ = s.Handle(server.Endpoint{Name: "Say.Raw"}, func(ctx context.Context, c *server.Call) error {
			md := metadata.Incoming(ctx)
			_ = c.SetHeader("seen", fmt.Sprintf("%s %s %d", md.Get("a"), md.Get("b"), md.Len()))
			return c.SendRaw("application/json", []byte("{}"))
		})
	}, nil)
	c := sys.client()
	ctx := metadata.WithIncoming(t.Context(), metadata.Of("secret", "of-the-caller"))
	ctx = metadata.WithOutgoing(ctx, metadata.Of("a", "1", "b", "2"))
	rsp, err := c.Do(ctx, &client.Request{Service: "greeter", Endpoint: "Say.Raw", Header: metadata.Of("b", "3")})
	if err != nil {
		t.Fatal(err)
	}
	if got := rsp.Header.Get("seen"); got != "1 3 2" {
		t.Errorf("handler saw %q", got)
	}
}

// TestDeadNodes: nodes that cannot be dialled cost the call nothing but the tries.
func TestDeadNodes(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	for i := range 5 {
		sys.register(fmt.Sprintf("greeter-dead%d", i), fmt.Sprintf("memory:9%d", i), nil)
	}
	c := sys.client()
	_, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{})
	var e *client.Error
	if !errors.As(err, &e) || len(e.Attempts) != 5 || e.Phase != client.Dial || !transport.NotSent(err) {
		t.Fatalf("with dead nodes alone: %v", err)
	}
	sys.node("greeter-live", hello, nil)
	sys.await(c)
	for range 20 {
		if _, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRefusedGoesElsewhere: a node that refuses a call unrun loses it to another.
func TestRefusedGoesElsewhere(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	sys.node("greeter-full", func(s *server.Server) {
		_ = server.Handle(s, "Say.Hello", func(context.Context, *Hello) (*Greeting, error) {
			return nil, status.Refuse(status.ResourceExhausted, "full")
		})
	}, nil)
	c := sys.client()
	_, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{})
	if status.CodeOf(err) != status.ResourceExhausted {
		t.Fatalf("the only node refuses: %v", err)
	}
	sys.node("greeter-free", hello, nil)
	sys.await(c)
	for range 20 {
		if _, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{}); err != nil {
			t.Fatal(err)
		}
	}
}

// cutting is a transport whose connections break after they sent a call.
type cutting struct {
	transport.Transport
	cut map[string]bool
}

func (c cutting) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	conn, err := c.Transport.Dial(ctx, addr)
	if err == nil && c.cut[addr] {
		return cutConn{conn}, nil
	}
	return conn, err
}

type cutConn struct{ transport.Conn }

// Recv brings no answer, however fast it came.
func (c cutConn) Recv(ctx context.Context, m *transport.Message) error {
	if err := c.Conn.Recv(ctx, m); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

func (c cutConn) Send(ctx context.Context, m *transport.Message) error {
	err := c.Conn.Send(ctx, m)
	if m.Kind == transport.Call {
		_ = c.Conn.Close()
	}
	return err
}

// TestSentCallsAreNotRepeated: a call that may have run is sent again only where its endpoint is idempotent.
func TestSentCallsAreNotRepeated(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		meta   map[string]string
		opts   []client.CallOption
		repeat bool
	}{
		{"plain", nil, nil, false},
		{"declared by the server", map[string]string{registry.MetaIdempotent: "Say.Bye,Say.Hello"}, nil, true},
		{"another is declared", map[string]string{registry.MetaIdempotent: "Say.Hello2"}, nil, false},
		{"declared by the caller", nil, []client.CallOption{client.Idempotent()}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sys := newSystem(t)
			sys.node("greeter-good", hello, tt.meta)
			good, _ := sys.registry.Get(t.Context(), "greeter")
			sys.node("greeter-cut", hello, tt.meta)
			nodes, _ := sys.registry.Get(t.Context(), "greeter")
			cut := map[string]bool{}
			for _, n := range nodes {
				cut[n.Address] = n.Address != good[0].Address
			}
			c := sys.client(client.WithTransport(cutting{sys.transport, cut}))
			failed := 0
			for range 20 {
				rsp, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello"}, tt.opts...)
				if err != nil {
					failed++
					var e *client.Error
					if !errors.As(err, &e) || e.Phase != client.Wait || len(e.Attempts) != 1 {
						t.Fatalf("error %+v", err)
					}
				} else if rsp.Node.ID != "greeter-good" {
					t.Fatalf("answered by %s", rsp.Node.ID)
				}
			}
			if (failed == 0) != tt.repeat {
				t.Errorf("%d of 20 calls failed, repeated: want %v", failed, tt.repeat)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	left := make(chan time.Duration, 1)
	sys.node("greeter-1", func(s *server.Server) {
		_ = server.Handle(s, "Say.Hang", func(ctx context.Context, _ *Hello) (*Greeting, error) {
			deadline, _ := ctx.Deadline()
			left <- time.Until(deadline)
			<-ctx.Done()
			return nil, ctx.Err()
		})
	}, nil)
	c := sys.client()
	_, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hang", &Hello{}, client.Timeout(30*time.Millisecond))
	if code := status.CodeOf(err); code != status.DeadlineExceeded {
		t.Errorf("error %v", err)
	}
	if d := <-left; d > 30*time.Millisecond {
		t.Errorf("the server was given %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-left; cancel() }()
	if _, err := client.Call[Greeting](ctx, c, "greeter", "Say.Hang", &Hello{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after a cancel: %v", err)
	}
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	c := sys.client()
	_, err := client.Call[Greeting](t.Context(), c, "nobody", "Say.Hello", &Hello{}, client.Timeout(50*time.Millisecond))
	if !errors.Is(err, selector.ErrNotFound) {
		t.Errorf("unknown service: %v", err)
	}
	sys.node("greeter-1", hello, nil)
	_, err = client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{}, client.Node("greeter-9"))
	if !errors.Is(err, selector.ErrNoneMatch) {
		t.Errorf("unknown node: %v", err)
	}
	_, err = client.Call[Greeting](t.Context(), c, "greeter", "Say.Nope", &Hello{})
	if status.CodeOf(err) != status.NotFound || !strings.Contains(err.Error(), "greeter-1") {
		t.Errorf("unknown endpoint: %v", err)
	}
}

func TestReconnects(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	stop := sys.node("greeter-1", hello, nil)
	nodes, err := sys.registry.Get(t.Context(), "greeter")
	if err != nil {
		t.Fatal(err)
	}
	c := sys.client()
	if _, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{}); err != nil {
		t.Fatal(err)
	}
	stop()
	srv, err := server.New("greeter")
	if err != nil {
		t.Fatal(err)
	}
	hello(srv)
	l, err := sys.transport.Listen(t.Context(), nodes[0].Address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	defer func() { cancel(); <-done }()
	if _, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{}); err != nil {
		t.Errorf("after the server came back: %v", err)
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	ended := make(chan error, 10)
	sys.node("greeter-1", func(s *server.Server) {
		_ = server.HandleBidi(s, "Say.Chat", func(ctx context.Context, st *server.Stream[Hello, Greeting]) error {
			for in, err := range st.All() {
				if err != nil {
					ended <- ctx.Err()
					return err
				}
				if in.Name == "fail" {
					return status.New(status.FailedPrecondition, "as asked")
				}
				if err := st.Send(&Greeting{Msg: in.Name}); err != nil {
					return err
				}
			}
			return st.Send(&Greeting{Msg: "bye"})
		})
	}, nil)
	c := sys.client()
	var reused []bool
	observe := client.Observe(func(e client.Event) {
		if e.Phase == client.Dial {
			reused = append(reused, e.Reused)
		}
	})
	for range 2 {
		st, err := c.Stream(t.Context(), "greeter", "Say.Chat", observe)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range []string{"a", "b"} {
			if err := st.Send(&Hello{Name: name}); err != nil {
				t.Fatal(err)
			}
			var g Greeting
			if err := st.Recv(&g); err != nil {
				t.Fatal(err)
			}
			got = append(got, g.Msg)
		}
		if err := st.CloseSend(); err != nil {
			t.Fatal(err)
		}
		var g Greeting
		if err := st.Recv(&g); err != nil || g.Msg != "bye" {
			t.Errorf("after the half-close: %v %v", g, err)
		}
		if err := st.Recv(&g); !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %v", err)
		}
		if err := st.Send(&Hello{}); !errors.Is(err, io.EOF) {
			t.Errorf("send after the end: %v", err)
		}
		if !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("got %q", got)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(reused, []bool{false, true}) {
		t.Errorf("connections reused: %v", reused)
	}
	st, err := c.Stream(t.Context(), "greeter", "Say.Chat")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&Hello{Name: "fail"}); err != nil {
		t.Fatal(err)
	}
	if err := st.Recv(&Greeting{}); status.CodeOf(err) != status.FailedPrecondition {
		t.Errorf("a failing stream: %v", err)
	}
	_ = st.Close()

	ctx, cancel := context.WithCancel(t.Context())
	st, err = c.Stream(ctx, "greeter", "Say.Chat")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&Hello{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := st.Recv(&Greeting{}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := st.Recv(&Greeting{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the cancel: %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the handler's context goes on")
	}
	_ = st.Close()
}

func TestMiddlewareOrder(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	sys.node("greeter-1", hello, nil)
	var order []string
	mark := func(name string) client.Middleware {
		return func(next client.Invoker) client.Invoker {
			return func(ctx context.Context, req *client.Request) (*client.Response, error) {
				order = append(order, name)
				return next(ctx, req)
			}
		}
	}
	c := sys.client(client.WithMiddleware(mark("outer"), mark("inner")))
	if _, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(order, []string{"outer", "inner"}) {
		t.Errorf("order %q", order)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	running := make(chan struct{})
	sys.node("greeter-1", func(s *server.Server) {
		_ = server.Handle(s, "Say.Hang", func(ctx context.Context, _ *Hello) (*Greeting, error) {
			close(running)
			<-ctx.Done()
			return nil, ctx.Err()
		})
	}, nil)
	c := sys.client()
	result := make(chan error, 1)
	go func() {
		_, err := client.Call[Greeting](context.Background(), c, "greeter", "Say.Hang", &Hello{})
		result <- err
	}()
	<-running
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; err == nil {
		t.Error("a call outlived its client")
	}
	if _, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{}); err == nil {
		t.Error("a closed client calls")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	if _, err := client.New(); err == nil {
		t.Error("no transport")
	}
	sys := newSystem(t)
	c := sys.client()
	for name, opt := range map[string]client.CallOption{
		"timeout": client.Timeout(0), "attempts": client.Attempts(0), "header": client.Header("a b", "x"), "content type": client.ContentType("text/x"),
	} {
		if _, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{}, opt); err == nil {
			t.Errorf("%s is not refused", name)
		}
	}
	if _, err := c.Publish(t.Context(), "topic", &Hello{}); err == nil {
		t.Error("publishes without a broker")
	}
}
