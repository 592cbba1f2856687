package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type Hello struct {
	Name string `json:"name" doc:"who to greet"`
}

type Greeting struct {
	Msg string `json:"msg"`
}

func hello(_ context.Context, in *Hello) (*Greeting, error) {
	return &Greeting{Msg: "Hello " + in.Name}, nil
}

// listen gives a listener of an in-memory transport, and what dials it.
func listen(t testing.TB) (l transport.Listener, dial func() transport.Conn) {
	t.Helper()
	tr := memory.New()
	l, err := tr.Listen(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return l, func() transport.Conn {
		t.Helper()
		c, err := tr.Dial(t.Context(), l.Addr())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

// serve serves s on l until stop is called, which gives what Serve returned.
func serve(s *server.Server, l transport.Listener) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	return func() error { cancel(); return <-served }
}

// dialed serves s on an in-memory transport until the test ends, and gives n connections to it.
func dialed(t *testing.T, s *server.Server, n int) []transport.Conn {
	t.Helper()
	l, dial := listen(t)
	stop := serve(s, l)
	conns := make([]transport.Conn, n)
	for i := range conns {
		conns[i] = dial()
	}
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return conns
}

// start is dialed for who needs one connection.
func start(t *testing.T, s *server.Server) transport.Conn {
	t.Helper()
	return dialed(t, s, 1)[0]
}

func newServer(t *testing.T, opts ...server.Option) *server.Server {
	t.Helper()
	s, err := server.New("greeter", append(opts, server.Logger(slog.New(slog.NewTextHandler(t.Output(), nil))))...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nextID numbers the calls of all tests: a connection's ids are used once.
var nextID atomic.Uint32

func call(endpoint, body string, header ...string) *transport.Message {
	header = append([]string{transport.HeaderEndpoint, endpoint, transport.HeaderContentType, "application/json"}, header...)
	return &transport.Message{Kind: transport.Call, ID: nextID.Add(1), Header: metadata.Of(header...), Body: []byte(body)}
}

// exchange sends a call and gives its reply.
func exchange(t *testing.T, c transport.Conn, m *transport.Message) *transport.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Send(ctx, m); err != nil {
		t.Fatal(err)
	}
	var rsp transport.Message
	if err := c.Recv(ctx, &rsp); err != nil {
		t.Fatal(err)
	}
	return &rsp
}

func errorOf(m *transport.Message) *status.Error {
	return status.Parse(m.Header.Get(transport.HeaderError))
}

func TestUnary(t *testing.T) {
	s := newServer(t)
	if err := server.Handle(s, "Say.Hello", hello); err != nil {
		t.Fatal(err)
	}
	c := start(t, s)
	rsp := exchange(t, c, call("Say.Hello", `{"name":"x"}`, transport.HeaderService, "greeter"))
	if got := string(rsp.Body); got != `{"msg":"Hello x"}` {
		t.Errorf("body %s, error %v", got, errorOf(rsp))
	}
	if got := rsp.Header.Get(transport.HeaderContentType); got != "application/json" {
		t.Errorf("content type %q", got)
	}
}

func TestErrors(t *testing.T) {
	s := newServer(t)
	_ = server.Handle(s, "Say.Hello", hello)
	_ = server.Handle(s, "Say.Panic", func(context.Context, *Hello) (*Greeting, error) { panic("secret") })
	_ = server.Handle(s, "Say.Plain", func(context.Context, *Hello) (*Greeting, error) { return nil, errors.New("secret") })
	_ = server.Handle(s, "Say.Status", func(context.Context, *Hello) (*Greeting, error) {
		return nil, status.New(status.AlreadyExists, "taken\n%s", strings.Repeat("é", 5000))
	})
	_ = server.Handle(s, "Say.Remote", func(context.Context, *Hello) (*Greeting, error) {
		return nil, status.Parse(`{"id":"other","code":403,"detail":"theirs"}`)
	})
	_ = server.HandleBidi(s, "Say.Chat", func(context.Context, *server.Stream[Hello, Greeting]) error { return nil })
	c := start(t, s)
	tests := []struct {
		name    string
		call    *transport.Message
		code    status.Code
		detail  string
		refused bool
	}{
		{"unknown endpoint", call("Say.Nope", `{}`), status.NotFound, `no endpoint "Say.Nope"`, true},
		{"another service", call("Say.Hello", `{}`, transport.HeaderService, "orders"), status.Misdirected, "not orders", true},
		{"not JSON", call("Say.Hello", `{"name":`), status.InvalidArgument, "does not decode", false},
		{"wrong type", call("Say.Hello", `{"name":3}`), status.InvalidArgument, "name", false},
		{"unknown field", call("Say.Hello", `{"nme":"x"}`), status.InvalidArgument, "nme", false},
		{"content type", &transport.Message{Kind: transport.Call, ID: nextID.Add(1), Body: []byte("x"), Header: metadata.Of(
			transport.HeaderEndpoint, "Say.Hello", transport.HeaderContentType, "text/x")}, status.UnsupportedMedia, "application/json", false},
		{"no content type", &transport.Message{Kind: transport.Call, ID: nextID.Add(1), Body: []byte("x"), Header: metadata.Of(
			transport.HeaderEndpoint, "Say.Hello")}, status.UnsupportedMedia, "no content type", false},
		{"panic", call("Say.Panic", `{}`), status.Internal, "panicked", false},
		{"plain error", call("Say.Plain", `{}`), status.Internal, "the handler failed", false},
		{"long status", call("Say.Status", `{}`), status.AlreadyExists, "taken", false},
		{"a peer's error", call("Say.Remote", `{}`), status.Internal, "the handler failed", false},
		{"a stream called", call("Say.Chat", `{}`), status.Unimplemented, "stream", false},
		{"no subscriber", call("", `{}`, transport.HeaderTopic, "t"), status.NotFound, "no subscriber", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := errorOf(exchange(t, c, tt.call))
			if e == nil || e.Code != tt.code || !strings.Contains(e.Detail, tt.detail) || e.Refused != tt.refused {
				t.Fatalf("got %+v, want code %d with %q, refused %v", e, tt.code, tt.detail, tt.refused)
			}
			if strings.Contains(e.Detail, "secret") {
				t.Errorf("the handler's own text reached the caller: %v", e)
			}
			if e.ID != "greeter" {
				t.Errorf("id %q", e.ID)
			}
		})
	}
}

func TestDeadlineAndCancel(t *testing.T) {
	s := newServer(t)
	ended, running := make(chan error, 1), make(chan struct{}, 2)
	_ = server.Handle(s, "Say.Wait", func(ctx context.Context, _ *Hello) (*Greeting, error) {
		running <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	c := start(t, s)
	m := call("Say.Wait", `{}`)
	m.Timeout = 20 * time.Millisecond
	if e := errorOf(exchange(t, c, m)); e == nil || e.Code != status.DeadlineExceeded {
		t.Errorf("after the deadline: %v", e)
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("handler's context: %v", err)
	}
	<-running
	m = call("Say.Wait", `{}`)
	if err := c.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	<-running
	e := errorOf(exchange(t, c, &transport.Message{Kind: transport.Cancel, ID: m.ID}))
	if e == nil || e.Code != status.Canceled {
		t.Errorf("after the cancel: %v", e)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("handler's context: %v", err)
	}
}

func TestLimits(t *testing.T) {
	s := newServer(t, server.MaxCalls(1))
	running, release := make(chan struct{}), make(chan struct{})
	_ = server.Handle(s, "Say.Wait", func(context.Context, *Hello) (*Greeting, error) {
		running <- struct{}{}
		<-release
		return nil, nil
	})
	c := start(t, s)
	first := call("Say.Wait", `{}`)
	if err := c.Send(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	<-running
	e := errorOf(exchange(t, c, call("Say.Wait", `{}`)))
	if e == nil || e.Code != status.ResourceExhausted || !e.Refused {
		t.Errorf("beyond the limit: %+v", e)
	}
	if rsp := exchange(t, c, call("Debug.Health", `{}`)); string(rsp.Body) != `{"status":"ok"}` {
		t.Errorf("Debug.Health of a full server: %s %v", rsp.Body, errorOf(rsp))
	}
	close(release)
	var rsp transport.Message
	if err := c.Recv(t.Context(), &rsp); err != nil || rsp.ID != first.ID || errorOf(&rsp) != nil {
		t.Errorf("the first call: %v %v", err, errorOf(&rsp))
	}
}

func TestMetadata(t *testing.T) {
	s := newServer(t)
	got := make(chan metadata.MD, 1)
	_ = s.Handle(server.Endpoint{Name: "Say.Raw"}, func(ctx context.Context, c *server.Call) error {
		got <- metadata.Incoming(ctx)
		for _, key := range []string{"micro-error", "Micro-Error", "Content-Type"} {
			if err := c.SetHeader(key, "x"); !errors.Is(err, metadata.ErrInvalid) {
				t.Errorf("the reserved header %s: %v", key, err)
			}
		}
		if err := c.SetHeader("trace", "42"); err != nil {
			t.Error(err)
		}
		return c.SendRaw("text/plain", []byte("hi"))
	})
	c := start(t, s)
	rsp := exchange(t, c, call("Say.Raw", ``, "token", "t1", "micro-from", "forged"))
	if rsp.Header.Get("trace") != "42" || rsp.Header.Get(transport.HeaderContentType) != "text/plain" || string(rsp.Body) != "hi" {
		t.Errorf("reply %s %q", rsp.Header, rsp.Body)
	}
	if md := <-got; md.Get("token") != "t1" || md.Len() != 1 {
		t.Errorf("incoming metadata %q", md)
	}
}

func TestStreams(t *testing.T) {
	s := newServer(t)
	_ = server.HandleServerStream(s, "Say.Count", func(_ context.Context, in *Hello, out *server.Sender[Greeting]) error {
		for range len(in.Name) {
			if err := out.Send(&Greeting{Msg: in.Name}); err != nil {
				return err
			}
		}
		return status.New(status.AlreadyExists, "the end")
	})
	_ = server.HandleClientStream(s, "Say.Join", func(_ context.Context, in *server.Receiver[Hello]) (*Greeting, error) {
		var names []string
		for m, err := range in.All() {
			if err != nil {
				return nil, err
			}
			names = append(names, m.Name)
		}
		return &Greeting{Msg: strings.Join(names, "+")}, nil
	})
	_ = server.HandleBidi(s, "Say.Chat", func(_ context.Context, st *server.Stream[Hello, Greeting]) error {
		for {
			in, err := st.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := st.Send(&Greeting{Msg: in.Name}); err != nil {
				return err
			}
		}
	})
	c := start(t, s)
	tests := []struct {
		endpoint string
		send     []string
		want     []string
		code     status.Code
	}{
		{"Say.Count", []string{`{"name":"abc"}`}, []string{`{"msg":"abc"}`, `{"msg":"abc"}`, `{"msg":"abc"}`}, status.AlreadyExists},
		{"Say.Count", nil, nil, status.InvalidArgument},
		{"Say.Join", []string{`{"name":"a"}`, `{"name":"b"}`}, []string{`{"msg":"a+b"}`}, 0},
		{"Say.Join", []string{`{"name":"a"}`, `nonsense`}, nil, status.InvalidArgument},
		{"Say.Chat", []string{`{"name":"a"}`, `{"name":"b"}`}, []string{`{"msg":"a"}`, `{"msg":"b"}`}, 0},
		{"Say.Nope", nil, nil, status.NotFound},
	}
	for _, tt := range tests { // one after another on the same connection
		id := nextID.Add(1)
		send := func(k transport.Kind, body string) {
			t.Helper()
			m := call(tt.endpoint, body)
			m.Kind, m.ID = k, id
			if err := c.Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		send(transport.Open, "")
		for _, body := range tt.send {
			send(transport.Data, body)
		}
		send(transport.End, "")
		var got []string
		opened := false
		for {
			var m transport.Message
			if err := c.Recv(t.Context(), &m); err != nil {
				t.Fatal(err)
			}
			if m.Kind == transport.Opened {
				if tt.endpoint == "Say.Nope" || len(got) > 0 {
					t.Errorf("%s: opened after %q", tt.endpoint, got)
				}
				opened = true
				continue
			}
			if m.Kind == transport.End {
				if opened != (tt.endpoint != "Say.Nope") {
					t.Errorf("%s: opened %v", tt.endpoint, opened)
				}
				if e := errorOf(&m); (e == nil) != (tt.code == 0) || e != nil && e.Code != tt.code {
					t.Errorf("%s ended with %v, want %d", tt.endpoint, e, tt.code)
				}
				break
			}
			got = append(got, string(m.Body))
		}
		if strings.Join(got, " ") != strings.Join(tt.want, " ") {
			t.Errorf("%s: got %q, want %q", tt.endpoint, got, tt.want)
		}
	}
}

func TestBreachOfProtocol(t *testing.T) {
	for name, m := range map[string]*transport.Message{
		"data without a stream": {Kind: transport.Data, ID: 9},
		"a client's reply":      {Kind: transport.Reply, ID: 9},
		"an unknown kind":       {Kind: 77, ID: 9},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, newServer(t))
			if err := c.Send(t.Context(), m); err != nil {
				return // the transport refuses it already
			}
			if err := c.Recv(t.Context(), new(transport.Message)); !errors.Is(err, io.EOF) {
				t.Errorf("the connection goes on: %v", err)
			}
		})
	}
}

func TestRegistration(t *testing.T) {
	ok := func(context.Context, *server.Call) error { return nil }
	tests := []struct {
		name string
		with func(s *server.Server) error
		want string
	}{
		{"Debug is kept", func(s *server.Server) error { return s.Handle(server.Endpoint{Name: "Debug.Mine"}, ok) }, "Debug"},
		{"twice", func(s *server.Server) error {
			_ = s.Handle(server.Endpoint{Name: "A.B"}, ok)
			return s.Handle(server.Endpoint{Name: "A.B"}, ok)
		}, "twice"},
		{"bad name", func(s *server.Server) error { return s.Handle(server.Endpoint{Name: "A/B"}, ok) }, "letters"},
		{"no handler", func(s *server.Server) error { return s.Handle(server.Endpoint{Name: "A.B"}, nil) }, "no handler"},
		{"no typed handler", func(s *server.Server) error { return server.Handle[Hello, Greeting](s, "A.B", nil) }, "no handler"},
		{"no server stream", func(s *server.Server) error { return server.HandleServerStream[Hello, Greeting](s, "A.B", nil) }, "no handler"},
		{"no client stream", func(s *server.Server) error { return server.HandleClientStream[Hello, Greeting](s, "A.B", nil) }, "no handler"},
		{"no bidi stream", func(s *server.Server) error { return server.HandleBidi[Hello, Greeting](s, "A.B", nil) }, "no handler"},
		{"no subscriber", func(s *server.Server) error { return server.Subscribe[Hello](s, "topic", nil) }, "no handler"},
		{"kind", func(s *server.Server) error { return s.Handle(server.Endpoint{Name: "A.B", Kind: "x"}, ok) }, "unknown kind"},
		{"idempotent stream", func(s *server.Server) error {
			return s.Handle(server.Endpoint{Name: "A.B", Kind: server.Bidi, Idempotent: true}, ok)
		}, "idempotent"},
		{"topic", func(s *server.Server) error { return s.Subscribe("a b", ok) }, "topic"},
		{"queue", func(s *server.Server) error { return s.Subscribe("a", ok, broker.Queue("a b")) }, "queue"},
		{"form", func(s *server.Server) error { return s.Register(new(Wrong)) }, "method Bad"},
		{"no methods", func(s *server.Server) error { return s.Register(struct{}{}) }, "no exported methods"},
		{"nil", func(s *server.Server) error { return s.Register(nil) }, "no receiver"},
		{"skip of nothing", func(s *server.Server) error { return s.Register(new(Say), server.Skip("Nope")) }, "Nope"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			if err := tt.with(s); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			l, _ := listen(t)
			if err := s.Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Serve: %v, want %q", err, tt.want)
			}
		})
	}
}

type Wrong struct{}

func (*Wrong) Bad(string) error { return nil }

type Say struct{}

func (*Say) Hello(_ context.Context, in *Hello, out *Greeting) error {
	out.Msg = "Hello " + in.Name
	return nil
}

func (*Say) Hi(_ context.Context, in *Hello) (*Greeting, error) {
	return &Greeting{Msg: "Hi " + in.Name}, nil
}

func (*Say) Count(_ context.Context, in *Hello, out *server.Sender[Greeting]) error {
	return out.Send(&Greeting{Msg: in.Name})
}

func (*Say) Join(_ context.Context, in *server.Receiver[Hello]) (*Greeting, error) {
	m, err := in.Recv()
	if err != nil {
		return nil, err
	}
	return &Greeting{Msg: m.Name}, nil
}

func (*Say) Chat(_ context.Context, st *server.Stream[Hello, Greeting]) error {
	m, err := st.Recv()
	if err != nil {
		return err
	}
	return st.Send(&Greeting{Msg: m.Name})
}

func (*Say) Close() {}

func TestRegisterStruct(t *testing.T) {
	s := newServer(t)
	err := s.Register(new(Say), server.Skip("Close"), server.Method("Hi", server.Idempotent(), server.Doc("Says hi.")))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]server.Kind{}
	for _, e := range s.Endpoints() {
		kinds[e.Name] = e.Kind
		if e.Name == "Say.Hi" && (!e.Idempotent || e.Doc == "" || e.RequestType != "Hello" || e.Request == nil) {
			t.Errorf("Say.Hi: %+v", e)
		}
	}
	want := map[string]server.Kind{"Say.Hello": "unary", "Say.Hi": "unary", "Say.Count": "server", "Say.Join": "client", "Say.Chat": "bidi"}
	for name, kind := range want {
		if kinds[name] != kind {
			t.Errorf("%s is %q, want %q", name, kinds[name], kind)
		}
	}
	c := start(t, s)
	for name, want := range map[string]string{"Say.Hello": "Hello x", "Say.Hi": "Hi x"} {
		if rsp := exchange(t, c, call(name, `{"name":"x"}`)); string(rsp.Body) != `{"msg":"`+want+`"}` {
			t.Errorf("%s: %s %v", name, rsp.Body, errorOf(rsp))
		}
	}
}

