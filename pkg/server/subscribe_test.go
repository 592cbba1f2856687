package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/server"
)

// eventsOf registers h and gives what hands it a message with that body.
func eventsOf(t *testing.T, h server.Handler) func(ctx context.Context, body string) error {
	t.Helper()
	s := newServer(t)
	if err := s.Subscribe("topic", h); err != nil {
		t.Fatal(err)
	}
	sub := s.Subscriptions()[0]
	return func(ctx context.Context, body string) error {
		return sub.Handle(ctx, &broker.Message{Topic: "topic", Header: metadata.Of("body", body), Body: []byte(body)})
	}
}

type parentKey struct{}

// TestEventContexts: a message's context carries what came with it, ends when its handler has returned, and is no other
// message's.
func TestEventContexts(t *testing.T) {
	t.Parallel()
	var kept []context.Context
	var done []<-chan struct{}
	after := make(chan struct{})
	handle := eventsOf(t, func(ctx context.Context, c *server.Call) error {
		body, err := c.RecvRaw()
		switch string(body) {
		case "done":
			done = append(done, ctx.Done())
		case "after":
			context.AfterFunc(ctx, func() { close(after) })
		case "panic":
			panic("x")
		}
		if ctx.Err() != nil {
			t.Errorf("%s: %v while the handler runs", body, ctx.Err())
		}
		kept = append(kept, ctx)
		return err
	})
	parent, cancel := context.WithTimeout(context.WithValue(t.Context(), parentKey{}, "parent's"), time.Hour)
	defer cancel()
	bodies := []string{"plain", "done", "plain", "after"}
	for _, body := range bodies {
		if err := handle(parent, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := handle(parent, "panic"); err == nil {
		t.Error("a panic is no error")
	}
	<-done[0]
	<-after
	want, _ := parent.Deadline()
	for i, ctx := range kept {
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("%d: %v after the handler has returned", i, ctx.Err())
		}
		if got := metadata.Incoming(ctx).Get("body"); got != bodies[i] {
			t.Errorf("%d: metadata of %q, want %q", i, got, bodies[i])
		}
		if at, ok := ctx.Deadline(); !ok || !at.Equal(want) || ctx.Value(parentKey{}) != "parent's" {
			t.Errorf("%d: deadline %v, %v", i, at, ctx.Value(parentKey{}))
		}
		<-ctx.Done()
	}
}

// TestEventContextEnds: it ends with that of the broker.
func TestEventContextEnds(t *testing.T) {
	t.Parallel()
	parent, cancel := context.WithCancelCause(t.Context())
	handle := eventsOf(t, func(ctx context.Context, c *server.Call) error {
		derived, stop := context.WithTimeout(ctx, time.Hour)
		defer stop()
		cancel(errors.New("test"))
		<-derived.Done()
		<-ctx.Done()
		_, err := c.RecvRaw()
		return errors.Join(err, ctx.Err())
	})
	if err := handle(parent, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that of the context", err)
	}
}

// TestEventContextExpires: why it ended does not change when its handler returns.
func TestEventContextExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var own context.Context
		parent, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		handle := eventsOf(t, func(ctx context.Context, c *server.Call) error {
			own = ctx
			<-parent.Done()
			_, err := c.RecvRaw()
			return errors.Join(err, ctx.Err())
		})
		if err := handle(parent, "x"); err == nil || !errors.Is(own.Err(), context.DeadlineExceeded) {
			t.Errorf("%v, then %v, want that the time is over", err, own.Err())
		}
		if err := handle(parent, "x"); err == nil {
			t.Error("handled with no time left")
		}
	})
}

// plainContext is a context that cannot be compared.
type plainContext struct {
	context.Context

	notes []string
}

func TestEventOfAnyContext(t *testing.T) {
	t.Parallel()
	handle := eventsOf(t, func(ctx context.Context, c *server.Call) error {
		if ctx.Value(parentKey{}) != "parent's" {
			t.Error("the parent's value is missing")
		}
		_, err := c.RecvRaw()
		return err
	})
	for range 2 {
		ctx := plainContext{context.WithValue(t.Context(), parentKey{}, "parent's"), nil}
		if err := handle(ctx, "x"); err != nil {
			t.Error(err)
		}
	}
}

