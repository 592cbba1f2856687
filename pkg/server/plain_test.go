package server_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// plainListener has no connections: the tests make the calls that it serves itself.
type plainListener struct {
	directListener
	calls chan transport.CallHandler
}

func (l *plainListener) ServeCalls(h transport.CallHandler) { l.calls <- h }

// servePlain serves s until cancel, and gives its handler of plain calls.
func servePlain(s *server.Server) (h transport.CallHandler, served chan error, cancel context.CancelFunc) {
	l := &plainListener{directListener{closed: make(chan struct{})}, make(chan transport.CallHandler, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	served = make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	return <-l.calls, served, cancel
}

// stubborn gives a server with a handler that looks at no context, and what it is given back with its request at the end.
func stubborn(t *testing.T, opts ...server.Option) (s *server.Server, release chan struct{}, got chan string) {
	t.Helper()
	s = newServer(t, opts...)
	release, got = make(chan struct{}), make(chan string, 1)
	_ = s.Handle(server.Endpoint{Name: "Say.Hang"}, func(ctx context.Context, c *server.Call) error {
		body, err := c.RecvRaw()
		if err != nil {
			return err
		}
		<-release
		got <- string(body) + " " + c.Header().Get("who") + " " + status.CodeOf(ctx.Err()).String()
		return c.SendRaw("", []byte("late"))
	})
	_ = server.Handle(s, "Say.Hello", hello)
	_ = server.Handle(s, "Say.Fast", hello, server.Inline())
	return s, release, got
}

// TestPlainInTime: a caller is answered in time whatever the handler does, and takes none of its memory away.
func TestPlainInTime(t *testing.T) {
	for name, tt := range map[string]struct {
		timeout time.Duration
		leave   bool
		wait    time.Duration
		code    status.Code
		ctx     string
	}{
		"the handler's time":       {0, false, 3 * time.Second, status.HandlerTimeout, "Request Timeout"},
		"the caller's":             {2 * time.Second, false, 2 * time.Second, status.DeadlineExceeded, "Request Timeout"},
		"more than is waited here": {time.Hour, false, 5 * time.Second, status.HandlerTimeout, "Request Timeout"},
		"the caller goes":          {0, true, time.Second, status.Canceled, "Client Closed Request"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, release, got := stubborn(t, server.HandlerTimeout(3*time.Second), server.MaxTimeout(5*time.Second))
				h, served, cancel := servePlain(s)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				if tt.leave {
					time.AfterFunc(time.Second, leave)
				}
				req, rsp := call("Say.Hang", "mine", "who", "ann"), transport.Message{Body: []byte("old")}
				req.Timeout = tt.timeout
				began := time.Now()
				h(ctx, "peer:1", req, &rsp)
				if e := errorOf(&rsp); e == nil || e.Code != tt.code || time.Since(began) != tt.wait || len(rsp.Body) > 0 {
					t.Errorf("%v after %v, body %q", e, time.Since(began), rsp.Body)
				}
				copy(req.Body, "next")
				copy(req.Header, make([]byte, len(req.Header)))
				for range 3 { // other calls have storage of their own
					other, answer := call("Say.Hello", `{"name":"x"}`, "who", "bob"), transport.Message{}
					if h(t.Context(), "peer:1", other, &answer); string(answer.Body) != `{"msg":"Hello x"}` {
						t.Errorf("another call: %s %v", answer.Body, errorOf(&answer))
					}
				}
				close(release)
				if text := <-got; text != "mine ann "+tt.ctx {
					t.Errorf("the handler had %q", text)
				}
				cancel()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestPlainStop: who waits when the server stops waiting is told so, and who comes later is refused.
func TestPlainStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, release, _ := stubborn(t, server.ShutdownTimeout(time.Second))
		h, served, cancel := servePlain(s)
		done := make(chan *status.Error, 1)
		go func() {
			var rsp transport.Message
			h(context.Background(), "peer:1", call("Say.Hang", "mine"), &rsp)
			done <- errorOf(&rsp)
		}()
		synctest.Wait()
		cancel()
		if e := <-done; e == nil || e.Code != status.Unavailable || !strings.Contains(e.Detail, "stopped before the handler answered") {
			t.Errorf("%v", e)
		}
		close(release)
		if err := <-served; err == nil || !strings.Contains(err.Error(), "1 calls were cut off") {
			t.Errorf("Serve: %v", err)
		}
		var rsp transport.Message
		h(t.Context(), "peer:1", call("Say.Hello", `{}`), &rsp)
		if e := errorOf(&rsp); e == nil || e.Code != status.Unavailable || !e.Refused {
			t.Errorf("after the end: %v", e)
		}
	})
}

// TestPlainCalls: calls at the same time have each their own answer, with and without a goroutine, in storage that is
// used again.
func TestPlainCalls(t *testing.T) {
	s, _, _ := stubborn(t)
	_ = s.Handle(server.Endpoint{Name: "Say.Meta"}, func(ctx context.Context, c *server.Call) error {
		if c.Remote() != "peer:1" {
			t.Errorf("remote %q", c.Remote())
		}
		return c.SendRaw("text/plain", []byte(metadata.Incoming(ctx).Get("who")))
	})
	h, served, cancel := servePlain(s)
	var callers sync.WaitGroup
	for _, who := range []string{"ann", "bob", "eve"} {
		callers.Go(func() {
			var rsp transport.Message
			for range 100 {
				for _, c := range []struct {
					req  *transport.Message
					want string
				}{
					{call("Say.Hello", `{"name":"`+who+`"}`), `{"msg":"Hello ` + who + `"}`},
					{call("Say.Fast", `{"name":"`+who+`"}`), `{"msg":"Hello ` + who + `"}`},
					{call("Say.Meta", "", "who", who), who},
					{call("Say.Nope", ""), ""},
				} {
					h(t.Context(), "peer:1", c.req, &rsp)
					if e := errorOf(&rsp); string(rsp.Body) != c.want || (e == nil) != (c.want != "") {
						t.Errorf("%s: %s %v", c.req.Header.Get(transport.HeaderEndpoint), rsp.Body, e)
					}
				}
			}
		})
	}
	callers.Wait()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