// Receivers of every shape, each with both forms.
type (
	byPointer struct {
		Mark string // before what is embedded
		Tally
	}
	byValue struct{ greeting, mark string }
	byMap   map[string]string
	byFunc  func(name string) string
	// Tally is embedded: its methods are promoted.
	Tally struct{ calls int }
)

func (t *Tally) Fill(_ context.Context, req *Hello, rsp *Greeting) error {
	t.calls++
	rsp.Msg = fmt.Sprint(req.Name, " ", t.calls)
	return nil
}

func (t *Tally) Return(_ context.Context, req *Hello) (*Greeting, error) {
	if t.calls++; req.Name == "nobody" {
		return nil, nil
	}
	return &Greeting{Msg: fmt.Sprint(req.Name, " ", t.calls)}, nil
}

func (v byValue) Fill(_ context.Context, req *Hello, rsp *Greeting) error {
	rsp.Msg = v.greeting + req.Name + v.mark
	return nil
}

func (v byValue) Return(_ context.Context, req *Hello) (*Greeting, error) {
	if req.Name == "nobody" {
		return nil, status.New(status.NotFound, "%s is not here", req.Name)
	}
	return &Greeting{Msg: v.greeting + req.Name + v.mark}, nil
}

func (m byMap) Fill(_ context.Context, req *Hello, rsp *Greeting) error {
	rsp.Msg = m[req.Name]
	return nil
}

