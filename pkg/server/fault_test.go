package server_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// open opens a stream and gives its id.
func open(t *testing.T, c transport.Conn, endpoint string) uint32 {
	t.Helper()
	m := call(endpoint, "")
	m.Kind = transport.Open
	if err := c.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m.ID
}

// next receives the next message of a stream behind Opened.
func next(t *testing.T, c transport.Conn, m *transport.Message) {
	t.Helper()
	for {
		if err := c.Recv(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if m.Kind != transport.Opened {
			return
		}
	}
}

// flood sends messages until one is not taken for a second, or max were, and gives their number.
func flood(t *testing.T, c transport.Conn, max int, next func() *transport.Message) (sent int) {
	t.Helper()
	for ; sent < max; sent++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := c.Send(ctx, next())
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return sent
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return sent
}

// TestPeerLeavesBehindUnreadMessages: a handler that does not read learns that its caller has gone, though what tells of
// that stands behind messages for which there is no room.
func TestPeerLeavesBehindUnreadMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		ended := make(chan error, 1)
		_ = server.HandleBidi(s, "Say.Deaf", func(ctx context.Context, _ *server.Stream[Hello, Greeting]) error {
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		})
		c := start(t, s)
		id := open(t, c, "Say.Deaf")
		if n := flood(t, c, 1000, func() *transport.Message { return &transport.Message{Kind: transport.Data, ID: id, Body: []byte("{}")} }); n == 1000 {
			t.Fatal("a handler that does not read makes nobody wait")
		}
		_ = c.Close()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatal("the handler's context goes on")
		}
	})
}

// TestStreamHoldsLittle: what waits for a handler is bounded in bytes too, and is all there when it reads.
func TestStreamHoldsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		release, got := make(chan struct{}), make(chan int, 1)
		_ = s.Handle(server.Endpoint{Name: "Say.Slow", Kind: server.ClientStream}, func(_ context.Context, c *server.Call) error {
			<-release
			n := 0
			for {
				if _, err := c.RecvRaw(); err != nil {
					got <- n
					return nil
				}
				n++
			}
		})
		c := start(t, s)
		id := open(t, c, "Say.Slow")
		body := make([]byte, 1<<20)
		// The memory transport itself holds 16, one is in the inbox, one on its way there.
		sent := flood(t, c, 100, func() *transport.Message { return &transport.Message{Kind: transport.Data, ID: id, Body: body} })
		if sent > 20 {
			t.Errorf("%d messages of 1 MiB were taken", sent)
		}
		close(release)
		if err := c.Send(t.Context(), &transport.Message{Kind: transport.End, ID: id}); err != nil {
			t.Fatal(err)
		}
		if n := <-got; n != sent {
			t.Errorf("the handler got %d of %d messages", n, sent)
		}
	})
}

// TestUnreadAnswers: a peer that sends calls and reads no answers is not read from; nothing is lost when it does.
func TestUnreadAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		_ = server.Handle(s, "Say.Hello", hello)
		c := start(t, s)
		sent := flood(t, c, 1000, func() *transport.Message {
			synctest.Wait() // the handler has returned: how many run is for MaxCalls to bound
			return call("Say.Hello", `{"name":"x"}`)
		})
		// 64 answers wait to be sent, the memory transport holds 16 messages each way, and one is in the reader's hand.
		if sent > 100 {
			t.Errorf("%d calls were taken, and no answer was read", sent)
		}
		for range sent {
			var m transport.Message
			if err := c.Recv(t.Context(), &m); err != nil || string(m.Body) != `{"msg":"Hello x"}` {
				t.Fatalf("%v: %s %v", err, m.Body, errorOf(&m))
			}
		}
	})
}

// TestEventsAsCalls: an event that comes as a call has a call's limits and checks.
func TestEventsAsCalls(t *testing.T) {
	s := newServer(t, server.MaxCalls(1))
	running, release := make(chan struct{}), make(chan struct{})
	_ = server.Subscribe(s, "slow", func(context.Context, *Hello) error {
		running <- struct{}{}
		<-release
		return nil
	})
	_ = server.Subscribe(s, "panics", func(context.Context, *Hello) error { panic("secret") })
	c := start(t, s)
	if e := errorOf(exchange(t, c, call("", `{}`, transport.HeaderTopic, "slow", transport.HeaderService, "orders"))); e == nil || e.Code != status.Misdirected || !e.Refused {
		t.Errorf("for another service: %v", e)
	}
	if e := errorOf(exchange(t, c, call("", `{}`, transport.HeaderTopic, "panics"))); e == nil || e.Code != status.Internal || strings.Contains(e.Detail, "secret") {
		t.Errorf("a panic: %v", e)
	}
	if err := c.Send(t.Context(), call("", `{}`, transport.HeaderTopic, "slow")); err != nil {
		t.Fatal(err)
	}
	<-running
	if e := errorOf(exchange(t, c, call("", `{}`, transport.HeaderTopic, "slow"))); e == nil || e.Code != status.ResourceExhausted || !e.Refused {
		t.Errorf("beyond the limit: %v", e)
	}
	s.Stop()
	if e := errorOf(exchange(t, c, call("", `{}`, transport.HeaderTopic, "slow"))); e == nil || e.Code != status.Unavailable || !e.Refused {
		t.Errorf("while stopping: %v", e)
	}
	close(release)
	var rsp transport.Message
	if err := c.Recv(t.Context(), &rsp); err != nil || errorOf(&rsp) != nil {
		t.Errorf("the first event: %v %v", err, errorOf(&rsp))
	}
}

