package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/memory"
)

var errBroken = errors.New("broken")

// directConn is a connection that is a transport.UnaryServer: the tests are its peer, and make its calls.
type directConn struct {
	started chan struct{} // closed when ServeCalls has begun
	closed  chan struct{}
	left    chan struct{} // closed by the server's own Close, after another's
	closes  atomic.Int32
	calls   sync.WaitGroup // under way
	err     error          // with which it ends

	ctx    context.Context
	router transport.Router
}

func newDirectConn() *directConn {
	return &directConn{started: make(chan struct{}), closed: make(chan struct{}), left: make(chan struct{}), err: io.EOF}
}

var _ transport.UnaryServer = (*directConn)(nil)

func (c *directConn) ServeCalls(ctx context.Context, route transport.Router) error {
	c.ctx, c.router = ctx, route
	close(c.started)
	select {
	case <-c.closed:
	case <-ctx.Done():
	}
	c.calls.Wait()
	return c.err
}

func (c *directConn) Send(context.Context, *transport.Message) error { return nil }
func (c *directConn) Recv(context.Context, *transport.Message) error { return transport.ErrClosed }
func (c *directConn) RemoteAddr() string                             { return "peer:1" }

func (c *directConn) Close() error {
	switch c.closes.Add(1) {
	case 1:
		close(c.closed)
	case 2:
		close(c.left)
	}
	return nil
}