// TestTypedSubscriptionsReuse: what is decoded holds nothing of its message; a middleware may keep the message.
func TestTypedSubscriptionsReuse(t *testing.T) {
	t.Parallel()
	pass := func(next server.Handler) server.Handler { return next }
	for name, test := range map[string]struct {
		opts []server.Option
		want bool
	}{
		"alone":           {nil, true},
		"with middleware": {[]server.Option{server.WithMiddleware(pass)}, false},
	} {
		s := newServer(t, test.opts...)
		_ = server.Subscribe(s, "topic", func(context.Context, *Hello) error { return nil })
		_ = s.Subscribe("raw", func(context.Context, *server.Call) error { return nil })
		for i, want := range []bool{test.want, false} {
			o, err := broker.ReadOptions(s.Subscriptions()[i].Options)
			if err != nil || o.Reuse != want {
				t.Errorf("%s, subscription %d: reuse %t, %v, want %t", name, i, o.Reuse, err, want)
			}
		}
	}
}

// endpointStats gives what Debug.Stats tells of the only subscription.
func endpointStats(t *testing.T, c *directConn) server.EndpointStats {
	t.Helper()
	d := c.with("Debug.Stats", `{}`)
	d.call(time.Minute)
	var st server.Stats
	if err := json.Unmarshal(d.rsp.Body, &st); err != nil || len(st.Endpoints) != 1 {
		t.Fatalf("Debug.Stats: %v %s", err, d.rsp.Body)
	}
	return st.Endpoints[0]
}

// TestEventWorkers: what a goroutine handles by a Worker is counted as if by Handle, at the latest when it is done; also where a
// handler panics, or ends the goroutine.
func TestEventWorkers(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	kept := make(chan context.Context, 2)
	_ = s.Subscribe("topic", func(ctx context.Context, c *server.Call) error {
		switch string(c.Message().Body) {
		case "error":
			return errors.New("test")
		case "panic":
			panic("test")
		case "exit":
			kept <- ctx
			runtime.Goexit()
		}
		return nil
	})
	sub := s.Subscriptions()[0]
	o, err := broker.ReadOptions(sub.Options)
	if err != nil || o.Worker == nil {
		t.Fatalf("%v: brokers are not told of the worker", err)
	}
	c := direct(t, s)
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			w := o.Worker()
			defer w.Done()
			for j := range 1000 {
				body := "well"
				if j == 500 {
					body = []string{"error", "panic", "exit", "well"}[i]
				}
				err := w.Handle(t.Context(), &broker.Message{Topic: "topic", Body: []byte(body)})
				if (err != nil) != (body != "well") {
					t.Errorf("%s: %v", body, err)
				}
			}
		})
	}
	work.Go(func() { _ = sub.Handle(t.Context(), &broker.Message{Topic: "topic", Body: []byte("exit")}) }) // as other brokers do
	work.Wait()
	for range 2 {
		if ctx := <-kept; !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("the context of a handler that ended its goroutine: %v", ctx.Err())
		}
	}
	if st := endpointStats(t, c); st.Calls != 3502 || st.Errors != 2 || st.Inflight != 0 {
		t.Errorf("%+v, want 3502 calls, 2 errors and none under way", st)
	}
}

// TestEventWorkerAtWork: a message that is being handled counts as under way, those before it as handled, where they took long.
func TestEventWorkerAtWork(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	_ = s.Subscribe("topic", func(_ context.Context, c *server.Call) error {
		_ = c.Message()
		for begin := time.Now(); time.Since(begin) < 50*time.Microsecond; { // slow is from 20 on
		}
		return nil
	})
	c := direct(t, s)
	w := s.Subscriptions()[0].Worker()
	for range 40 {
		if err := w.Handle(t.Context(), &broker.Message{Topic: "topic"}); err != nil {
			t.Fatal(err)
		}
	}
	if st := endpointStats(t, c); st.Inflight != 1 || st.Calls < 8 {
		t.Errorf("%+v, want one under way, and most of 39 calls", st)
	}
	w.Done()
	if st := endpointStats(t, c); st.Inflight != 0 || st.Calls != 40 {
		t.Errorf("%+v, want 40 calls, and none under way", st)
	}
}

// TestEventContextWaitedForAtItsEnd: whoever begins to wait while the handler returns is told.
func TestEventContextWaitedForAtItsEnd(t *testing.T) {
	t.Parallel()
	var waiting sync.WaitGroup
	handle := eventsOf(t, func(ctx context.Context, c *server.Call) error {
		for range 2 {
			waiting.Go(func() { <-ctx.Done() })
		}
		_, err := c.RecvRaw()
		return err
	})
	for range 2000 {
		if err := handle(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
	}
	waiting.Wait()
}