// TestStopping: a server that stops refuses calls, and still tells how it is.
func TestStopping(t *testing.T) {
	s := newServer(t)
	_ = server.Handle(s, "Say.Hello", hello)
	c := start(t, s)
	s.Stop()
	if e := errorOf(exchange(t, c, call("Say.Hello", `{}`))); e == nil || e.Code != status.Unavailable || !e.Refused {
		t.Errorf("a call: %v", e)
	}
	if rsp := exchange(t, c, call("Debug.Health", `{}`)); string(rsp.Body) != `{"status":"stopping"}` {
		t.Errorf("Debug.Health: %s %v", rsp.Body, errorOf(rsp))
	}
}

func TestMaxStreams(t *testing.T) {
	s := newServer(t, server.MaxStreams(1), server.MaxCalls(1))
	_ = server.Handle(s, "Say.Hello", hello)
	running := make(chan struct{}, 1)
	_ = server.HandleBidi(s, "Say.Chat", func(_ context.Context, st *server.Stream[Hello, Greeting]) error {
		running <- struct{}{}
		for _, err := range st.All() {
			if err != nil {
				return err
			}
		}
		return nil
	})
	conns := dialed(t, s, 2)
	first, second := conns[0], conns[1]
	id := open(t, first, "Say.Chat")
	<-running
	open(t, second, "Say.Chat")
	var m transport.Message
	if err := second.Recv(t.Context(), &m); err != nil || m.Kind != transport.End {
		t.Fatalf("%v %v", m.Kind, err)
	}
	if e := errorOf(&m); e == nil || e.Code != status.ResourceExhausted || !e.Refused {
		t.Errorf("beyond the limit: %v", e)
	}
	if rsp := exchange(t, second, call("Say.Hello", `{"name":"x"}`)); errorOf(rsp) != nil {
		t.Errorf("a call beside as many streams as there may be: %v", errorOf(rsp))
	}
	if err := first.Send(t.Context(), &transport.Message{Kind: transport.End, ID: id}); err != nil {
		t.Fatal(err)
	}
	if next(t, first, &m); m.Kind != transport.End || errorOf(&m) != nil {
		t.Errorf("the first stream: %v %v", m.Kind, errorOf(&m))
	}
}

// TestTimes: the options that bound a handler's time.
func TestTimes(t *testing.T) {
	for name, tt := range map[string]struct {
		timeout time.Duration
		opts    []server.Option
		want    time.Duration
		runs    bool
	}{
		"the default":           {0, nil, server.DefaultHandlerTimeout, true},
		"HandlerTimeout":        {0, []server.Option{server.HandlerTimeout(time.Second)}, time.Second, true},
		"the caller's":          {time.Minute, []server.Option{server.HandlerTimeout(time.Second)}, time.Minute, true},
		"longer than is waited": {time.Hour, nil, server.DefaultMaxTimeout, true},
		"MaxTimeout":            {time.Hour, []server.Option{server.MaxTimeout(time.Second)}, time.Second, true},
		"a caller without time": {1, nil, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, tt.opts...)
			got := make(chan time.Duration, 1)
			_ = server.Handle(s, "Say.Time", func(ctx context.Context, _ *Hello) (*Greeting, error) {
				deadline, _ := ctx.Deadline()
				got <- time.Until(deadline)
				return nil, nil
			})
			m := call("Say.Time", `{}`)
			m.Timeout = tt.timeout
			e := errorOf(exchange(t, start(t, s), m))
			if !tt.runs {
				if e == nil || e.Code != status.DeadlineExceeded || !e.Refused || len(got) > 0 {
					t.Errorf("error %v, ran %d times", e, len(got))
				}
				return
			}
			if d := <-got; e != nil || d > tt.want || d < tt.want-10*time.Second {
				t.Errorf("the handler had %v, want %v; error %v", d, tt.want, e)
			}
		})
	}
}

