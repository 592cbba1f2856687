package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// TestOptionsOfDo: a call whose body is encoded takes the options that a typed call takes.
func TestOptionsOfDo(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	sys.node("greeter-1", func(s *server.Server) {
		_ = s.Handle(server.Endpoint{Name: "Say.Raw"}, func(_ context.Context, c *server.Call) error {
			return c.SendRaw("", []byte(c.ContentType()+" "+c.Header().Get("a")))
		})
	}, nil)
	req := &client.Request{Service: "greeter", Endpoint: "Say.Raw", Body: []byte("x")}
	rsp, err := sys.client().Do(t.Context(), req, client.Header("a", "1"), client.ContentType("application/json"))
	if err != nil || string(rsp.Body) != "application/json 1" {
		t.Errorf("%+v %v", rsp, err)
	}
	if req.ContentType != "" || req.Header.Len() > 0 {
		t.Errorf("the caller's request was changed: %+v", req)
	}
}

// TestTooLargeIsNotRepeated: a body over the limit is over it at every node, and says nothing against them.
func TestTooLargeIsNotRepeated(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	sys.node("greeter-1", hello, nil)
	sys.node("greeter-2", hello, nil)
	c := sys.client()
	_, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello", ContentType: "application/json", Body: make([]byte, 5<<20)}, client.Idempotent())
	var e *client.Error
	if !errors.As(err, &e) || !errors.Is(err, transport.ErrTooLarge) || len(e.Attempts) != 1 {
		t.Errorf("%v", err)
	}
}

func TestEmptyMiddleware(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	c := sys.client(client.WithMiddleware(func(client.Invoker) client.Invoker {
		return func(context.Context, *client.Request) (*client.Response, error) { return nil, nil }
	}))
	if err := c.Call(t.Context(), "greeter", "Say.Hello", &Hello{}, &Greeting{}); err == nil || !strings.Contains(err.Error(), "middleware") {
		t.Errorf("Call: %v", err)
	}
	if _, err := c.Stream(t.Context(), "greeter", "Say.Chat"); err == nil {
		t.Error("Stream gives none")
	}
}

// TestPortReused: whatever took a dead node's port, the call goes to a node that lives, once.
func TestPortReused(t *testing.T) {
	t.Parallel()
	tr, err := http.New(http.Options{DialTimeout: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	stopped, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections for it, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stopped.Close() })
	var strange atomic.Int32
	web := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		strange.Add(1)
		nethttp.NotFound(w, r)
	}))
	t.Cleanup(web.Close)
	ssh, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ssh.Close() })
	go func() {
		for {
			nc, err := ssh.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(nc, "SSH-2.0-OpenSSH_9.2\r\n")
			_ = nc.Close()
		}
	}()
	other := serveHTTP(t, tr, "orders", func(s *server.Server) {
		_ = server.Handle(s, "Say.Hello", func(context.Context, *Hello) (*Greeting, error) {
			t.Error("another service ran the call")
			return nil, nil
		})
	})
	for name, addr := range map[string]string{
		"a web server": web.Listener.Addr().String(), "another protocol": ssh.Addr().String(), "another service": other, "nobody": closedPort(t),
		"a process that is stopped": stopped.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			sys := newSystem(t)
			var ran atomic.Int32
			sys.register("greeter-live", serveHTTP(t, tr, "greeter", func(s *server.Server) {
				_ = server.Handle(s, "Say.Hello", func(context.Context, *Hello) (*Greeting, error) {
					ran.Add(1)
					return &Greeting{}, nil
				})
			}), nil)
			sys.register("greeter-dead", addr, nil)
			c := sys.client(client.WithTransport(tr))
			tries := 0
			for range 20 {
				rsp, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello", ContentType: "application/json", Body: []byte("{}")})
				if err != nil {
					t.Fatal(err)
				}
				tries += rsp.Attempts
			}
			if ran.Load() != 20 {
				t.Errorf("20 calls ran %d times", ran.Load())
			}
			if tries > 24 {
				t.Errorf("20 calls tried %d nodes: the dead one is not held back", tries)
			}
		})
	}
}

func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().String()
}

// serveHTTP serves a service until the test ends and gives its address.
func serveHTTP(t *testing.T, tr *http.Transport, name string, handlers func(s *server.Server), opts ...server.Option) string {
	t.Helper()
	srv, err := server.New(name, opts...)
	if err != nil {
		t.Fatal(err)
	}
	handlers(srv)
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr()
}

