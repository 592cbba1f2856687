package server_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// waiting is the context of a call whose caller can be answered while the handler runs.
type waiting struct {
	context.Context
	answers chan transport.Message
}

func (w *waiting) Request() context.Context         { return w.Context }
func (w *waiting) Answer(answer *transport.Message) { w.answers <- *answer }

// TestPlainLookout: a handler runs on the goroutine of its call, and is answered for soon after its time.
func TestPlainLookout(t *testing.T) {
	const grace = 10 * time.Millisecond
	for name, tt := range map[string]struct {
		timeout time.Duration
		before  []time.Duration // timeouts of calls that were quick
		wait    time.Duration
		code    status.Code
	}{
		"the handler's time":         {0, nil, 3*time.Second + grace, status.HandlerTimeout},
		"the caller's":               {2 * time.Second, nil, 2*time.Second + grace, status.DeadlineExceeded},
		"more than is waited here":   {time.Hour, nil, 5*time.Second + grace, status.HandlerTimeout},
		"after calls with more time": {time.Second, []time.Duration{time.Hour, 0}, time.Second + grace, status.DeadlineExceeded},
		"after calls with less":      {2 * time.Second, []time.Duration{time.Second, time.Hour, 1500 * time.Millisecond}, 2*time.Second + grace, status.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, release, got := stubborn(t, server.HandlerTimeout(3*time.Second), server.MaxTimeout(5*time.Second))
				h, served, cancel := servePlain(s)
				quick := &waiting{t.Context(), nil}
				for _, timeout := range tt.before {
					req, rsp := call("Say.Hello", `{"name":"x"}`), transport.Message{Body: []byte("old")}
					req.Timeout = timeout
					if h(quick, "peer:1", req, &rsp); string(rsp.Body) != `{"msg":"Hello x"}` {
						t.Fatalf("a call before: %s %v", rsp.Body, errorOf(&rsp))
					}
				}
				caller := &waiting{t.Context(), make(chan transport.Message, 1)}
				var running sync.WaitGroup
				began := time.Now()
				running.Go(func() {
					req, rsp := call("Say.Hang", "mine", "who", "ann"), transport.Message{}
					req.Timeout = tt.timeout
					h(caller, "peer:1", req, &rsp)
				})
				answer := <-caller.answers
				if e := errorOf(&answer); e == nil || e.Code != tt.code || time.Since(began) != tt.wait || len(answer.Body) > 0 {
					t.Errorf("%v after %v, body %q", e, time.Since(began), answer.Body)
				}
				time.Sleep(time.Minute) // it is answered once
				close(release)
				if text := <-got; text != "mine ann Request Timeout" {
					t.Errorf("the handler had %q", text)
				}
				running.Wait()
				cancel()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestPlainLookoutStaysQuiet: a handler that returns is not answered for, and what it leaves behind is no other call's.
func TestPlainLookoutStaysQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, server.HandlerTimeout(time.Second))
		_ = s.Handle(server.Endpoint{Name: "Say.Obey"}, func(ctx context.Context, c *server.Call) error {
			if c.Remote() != "peer:1" {
				t.Errorf("remote %q", c.Remote())
			}
			<-ctx.Done()
			return ctx.Err()
		})
		_ = s.Handle(server.Endpoint{Name: "Say.Panic"}, func(context.Context, *server.Call) error { panic("as asked") })
		_ = server.Handle(s, "Say.Hello", hello)
		h, served, cancel := servePlain(s)
		caller := &waiting{t.Context(), nil} // an answer would block for ever
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, leave)
		var rsp transport.Message
		for _, tt := range []struct {
			ctx      *waiting
			endpoint string
			wait     time.Duration
			code     status.Code
		}{
			{caller, "Say.Obey", time.Second, status.DeadlineExceeded},
			{caller, "Say.Panic", 0, status.Internal},
			{caller, "Say.Nope", 0, status.NotFound},
			{caller, "Say.Hello", 0, 0},
			{&waiting{gone, nil}, "Say.Obey", 0, status.Canceled}, // it has gone by now
			{caller, "Say.Obey", time.Second, status.DeadlineExceeded},
		} {
			began := time.Now()
			h(tt.ctx, "peer:1", call(tt.endpoint, `{"name":"x"}`), &rsp)
			code := status.Code(0)
			if e := errorOf(&rsp); e != nil {
				code = e.Code
			}
			if code != tt.code || time.Since(began) != tt.wait {
				t.Errorf("%s: code %d after %v, want %d after %v", tt.endpoint, code, time.Since(began), tt.code, tt.wait)
			}
			time.Sleep(10 * time.Second)
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