func (f byFunc) Return(_ context.Context, req *Hello) (*Greeting, error) {
	return &Greeting{Msg: f(req.Name)}, nil
}

func TestRegisterReceivers(t *testing.T) {
	s := newServer(t)
	for name, rcvr := range map[string]any{
		"Pointer":  &byPointer{},
		"Value":    byValue{"Hello ", "!"},
		"ToValue":  &byValue{"Hi ", "?"},
		"Map":      byMap{"x": "is mapped"},
		"Function": byFunc(strings.ToUpper),
	} {
		if err := s.Register(rcvr, server.Named(name)); err != nil {
			t.Fatal(err)
		}
	}
	c := start(t, s)
	for _, tt := range []struct{ endpoint, name, want string }{
		{"Pointer.Fill", "x", `{"msg":"x 1"}`},
		{"Pointer.Return", "x", `{"msg":"x 2"}`},
		{"Pointer.Return", "nobody", `{"msg":""}`},
		{"Value.Fill", "x", `{"msg":"Hello x!"}`},
		{"Value.Return", "x", `{"msg":"Hello x!"}`},
		{"Value.Return", "nobody", ""},
		{"ToValue.Fill", "x", `{"msg":"Hi x?"}`},
		{"ToValue.Return", "x", `{"msg":"Hi x?"}`},
		{"Map.Fill", "x", `{"msg":"is mapped"}`},
		{"Function.Return", "x", `{"msg":"X"}`},
	} {
		rsp := exchange(t, c, call(tt.endpoint, `{"name":"`+tt.name+`"}`))
		if string(rsp.Body) != tt.want || (errorOf(rsp) != nil) != (tt.want == "") {
			t.Errorf("%s of %s: %s %v, want %s", tt.endpoint, tt.name, rsp.Body, errorOf(rsp), tt.want)
		}
	}
}