// TestShutdownTimeout: a handler that goes on too long has its context ended, and Serve tells.
func TestShutdownTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, server.ShutdownTimeout(3*time.Second), server.HandlerTimeout(time.Hour))
		running := make(chan struct{})
		_ = server.Handle(s, "Say.Hang", func(ctx context.Context, _ *Hello) (*Greeting, error) {
			close(running)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		l, dial := listen(t)
		stop := serve(s, l)
		c := dial()
		defer c.Close()
		if err := c.Send(t.Context(), call("Say.Hang", `{}`)); err != nil {
			t.Fatal(err)
		}
		<-running
		began := time.Now()
		if err := stop(); err == nil || !strings.Contains(err.Error(), "1 calls were cut off") {
			t.Errorf("Serve: %v", err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestPanics: wherever a panic comes from, it is the error of that caller alone.
func TestPanics(t *testing.T) {
	bad := func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) error {
			if c.Header().Get("middleware") != "" {
				panic("secret")
			}
			return next(ctx, c)
		}
	}
	s := newServer(t, server.WithMiddleware(bad))
	_ = server.Handle(s, "Say.Hello", hello)
	_ = server.HandleBidi(s, "Say.Chat", func(context.Context, *server.Stream[Hello, Greeting]) error { panic("secret") })
	_ = s.Handle(server.Endpoint{Name: "Say.Bad"}, func(_ context.Context, c *server.Call) error { return c.Send(badJSON{}) })
	c := start(t, s)
	id := open(t, c, "Say.Chat")
	var m transport.Message
	if next(t, c, &m); m.Kind != transport.End || m.ID != id {
		t.Fatalf("%v", m.Kind)
	}
	for name, e := range map[string]*status.Error{
		"stream":     errorOf(&m),
		"middleware": errorOf(exchange(t, c, call("Say.Hello", `{}`, "middleware", "x"))),
		"codec":      errorOf(exchange(t, c, call("Say.Bad", `{}`))),
	} {
		if e == nil || e.Code != status.Internal || strings.Contains(e.Detail, "secret") {
			t.Errorf("%s: %v", name, e)
		}
	}
	if e := errorOf(exchange(t, c, call("Say.Hello", `{}`))); e != nil {
		t.Errorf("the next call: %v", e)
	}
}

type badJSON struct{}

func (badJSON) MarshalJSON() ([]byte, error) { panic("secret") }

// TestCallBesideStream: a connection that a stream owns carries no call.
func TestCallBesideStream(t *testing.T) {
	s := newServer(t)
	var ended atomic.Bool
	_ = server.Handle(s, "Say.Hello", hello)
	running, done := make(chan struct{}), make(chan struct{})
	_ = server.HandleBidi(s, "Say.Chat", func(_ context.Context, st *server.Stream[Hello, Greeting]) error {
		defer close(done)
		close(running)
		_, err := st.Recv()
		ended.Store(err != nil && !errors.Is(err, io.EOF))
		return err
	})
	c := start(t, s)
	open(t, c, "Say.Chat")
	<-running
	if err := c.Send(t.Context(), call("Say.Hello", `{}`)); err != nil {
		t.Fatal(err)
	}
	for {
		var m transport.Message
		err := c.Recv(t.Context(), &m)
		if err == nil && m.Kind == transport.Reply {
			t.Fatal("the call was answered")
		}
		if err != nil {
			break
		}
	}
	<-done
	if !ended.Load() {
		t.Error("the handler was not told that its connection is gone")
	}
}

// TestHandlerKeepsWhatItGot: what a handler was given does not change under it when it has returned.
func TestHandlerKeepsWhatItGot(t *testing.T) {
	s := newServer(t)
	var bodies [][]byte
	_ = s.Handle(server.Endpoint{Name: "Say.Keep"}, func(_ context.Context, c *server.Call) error {
		body, err := c.RecvRaw()
		if err != nil {
			return err
		}
		bodies = append(bodies, body, c.Header())
		return c.Send(&Greeting{})
	})
	c := start(t, s)
	for _, v := range []string{"aaaa", "bbbb", "cccc"} {
		if e := errorOf(exchange(t, c, call("Say.Keep", v, "key", v))); e != nil {
			t.Fatal(e)
		}
	}
	for i, v := range []string{"aaaa", "bbbb", "cccc"} {
		if string(bodies[2*i]) != v || !strings.Contains(string(bodies[2*i+1]), v) {
			t.Errorf("call %d: %q %q", i, bodies[2*i], bodies[2*i+1])
		}
	}
}

// TestEventOfAnUnknownContentType: a typed subscriber says that it cannot read it, one that takes bytes does.
func TestEventOfAnUnknownContentType(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	_ = server.Subscribe(s, "topic", func(context.Context, *Hello) error { return nil })
	_ = s.Subscribe("topic", func(_ context.Context, c *server.Call) error {
		if body, err := c.RecvRaw(); err != nil || string(body) != "<x/>" || c.ContentType() != "application/xml" {
			t.Errorf("got %q of %s, %v", body, c.ContentType(), err)
		}
		return nil
	})
	m := &broker.Message{Topic: "topic", Header: metadata.Of("content-type", "application/xml"), Body: []byte("<x/>")}
	if err := s.Subscriptions()[0].Handle(t.Context(), m); status.CodeOf(err) != status.UnsupportedMedia {
		t.Errorf("typed: %v", err)
	}
	if err := s.Subscriptions()[1].Handle(t.Context(), m); err != nil {
		t.Errorf("bytes: %v", err)
	}
}