// directListener yields one connection.
type directListener struct {
	conn   chan transport.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *directListener) Accept() (transport.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, transport.ErrClosed
	}
}
func (l *directListener) Addr() string { return "here:1" }
func (l *directListener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

// direct serves s on a connection of the test's own, and gives it.
func direct(t testing.TB, s *server.Server) *directConn {
	t.Helper()
	c := newDirectConn()
	served, cancel := serveDirect(s, c)
	t.Cleanup(func() {
		_ = c.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return c
}

// serveDirect serves s on c until cancel.
func serveDirect(s *server.Server, c *directConn) (served chan error, cancel context.CancelFunc) {
	l := &directListener{conn: make(chan transport.Conn, 1), closed: make(chan struct{})}
	l.conn <- c
	ctx, cancel := context.WithCancel(context.Background())
	served = make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	<-c.started
	return served, cancel
}

// with gives a call of an endpoint, with further headers of the framework.
func (c *directConn) with(endpoint, body string, header ...string) *directCall {
	m := call(endpoint, body, header...)
	d := &directCall{conn: c, route: c.router(m.Header), req: *m}
	return d
}

// directCall makes calls with one header, as an engine does: with storage that is used again.
type directCall struct {
	conn     *directConn
	route    *transport.Route
	contexts callctx.Slab
	md       metadata.MD
	values   *came
	req, rsp transport.Message
}

// came is what came with a call.
type came struct{ md metadata.MD }

func (c *came) Value(key any) any {
	if metadata.IsIncoming(key) {
		return &c.md
	}
	return nil
}

func (c *directConn) to(endpoint, contentType string, md metadata.MD) *directCall {
	d := &directCall{conn: c, md: md}
	d.req.Header = metadata.Of(transport.HeaderService, "greeter", transport.HeaderEndpoint, endpoint, transport.HeaderContentType, contentType)
	d.route = c.router(d.req.Header)
	return d
}

func (d *directCall) call(timeout time.Duration) {
	d.conn.calls.Add(1)
	defer d.conn.calls.Done()
	d.req.Timeout = timeout
	if d.values == nil {
		d.values = &came{d.md}
	}
	ctx := d.contexts.New(d.conn.ctx, callctx.Now()+int64(d.route.Timeout(timeout)), d.values)
	d.route.Serve(ctx, &d.req, &d.rsp)
	ctx.End(context.Canceled)
}

// plainCodec carries Sums without an allocation: two numbers.
type plainCodec struct{}

type Sum struct{ A, B uint64 }

func (plainCodec) ContentType() string { return "application/x-sum" }

func (plainCodec) Append(dst []byte, v any) ([]byte, error) {
	s, ok := v.(*Sum)
	if !ok {
		return dst, codec.ErrUnsupported
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, s.A), s.B), nil
}

func (plainCodec) Unmarshal(data []byte, v any) error {
	s, ok := v.(*Sum)
	if !ok {
		return codec.ErrUnsupported
	}
	if len(data) >= 16 {
		s.A, s.B = binary.BigEndian.Uint64(data), binary.BigEndian.Uint64(data[8:])
	}
	return nil
}

// summing gives a server of Sum.Add, which fills its answer, with one middleware.
func summing(t testing.TB, opts ...server.EndpointOption) *server.Server {
	t.Helper()
	s, err := server.New("greeter", server.Codecs(codec.Set{plainCodec{}}), server.WithMiddleware(func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) error {
			if c.Header().Len() != 4 {
				t.Error("metadata is missing")
			}
			return next(ctx, c)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	err = server.HandleInto(s, "Sum.Add", func(ctx context.Context, in, out *Sum) error {
		if _, ok := ctx.Deadline(); !ok || out.A != 0 || out.B != 0 {
			t.Error("no deadline, or an answer that is not empty")
		}
		out.A = in.A + in.B
		return nil
	}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fourPairs() metadata.MD {
	return metadata.Of("trace", "0af7651916cd43dd8448eb211c80319c", "tenant", "blue", "user", "ann", "locale", "en")
}

// TestDirectErrors: what a call over a transport.UnaryServer is refused with is what it is refused with elsewhere, at each
// call of the same route.
func TestDirectErrors(t *testing.T) {
	s := newServer(t, server.MaxCalls(1))
	_ = server.Handle(s, "Say.Hello", hello)
	_ = server.Handle(s, "Say.Panic", func(context.Context, *Hello) (*Greeting, error) { panic("secret") })
	_ = server.Handle(s, "Say.Plain", func(context.Context, *Hello) (*Greeting, error) { return nil, errors.New("secret") })
	_ = s.Handle(server.Endpoint{Name: "Say.Mute"}, func(context.Context, *server.Call) error { return nil })
	_ = s.Handle(server.Endpoint{Name: "Say.Twice"}, func(_ context.Context, c *server.Call) error {
		return errors.Join(c.Send(&Greeting{"first"}), c.Send(&Greeting{"second"}))
	})
	_ = server.HandleBidi(s, "Say.Chat", func(context.Context, *server.Stream[Hello, Greeting]) error { return nil })
	_ = server.Subscribe(s, "events", func(context.Context, *Hello) error { return errors.New("secret") })
	c := direct(t, s)
	for name, tt := range map[string]struct {
		call    *directCall
		code    status.Code
		detail  string
		refused bool
	}{
		"unknown endpoint":  {c.with("Say.Nope", `{}`), status.NotFound, `no endpoint "Say.Nope"`, true},
		"another service":   {c.with("Say.Hello", `{}`, transport.HeaderService, "orders"), status.Misdirected, "this is greeter, not orders", true},
		"another's event":   {c.with("", `{}`, transport.HeaderTopic, "events", transport.HeaderService, "orders"), status.Misdirected, "not orders", true},
		"content type":      {c.with("Say.Hello", `{}`, transport.HeaderContentType, "text/x"), status.UnsupportedMedia, "application/json", false},
		"not JSON":          {c.with("Say.Hello", `{"name":`), status.InvalidArgument, "does not decode", false},
		"panic":             {c.with("Say.Panic", `{}`), status.Internal, "panicked", false},
		"plain error":       {c.with("Say.Plain", `{}`), status.Internal, "the handler failed", false},
		"no answer":         {c.with("Say.Mute", `{}`), status.Internal, "sent no answer", false},
		"two answers":       {c.with("Say.Twice", `{}`), status.Internal, "sent twice", false},
		"a stream called":   {c.with("Say.Chat", `{}`), status.Unimplemented, "stream", false},
		"no subscriber":     {c.with("", `{}`, transport.HeaderTopic, "none"), status.NotFound, "no subscriber", true},
		"a failing handler": {c.with("", `{}`, transport.HeaderTopic, "events"), status.Internal, "the handler failed", false},
	} {
		for range 3 {
			tt.call.call(time.Second)
			e := errorOf(&tt.call.rsp)
			if e == nil || e.Code != tt.code || !strings.Contains(e.Detail, tt.detail) || e.Refused != tt.refused || e.ID != "greeter" {
				t.Errorf("%s: got %+v, want code %d with %q, refused %v", name, e, tt.code, tt.detail, tt.refused)
			}
			if len(tt.call.rsp.Body) > 0 || strings.Contains(string(tt.call.rsp.Header), "secret") {
				t.Errorf("%s: %q, body %q", name, tt.call.rsp.Header, tt.call.rsp.Body)
			}
		}
	}
	d := c.with("Say.Hello", `{"name":"x"}`)
	if d.call(time.Nanosecond); errorOf(&d.rsp) == nil || errorOf(&d.rsp).Code != status.DeadlineExceeded || !errorOf(&d.rsp).Refused {
		t.Errorf("a call without time: %v", errorOf(&d.rsp))
	}
	if d.call(0); errorOf(&d.rsp) != nil || string(d.rsp.Body) != `{"msg":"Hello x"}` {
		t.Errorf("the call after it: %v", errorOf(&d.rsp))
	}
	s.Stop()
	if d.call(0); errorOf(&d.rsp) == nil || errorOf(&d.rsp).Code != status.Unavailable || !errorOf(&d.rsp).Refused {
		t.Errorf("while stopping: %v", errorOf(&d.rsp))
	}
	health := c.with("Debug.Health", `{}`)
	if health.call(0); string(health.rsp.Body) != `{"status":"stopping"}` {
		t.Errorf("Debug.Health: %s %v", health.rsp.Body, errorOf(&health.rsp))
	}
}

// TestDirectOverload: limits hold for the calls of a route, and Debug.* has a share of its own.
func TestDirectOverload(t *testing.T) {
	s := newServer(t, server.MaxCalls(1))
	running, release := make(chan struct{}), make(chan struct{})
	_ = server.Handle(s, "Say.Wait", func(context.Context, *Hello) (*Greeting, error) {
		running <- struct{}{}
		<-release
		return nil, nil
	})
	c := direct(t, s)
	first, second, health := c.with("Say.Wait", `{}`), c.with("Say.Wait", `{}`), c.with("Debug.Health", `{}`)
	done := make(chan struct{})
	go func() { defer close(done); first.call(0) }()
	<-running
	second.call(0)
	if e := errorOf(&second.rsp); e == nil || e.Code != status.ResourceExhausted || !e.Refused {
		t.Errorf("beyond the limit: %v", e)
	}
	if health.call(0); string(health.rsp.Body) != `{"status":"ok"}` {
		t.Errorf("Debug.Health of a full server: %s %v", health.rsp.Body, errorOf(&health.rsp))
	}
	close(release)
	<-done
	if e := errorOf(&first.rsp); e != nil {
		t.Errorf("the first call: %v", e)
	}
}

// TestSetHeader: headers of an answer stand beside its content type, and are not the next answer's.
func TestSetHeader(t *testing.T) {
	s := newServer(t)
	set := true
	_ = s.Handle(server.Endpoint{Name: "Say.Raw"}, func(_ context.Context, c *server.Call) error {
		if set {
			if err := c.SetHeader("trace", "42"); err != nil {
				return err
			}
		}
		return c.Send(&Greeting{})
	})
	d := direct(t, s).with("Say.Raw", ``)
	d.call(0)
	if d.rsp.Header.Get("trace") != "42" || d.rsp.Header.Get(transport.HeaderContentType) != "application/json" || d.rsp.Header.Len() != 2 {
		t.Errorf("%q", d.rsp.Header)
	}
	set = false
	if d.call(0); d.rsp.Header.Len() != 1 || d.rsp.Header.Get(transport.HeaderContentType) != "application/json" {
		t.Errorf("the next: %q", d.rsp.Header)
	}
}

// TestPace: what the options say reaches the transport, and what it learns is the endpoint's, whoever calls.
func TestPace(t *testing.T) {
	s := newServer(t)
	_ = server.Handle(s, "Say.Fast", hello, server.Inline())
	_ = server.Handle(s, "Say.Slow", hello, server.Blocking())
	_ = server.Handle(s, "Say.Hello", hello)
	_ = s.Handle(server.Endpoint{Name: "Say.Raw"}, func(context.Context, *server.Call) error { return nil }, server.Blocking())
	_ = server.Subscribe(s, "events", func(context.Context, *Hello) error { return nil })
	c := direct(t, s)
	for name, tt := range map[string]struct {
		call *directCall
		mode transport.PaceMode
	}{
		"Inline":     {c.with("Say.Fast", ""), transport.PaceInline},
		"Blocking":   {c.with("Say.Slow", ""), transport.PaceGoroutine},
		"by itself":  {c.with("Say.Hello", ""), transport.PaceAdaptive},
		"raw":        {c.with("Say.Raw", ""), transport.PaceGoroutine},
		"debug":      {c.with("Debug.Stats", ""), transport.PaceGoroutine},
		"an event":   {c.with("", "", transport.HeaderTopic, "events"), transport.PaceAdaptive},
		"no handler": {c.with("Say.Nope", ""), transport.PaceInline},
	} {
		if !reflect.DeepEqual(tt.call.route.Pace, transport.NewPace(tt.mode)) {
			t.Errorf("%s: %+v, want mode %d", name, tt.call.route.Pace, tt.mode)
		}
		if again := c.router(tt.call.req.Header); again.Pace != tt.call.route.Pace {
			t.Errorf("%s: another route has another pace", name)
		}
	}
}

// TestManyRoutes: more headers than the server remembers lead where they should.
func TestManyRoutes(t *testing.T) {
	s := newServer(t)
	_ = server.Handle(s, "Say.Hello", hello)
	c := direct(t, s)
	first := c.with("Say.Hello", `{"name":"x"}`)
	for i := range 5000 {
		d := c.with("Say.Hello", `{"name":"x"}`, "micro-other", strconv.Itoa(i))
		if i%1000 == 0 {
			d.call(0)
			first.call(0)
		}
		for _, d := range []*directCall{d, first} {
			if e := errorOf(&d.rsp); e != nil || i%1000 == 0 && string(d.rsp.Body) != `{"msg":"Hello x"}` {
				t.Fatalf("%s %v", d.rsp.Body, e)
			}
		}
	}
}

// TestKeptByHandlers: contexts and metadata that a handler kept do not change when it has returned, and end with it.
func TestKeptByHandlers(t *testing.T) {
	s := newServer(t)
	var kept sync.WaitGroup
	release := make(chan struct{})
	_ = server.Handle(s, "Say.Hello", hello)
	_ = server.Handle(s, "Say.Keep", func(ctx context.Context, in *Hello) (*Greeting, error) {
		deadline, _ := ctx.Deadline()
		md := metadata.Incoming(ctx)
		if ctx.Err() != nil || md.Get("name") != in.Name {
			t.Errorf("%v %q, want %s", ctx.Err(), md, in.Name)
		}
		kept.Go(func() {
			if len(in.Name)%2 == 0 {
				<-ctx.Done()
			}
			<-release // calls go on meanwhile
			again, _ := ctx.Deadline()
			if !errors.Is(ctx.Err(), context.Canceled) || !again.Equal(deadline) {
				t.Errorf("%s: %v, deadline %v, was %v", in.Name, ctx.Err(), again, deadline)
			}
			if metadata.Incoming(ctx).Get("name") != in.Name || md.Get("name") != in.Name {
				t.Errorf("%s: metadata %q, %q", in.Name, metadata.Incoming(ctx), md)
			}
		})
		return &Greeting{}, nil
	})
	c := direct(t, s)
	d, other := c.with("Say.Keep", ""), c.with("Say.Hello", `{}`)
	for i := range 200 {
		name := strconv.Itoa(i)
		d.values, d.req.Body = &came{metadata.Of("name", name)}, fmt.Appendf(d.req.Body[:0], `{"name":%q}`, name)
		if d.call(time.Minute); errorOf(&d.rsp) != nil {
			t.Fatal(errorOf(&d.rsp))
		}
	}
	close(release)
	for range 200 {
		other.call(time.Minute)
	}
	kept.Wait()
}

// TestHandlerLeftBehind: a handler that its middleware no longer waits for has nothing of the calls that come after it.
func TestHandlerLeftBehind(t *testing.T) {
	var left sync.WaitGroup
	release := make(chan struct{})
	s := newServer(t, server.WithMiddleware(func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) error {
			if c.Endpoint() != "Say.Late" {
				return next(ctx, c)
			}
			left.Go(func() {
				if err := next(ctx, c); err == nil {
					t.Error("the handler that was left behind has sent an answer")
				}
			})
			return status.New(status.HandlerTimeout, "too slow")
		}
	}))
	_ = s.Handle(server.Endpoint{Name: "Say.Late"}, func(_ context.Context, c *server.Call) error {
		<-release
		if _, err := c.RecvRaw(); err == nil {
			t.Error("it received")
		}
		if c.SetHeader("late", "x") == nil || c.SendRaw("", []byte("late")) == nil {
			t.Error("it sent")
		}
		return c.Send(&Greeting{Msg: "late"})
	})
	_ = server.Handle(s, "Say.Hello", hello)
	c := direct(t, s)
	late, d := c.with("Say.Late", ""), c.with("Say.Hello", `{"name":"x"}`)
	for range 50 {
		if late.call(0); errorOf(&late.rsp) == nil || errorOf(&late.rsp).Code != status.HandlerTimeout {
			t.Fatal(errorOf(&late.rsp))
		}
	}
	close(release)
	for range 50 {
		if d.call(0); string(d.rsp.Body) != `{"msg":"Hello x"}` || d.rsp.Header.Len() != 1 {
			t.Fatalf("%q %q", d.rsp.Header, d.rsp.Body)
		}
	}
	left.Wait()
}

// TestDirectEvents: an event that came as a call is its handler's to keep.
func TestDirectEvents(t *testing.T) {
	s := newServer(t)
	var kept []*broker.Message
	_ = s.Subscribe("events", func(ctx context.Context, c *server.Call) error {
		if c.Header().Get("token") != "t1" || c.Remote() != "peer:1" || c.Topic() != "events" || c.Kind() != server.Unary || c.Endpoint() != "events" {
			t.Errorf("%q %s", c.Header(), c.Topic())
		}
		kept = append(kept, c.Message())
		if body, err := c.RecvRaw(); err != nil || string(body) != string(c.Message().Body) {
			t.Errorf("%q %v", body, err)
		}
		if err := c.Send(&Greeting{}); status.CodeOf(err) != status.Unimplemented {
			t.Errorf("an event was answered: %v", err)
		}
		return nil
	})
	_ = server.Subscribe(s, "events", func(_ context.Context, in *Hello) error {
		if in.Name == "" {
			t.Error("nothing came")
		}
		return nil
	})
	d := direct(t, s).with("", "", transport.HeaderTopic, "events", transport.HeaderID, "id-1")
	d.values = &came{metadata.Of("token", "t1")}
	for i := range 3 {
		d.req.Body = fmt.Appendf(d.req.Body[:0], `{"name":"%d"}`, i)
		if d.call(0); errorOf(&d.rsp) != nil || len(d.rsp.Header) > 0 || len(d.rsp.Body) > 0 {
			t.Fatalf("%q %q", d.rsp.Header, d.rsp.Body)
		}
	}
	for i, m := range kept {
		if string(m.Body) != fmt.Sprintf(`{"name":"%d"}`, i) || m.ID != "id-1" || m.Topic != "events" ||
			m.Header.Get("token") != "t1" || m.Header.Get("content-type") != "application/json" || m.Header.Len() != 2 {
			t.Errorf("message %d: %+v", i, m)
		}
	}
}

// TestDirectStats: all calls are counted, also those that are not timed.
func TestDirectStats(t *testing.T) {
	s := newServer(t)
	running, release := make(chan struct{}), make(chan struct{})
	_ = server.Handle(s, "Say.Hello", hello)
	_ = server.Handle(s, "Say.Wait", func(ctx context.Context, _ *Hello) (*Greeting, error) {
		close(running)
		<-release
		return nil, errors.New("x")
	})
	c := direct(t, s)
	d, wait, debug := c.with("Say.Hello", `{}`), c.with("Say.Wait", `{}`), c.with("Debug.Stats", `{}`)
	for range 1000 {
		d.call(0)
	}
	done := make(chan struct{})
	go func() { defer close(done); wait.call(0) }()
	<-running
	var stats server.Stats
	debug.call(0)
	if err := json.Unmarshal(debug.rsp.Body, &stats); err != nil || stats.Calls != 1000 || stats.Inflight != 1 || stats.Endpoints[0].P50 <= 0 {
		t.Errorf("%+v %v", stats, err)
	}
	close(release)
	<-done
	debug.call(0)
	if err := json.Unmarshal(debug.rsp.Body, &stats); err != nil || stats.Calls != 1001 || stats.Inflight != 0 || stats.Errors != 1 {
		t.Errorf("%+v %v", stats, err)
	}
}

// TestDirectDrain: calls of a transport.UnaryServer are waited for, and then cut.
func TestDirectDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, server.ShutdownTimeout(3*time.Second), server.HandlerTimeout(time.Hour))
		running := make(chan struct{}, 2)
		_ = server.Handle(s, "Say.Hang", func(ctx context.Context, _ *Hello) (*Greeting, error) {
			running <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		})
		c := newDirectConn()
		served, cancel := serveDirect(s, c)
		for range 2 {
			go c.with("Say.Hang", `{}`).call(0)
			<-running
		}
		began := time.Now()
		cancel()
		if err := <-served; err == nil || !strings.Contains(err.Error(), "2 calls were cut off") {
			t.Errorf("Serve: %v", err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestDirectFailure: the end of a connection is logged where it was not closed.
func TestDirectFailure(t *testing.T) {
	for _, end := range []error{io.EOF, transport.ErrClosed, errBroken} {
		var log bytes.Buffer
		s, err := server.New("greeter", server.Logger(slog.New(slog.NewTextHandler(&log, nil))))
		if err != nil {
			t.Fatal(err)
		}
		c := newDirectConn()
		c.err = end
		served, cancel := serveDirect(s, c)
		_ = c.Close()
		<-c.left
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if failed := strings.Contains(log.String(), `msg="connection failed" service=greeter remote=peer:1 error=broken`); failed != (end == errBroken) {
			t.Errorf("%v: %s", end, log.String())
		}
	}
}

// halfDirect is a connection whose first message is a stream's.
type halfDirect struct{ transport.Conn }

func (halfDirect) ServeCalls(context.Context, transport.Router) error { return nil }

type halfListener struct{ transport.Listener }

func (l halfListener) Accept() (transport.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return halfDirect{c}, nil
}

// TestStreamOfUnaryServer: a connection that answers calls itself is read for its streams.
func TestStreamOfUnaryServer(t *testing.T) {
	s := newServer(t)
	_ = s.Handle(server.Endpoint{Name: "Say.Echo", Kind: server.Bidi}, func(_ context.Context, c *server.Call) error {
		body, err := c.RecvRaw()
		if err != nil {
			return err
		}
		return c.SendRaw("", body)
	})
	tr := memory.New()
	l, err := tr.Listen(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, halfListener{l}) }()
	c, err := tr.Dial(t.Context(), l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	id := open(t, c, "Say.Echo")
	if err := c.Send(t.Context(), &transport.Message{Kind: transport.Data, ID: id, Body: []byte("hi")}); err != nil {
		t.Fatal(err)
	}
	var m transport.Message
	if next(t, c, &m); string(m.Body) != "hi" {
		t.Errorf("%v %q %v", m.Kind, m.Body, errorOf(&m))
	}
	_ = c.Close()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// Sums has the forms that reflection calls.
type Sums struct{}

func (Sums) Into(_ context.Context, in, out *Sum) error { out.A = in.A + in.B; return nil }

func (Sums) Of(_ context.Context, in *Sum) (*Sum, error) { return &Sum{A: in.A + in.B}, nil }

// BenchmarkServe is the way of a call through this package: route, limits, a middleware, statistics, and a codec that does next
// to nothing. It includes making the context, and a look at the clock for that.
func BenchmarkServe(b *testing.B) {
	for _, bench := range []struct {
		name, endpoint string
		opts           []server.EndpointOption
	}{
		{"into pooled", "Sum.Add", []server.EndpointOption{server.Pooled()}},
		{"into new", "Sum.Add", nil},
		{"register into pooled", "Sums.Into", []server.EndpointOption{server.Pooled()}},
		{"register into new", "Sums.Into", nil},
		{"register returning new", "Sums.Of", nil},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := summing(b, bench.opts...)
			if err := s.Register(Sums{}, server.Method("Into", bench.opts...)); err != nil {
				b.Fatal(err)
			}
			d := direct(b, s).to(bench.endpoint, "application/x-sum", fourPairs())
			d.req.Body, _ = plainCodec{}.Append(nil, &Sum{A: 1, B: 2})
			b.ReportAllocs()
			for b.Loop() {
				d.call(time.Second)
			}
		})
	}
}

func BenchmarkEvent(b *testing.B) {
	s, err := server.New("greeter")
	if err != nil {
		b.Fatal(err)
	}
	_ = s.Subscribe("events", func(_ context.Context, c *server.Call) error {
		_, err := c.RecvRaw()
		return err
	})
	sub := s.Subscriptions()[0]
	m := &broker.Message{Topic: "events", Header: fourPairs(), Body: make([]byte, 128)}
	b.ReportAllocs()
	for b.Loop() {
		if err := sub.Handle(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRoute is what a connection pays for a header that it does not remember.
func BenchmarkRoute(b *testing.B) {
	c := direct(b, summing(b))
	header := c.to("Sum.Add", "application/x-sum", nil).req.Header
	b.ReportAllocs()
	for b.Loop() {
		_ = c.router(header)
	}
}
