package client_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/transport"
)

// call makes a call that is to succeed.
func call(t *testing.T, c *client.Client, opts ...client.CallOption) {
	t.Helper()
	if err := c.Call(t.Context(), "greeter", "Say.Hello", &text{}, &text{}, opts...); err != nil {
		t.Fatal(err)
	}
}

// TestIdleConnections: a connection is kept as long as it is used, or carries a call, and for its idle time.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var long atomic.Int64
		w := &wire{answer: func(ctx context.Context, req, rsp *transport.Message) error {
			return patient(time.Duration(long.Load()))(ctx, req, rsp)
		}}
		c := through(t, w, client.WithIdle(time.Minute))
		for range 10 {
			call(t, c)
			time.Sleep(59 * time.Second)
		}
		if dials, open := w.dials.Load(), w.open.Load(); dials != 1 || open != 1 {
			t.Errorf("used once a minute: %d dials, %d connections", dials, open)
		}
		long.Store(int64(10 * time.Minute))
		var calls sync.WaitGroup
		calls.Go(func() { call(t, c, client.Timeout(time.Hour)) })
		time.Sleep(5 * time.Minute)
		long.Store(0)
		call(t, c)
		calls.Wait()
		if dials, open := w.dials.Load(), w.open.Load(); dials != 1 || open != 1 {
			t.Errorf("with a call of 10 minutes: %d dials, %d connections", dials, open)
		}
		time.Sleep(80 * time.Second)
		if open := w.open.Load(); open != 0 {
			t.Errorf("unused for more than a minute: %d connections", open)
		}
		for range 3 {
			call(t, c)
		}
		if dials := w.dials.Load(); dials != 2 {
			t.Errorf("three calls after it was closed: %d dials", dials)
		}
	})
}

// TestLostConnectionIsReplaced: by the next call, without an attempt in vain.
func TestLostConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &lossy{wire: &wire{answer: echoed}}
		c := through(t, w.wire, client.WithTransport(w), client.WithIdle(time.Minute))
		for i := range 3 {
			rsp, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello"}, client.Attempts(1))
			if err != nil || rsp.Attempts != 1 || w.dials.Load() != int32(i+1) {
				t.Fatalf("%+v %v, %d dials", rsp, err, w.dials.Load())
			}
			_ = w.last.Load().Close()
		}
	})
}

// lossy keeps its latest connection.
type lossy struct {
	*wire
	last atomic.Pointer[wireConn]
}

func (l *lossy) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	c, err := l.wire.Dial(ctx, addr)
	if err == nil {
		l.last.Store(c.(*wireConn))
	}
	return c, err
}

// TestConnections: calls at the same time spread over as many connections as they may, and go over those that there are
// where no more can be had.
func TestConnections(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, -1, client.MaxConnections + 1} {
		if _, err := client.New(client.WithTransport(&wire{}), client.WithConnections(n)); err == nil {
			t.Errorf("%d connections are not refused", n)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: patient(time.Second)}
		c := through(t, w, client.WithConnections(4))
		many := func() {
			var calls sync.WaitGroup
			for range 64 {
				calls.Go(func() { call(t, c) })
			}
			calls.Wait()
		}
		call(t, c)
		if n := w.open.Load(); n != 1 {
			t.Errorf("one call: %d connections", n)
		}
		w.refuse.Store(true)
		for range 3 {
			many()
		}
		if n, dials := w.open.Load(), w.dials.Load(); n != 1 || dials > 1+3*3 {
			t.Errorf("while no more are to be had: %d connections, %d dials", n, dials)
		}
		w.refuse.Store(false)
		time.Sleep(2 * time.Second)
		for range 3 {
			many()
		}
		if n := w.open.Load(); n != 4 {
			t.Errorf("64 calls at a time: %d connections", n)
		}
	})
}

// TestDialIsBounded: by the call's time, whoever waits.
func TestDialIsBounded(t *testing.T) {
	t.Parallel()
	for name, m := range map[string][]client.Middleware{"plain": nil, "middleware": {passing}} {
		synctest.Test(t, func(t *testing.T) {
			w := &wire{answer: echoed}
			c := through(t, w, client.WithTransport(slow{wire: w, dialling: 3 * time.Second}), client.WithMiddleware(m...))
			start := time.Now()
			err := c.Call(t.Context(), "greeter", "Say.Hello", &text{}, &text{}, client.Timeout(time.Second))
			var e *client.Error
			if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || e.Phase != client.Dial || !transport.NotSent(err) || time.Since(start) != time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
		})
	}
}