func TestDebug(t *testing.T) {
	s := newServer(t, server.Version("1.2.3"), server.NodeID("greeter-1"))
	_ = server.Handle(s, "Say.Hello", hello, server.Idempotent())
	_ = server.Subscribe(s, "topic", func(context.Context, *Hello) error { return nil }, broker.Queue("q"))
	c := start(t, s)
	exchange(t, c, call("Say.Hello", `{"name":"x"}`))
	exchange(t, c, call("Say.Hello", `{`))
	var info server.Info
	if err := json.Unmarshal(exchange(t, c, call("Debug.Info", `{}`)).Body, &info); err != nil {
		t.Fatal(err)
	}
	if info.Name != "greeter" || info.Version != "1.2.3" || info.ID != "greeter-1" || len(info.Endpoints) != 1 || len(info.Subscriptions) != 1 {
		t.Errorf("info %+v", info)
	}
	var stats server.Stats
	if err := json.Unmarshal(exchange(t, c, call("Debug.Stats", `{}`)).Body, &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Calls != 2 || stats.Errors != 1 || stats.Inflight != 0 || stats.Endpoints[0].P99 <= 0 || stats.Endpoints[0].P99 > stats.Endpoints[0].Max {
		t.Errorf("stats %+v", stats)
	}
}

func TestSubscription(t *testing.T) {
	s := newServer(t, server.WithMiddleware(func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) error {
			if c.Topic() == "" || c.Message() == nil {
				t.Error("middleware does not see an event")
			}
			return next(ctx, c)
		}
	}))
	_ = server.Subscribe(s, "topic", func(_ context.Context, in *Hello) error {
		switch in.Name {
		case "panic":
			panic("x")
		case "fail":
			return errors.New("secret")
		}
		return nil
	})
	sub := s.Subscriptions()[0]
	for body, code := range map[string]status.Code{
		`{"name":"x"}`: 0, `{"name":"panic"}`: status.Internal, `{"name":"fail"}`: status.Internal, `{`: status.InvalidArgument,
	} {
		m := &broker.Message{Topic: "topic", Header: metadata.Of("content-type", "application/json"), Body: []byte(body)}
		if err := sub.Handle(t.Context(), m); status.CodeOf(err) != code {
			t.Errorf("%s: %v, want %d", body, err, code)
		}
	}
}

func TestDrain(t *testing.T) {
	s := newServer(t)
	running := make(chan struct{})
	_ = server.Handle(s, "Say.Slow", func(ctx context.Context, _ *Hello) (*Greeting, error) {
		close(running)
		<-time.After(50 * time.Millisecond)
		return &Greeting{Msg: "late"}, ctx.Err()
	})
	l, dial := listen(t)
	stop := serve(s, l)
	c := dial()
	defer c.Close()
	if err := c.Send(t.Context(), call("Say.Slow", `{}`)); err != nil {
		t.Fatal(err)
	}
	<-running
	served := make(chan error, 1)
	go func() { served <- stop() }()
	for {
		var rsp transport.Message
		if err := c.Recv(t.Context(), &rsp); err != nil {
			t.Fatalf("the call under way was cut: %v", err)
		}
		if rsp.Kind == transport.Reply {
			if string(rsp.Body) != `{"msg":"late"}` {
				t.Errorf("reply %s %v", rsp.Body, errorOf(&rsp))
			}
			break
		}
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