// TestRefusedStreamGoesElsewhere: a node that is full, or is another service, loses the stream before anything is sent.
func TestRefusedStreamGoesElsewhere(t *testing.T) {
	t.Parallel()
	tr, err := http.New(http.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sys := newSystem(t)
	chat := func(s *server.Server) {
		_ = server.HandleBidi(s, "Say.Chat", func(_ context.Context, st *server.Stream[Hello, Greeting]) error {
			in, err := st.Recv()
			if err != nil {
				return err
			}
			return st.Send(&Greeting{Msg: in.Name})
		})
	}
	sys.register("greeter-full", serveHTTP(t, tr, "greeter", chat, server.MaxStreams(1)), nil)
	c := sys.client(client.WithTransport(tr))
	occupied, err := c.Stream(t.Context(), "greeter", "Say.Chat")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = occupied.Close() }()
	if _, err := c.Stream(t.Context(), "greeter", "Say.Chat"); status.CodeOf(err) != status.ResourceExhausted {
		t.Errorf("the only node is full: %v", err)
	}
	sys.register("greeter-other", serveHTTP(t, tr, "orders", chat), nil)
	sys.register("greeter-free", serveHTTP(t, tr, "greeter", chat), nil)
	deadline, heard := time.Now().Add(10*time.Second), false
	for served := 0; served < 10; {
		st, err := c.Stream(t.Context(), "greeter", "Say.Chat")
		if status.IsRefused(err) && !heard && time.Now().Before(deadline) {
			continue // the client has not heard of the free node yet
		}
		if err != nil || st.Node().ID != "greeter-free" {
			t.Fatalf("%v", err)
		}
		heard = true
		served++
		if err := st.Send(&Hello{Name: "x"}); err != nil {
			t.Fatal(err)
		}
		var g Greeting
		if err := st.Recv(&g); err != nil || g.Msg != "x" {
			t.Fatalf("%v %v", g, err)
		}
		_ = st.Close()
	}
}

// TestOversizeStreamMessage: the server's smaller limit ends the stream with an error that says so.
func TestOversizeStreamMessage(t *testing.T) {
	t.Parallel()
	small, err := http.New(http.Options{MaxMessage: 1000})
	if err != nil {
		t.Fatal(err)
	}
	large, err := http.New(http.Options{})
	if err != nil {
		t.Fatal(err)
	}
	addr := serveHTTP(t, small, "greeter", func(s *server.Server) {
		_ = server.HandleBidi(s, "Say.Chat", func(_ context.Context, st *server.Stream[Hello, Greeting]) error {
			for in, err := range st.All() {
				if err != nil {
					return err
				}
				if err := st.Send(&Greeting{Msg: strings.Repeat("x", len(in.Name)*10)}); err != nil {
					return err
				}
			}
			return nil
		})
	})
	c, err := client.New(client.WithTransport(large))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for what, size := range map[string]int{"request": 5000, "answer": 500} {
		st, err := c.Stream(t.Context(), "greeter", "Say.Chat", client.Address(addr))
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Send(&Hello{Name: strings.Repeat("x", size)}); err != nil {
			t.Fatal(err)
		}
		if err := st.Recv(&Greeting{}); status.CodeOf(err) != status.TooLarge {
			t.Errorf("%s: %v", what, err)
		}
		_ = st.Close()
	}
}

// TestTwoNodesOfOneID: the later record counts, and calls go on.
func TestTwoNodesOfOneID(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	sys.node("greeter-1", hello, nil)
	sys.node("greeter-1", hello, nil)
	nodes, err := sys.registry.Get(t.Context(), "greeter")
	if err != nil || len(nodes) != 1 {
		t.Fatalf("%v %v", nodes, err)
	}
	c := sys.client()
	for range 10 {
		if _, err := client.Call[Greeting](t.Context(), c, "greeter", "Say.Hello", &Hello{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLeavingADeafHandler: a caller that has filled the connection to a handler that does not read can still leave it.
func TestLeavingADeafHandler(t *testing.T) {
	t.Parallel()
	tr, err := http.New(http.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	addr := serveHTTP(t, tr, "greeter", func(s *server.Server) {
		_ = server.HandleBidi(s, "Say.Deaf", func(ctx context.Context, _ *server.Stream[Hello, Greeting]) error {
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		})
	})
	c, err := client.New(client.WithTransport(tr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	st, err := c.Stream(t.Context(), "greeter", "Say.Deaf", client.Address(addr))
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		body := make([]byte, 32<<10)
		for {
			if err := st.SendRaw(body); err != nil {
				failed <- err
				return
			}
			sent <- struct{}{}
		}
	}()
	for full := false; !full; {
		select {
		case <-sent:
		case <-time.After(300 * time.Millisecond):
			full = true
		}
	}
	_ = st.Close()
	for left := false; !left; {
		select {
		case <-sent: // one may still have gone through
		case <-failed:
			left = true
		}
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the handler goes on")
	}
}

// TestTimeoutOverFrames: the client's timeout ends a call whose handler does not, with middleware and without, and the handler
// has it as its deadline.
func TestTimeoutOverFrames(t *testing.T) {
	t.Parallel()
	tr, err := http.New(http.Options{})
	if err != nil {
		t.Fatal(err)
	}
	deadlines, release := make(chan time.Duration, 2), make(chan struct{})
	served := serveHTTP(t, tr, "greeter", func(s *server.Server) {
		_ = s.Handle(server.Endpoint{Name: "Say.Hello"}, func(ctx context.Context, _ *server.Call) error {
			at, _ := ctx.Deadline()
			deadlines <- time.Until(at)
			<-release // it does not look at its context
			return nil
		})
	})
	t.Cleanup(func() { close(release) }) // before the server's own, which waits for the handlers
	for name, opts := range map[string][]client.Option{"bare": nil, "middleware": {client.WithMiddleware(passing)}} {
		c, err := client.New(append(opts, client.WithTransport(tr), client.WithTimeout(150*time.Millisecond))...)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Call(t.Context(), "greeter", "Say.Hello", nil, nil, client.Address(served))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want the deadline", name, err)
		}
		if left := <-deadlines; left > 150*time.Millisecond {
			t.Errorf("%s: the handler has %v", name, left)
		}
		_ = c.Close()
	}
}
