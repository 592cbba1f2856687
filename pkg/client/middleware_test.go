package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/transport"
)

// invokers are what a middleware may do with a call that says "hello" to an echo.
var invokers = map[string]struct {
	do       func(ctx context.Context, req *client.Request, next client.Invoker) (*client.Response, error)
	want     string
	observed int // how often the call's own options have counted
}{
	"passes it on": {func(ctx context.Context, req *client.Request, next client.Invoker) (*client.Response, error) {
		return next(ctx, req)
	}, "hello", 1},
	"changes a copy": {func(ctx context.Context, req *client.Request, next client.Invoker) (*client.Response, error) {
		out := *req
		out.Body = append([]byte("changed "), req.Body...)
		return next(ctx, &out)
	}, "changed hello", 1},
	"makes its own": {func(ctx context.Context, _ *client.Request, next client.Invoker) (*client.Response, error) {
		return next(ctx, &client.Request{Service: "greeter", Endpoint: "Say.Bye", ContentType: "text/plain", Body: []byte("bye")})
	}, "bye", 0},
	"calls twice": {func(ctx context.Context, req *client.Request, next client.Invoker) (*client.Response, error) {
		first, err := next(ctx, req)
		if err != nil {
			return nil, err
		}
		again := *req
		again.Body = []byte("again")
		second, err := next(ctx, &again)
		if err != nil {
			return nil, err
		}
		return &client.Response{ContentType: "text/plain", Body: []byte(string(first.Body) + " " + string(second.Body))}, nil
	}, "hello again", 2},
	"calls thrice at once": {func(ctx context.Context, req *client.Request, next client.Invoker) (*client.Response, error) {
		var calls sync.WaitGroup
		var rsp [3]*client.Response
		for i := range rsp {
			calls.Go(func() {
				out := *req
				out.Body = fmt.Appendf(nil, "%s %d", req.Body, i)
				rsp[i], _ = next(ctx, &out)
			})
		}
		calls.Wait()
		for i, r := range rsp {
			if want := fmt.Sprintf("hello %d", i); r == nil || string(r.Body) != want {
				return nil, fmt.Errorf("call %d: %+v", i, r)
			}
		}
		return rsp[1], nil
	}, "hello 1", 3},
	"answers itself": {func(context.Context, *client.Request, client.Invoker) (*client.Response, error) {
		return &client.Response{Body: []byte("cached")}, nil
	}, "cached", 0},
	"answers in a copy": {func(ctx context.Context, req *client.Request, next client.Invoker) (*client.Response, error) {
		rsp, err := next(ctx, req)
		if err != nil {
			return nil, err
		}
		out := *rsp
		out.Body = rsp.Body[1:]
		return &out, nil
	}, "ello", 1},
	"has its own context": {func(ctx context.Context, req *client.Request, next client.Invoker) (*client.Response, error) {
		ctx, err := metadata.Append(ctx, "prefix", "ctx ")
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}, "ctx hello", 1},
	"adds a header": {func(ctx context.Context, req *client.Request, next client.Invoker) (*client.Response, error) {
		out := *req
		var err error
		if out.Header, err = req.Header.Set("prefix", "header "); err != nil {
			return nil, err
		}
		return next(ctx, &out)
	}, "header hello", 1},
}

// prefixed is echoed, with what the header says before the body, and metadata in the answer.
func prefixed(_ context.Context, req, rsp *transport.Message) error {
	rsp.Header = append(append(rsp.Header[:0], plainText...), metadata.Of("answered", "yes", "micro-secret", "x")...)
	rsp.Body = append(append(rsp.Body[:0], req.Header.Get("prefix")...), req.Body...)
	return nil
}

func TestMiddleware(t *testing.T) {
	t.Parallel()
	for name, tt := range invokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var made atomic.Int32
			c := through(t, &wire{answer: prefixed}, client.WithMiddleware(passing, func(next client.Invoker) client.Invoker {
				made.Add(1)
				return func(ctx context.Context, req *client.Request) (*client.Response, error) { return tt.do(ctx, req, next) }
			}))
			for range 50 { // of which all but the first find a record that was used
				var mu sync.Mutex
				observed := 0
				observe := client.Observe(func(e client.Event) {
					mu.Lock()
					defer mu.Unlock()
					if e.Phase == client.Done {
						observed++
					}
				})
				out := &text{}
				if err := c.Call(t.Context(), "greeter", "Say.Hello", &text{[]byte("hello")}, out, observe); err != nil || string(out.data) != tt.want {
					t.Fatalf("Call: %q %v, want %q", out.data, err, tt.want)
				}
				if observed != tt.observed {
					t.Fatalf("the call's options counted %d times, want %d", observed, tt.observed)
				}
				rsp, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello", ContentType: "text/plain", Body: []byte("hello")})
				if err != nil || string(rsp.Body) != tt.want {
					t.Fatalf("Do: %+v %v, want %q", rsp, err, tt.want)
				}
			}
			if made.Load() != 1 {
				t.Errorf("the middleware was made %d times", made.Load())
			}
		})
	}
}

// TestResponseOfDoIsKept: later calls change nothing of a Response that Do gave.
func TestResponseOfDoIsKept(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]client.Option{"plain": nil, "middleware": {client.WithMiddleware(passing)}} {
		c := through(t, &wire{answer: prefixed}, opts...)
		var kept []*client.Response
		for i := range 100 {
			body := fmt.Sprint("body ", i)
			rsp, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello", Header: metadata.Of("prefix", fmt.Sprint(i, " ")), Body: []byte(body)})
			if err != nil {
				t.Fatal(err)
			}
			kept = append(kept, rsp)
			if err := c.Call(t.Context(), "greeter", "Say.Hello", &text{[]byte("another")}, &text{}); err != nil {
				t.Fatal(err)
			}
		}
		for i, rsp := range kept {
			if want := fmt.Sprintf("%d body %d", i, i); string(rsp.Body) != want || rsp.Header.Get("answered") != "yes" || rsp.Header.Len() != 1 ||
				rsp.Node.ID != "greeter-1" || rsp.Attempts != 1 || rsp.ContentType != "text/plain" {
				t.Fatalf("%s: answer %d is %+v by now", name, i, rsp)
			}
		}
	}
}

// TestMiddlewareLeavesGoroutines: whoever goes on with a copy of the request, after the middleware has returned, neither
// disturbs other calls nor gets their options.
func TestMiddlewareLeavesGoroutines(t *testing.T) {
	t.Parallel()
	arrived, held := make(chan struct{}), make(chan struct{})
	w := &wire{answer: func(ctx context.Context, req, rsp *transport.Message) error {
		if string(req.Body) == "held" {
			arrived <- struct{}{}
			<-held
		}
		return echoed(ctx, req, rsp)
	}}
	var left sync.WaitGroup
	ended := make(chan struct{})
	c := through(t, w, client.WithMiddleware(func(next client.Invoker) client.Invoker {
		return func(ctx context.Context, req *client.Request) (*client.Response, error) {
			ctx, own, start := context.WithoutCancel(ctx), *req, ended
			switch string(req.Body) {
			case "leave one within":
				start = make(chan struct{})
				close(start)
				own.Body = []byte("held")
			case "leave one for later":
				own.Body = []byte("late")
			default:
				return next(ctx, req)
			}
			want := string(own.Body)
			left.Go(func() {
				<-start
				if rsp, err := next(ctx, &own); err != nil || string(rsp.Body) != want {
					t.Errorf("left behind: %+v %v, want %q", rsp, err, want)
				}
			})
			if want == "held" {
				<-arrived
			}
			return &client.Response{Body: []byte("left")}, nil
		}
	}))
	call := func(body, want string, opts ...client.CallOption) {
		t.Helper()
		out := &text{}
		if err := c.Call(t.Context(), "greeter", "Say.Hello", &text{[]byte(body)}, out, opts...); err != nil || string(out.data) != want {
			t.Fatalf("%q: %q %v", body, out.data, err)
		}
	}
	for range 20 {
		call("leave one within", "left")
		call("leave one for later", "left", client.Observe(func(e client.Event) { t.Errorf("a call that has ended is told of %+v", e) }))
		call("next", "next")
	}
	close(ended)
	close(held)
	left.Wait()
	call("next", "next")
}

// patient answers after a time, unless the call ends before.
func patient(d time.Duration) func(ctx context.Context, req, rsp *transport.Message) error {
	return func(ctx context.Context, req, rsp *transport.Message) error {
		work := time.NewTimer(d)
		defer work.Stop()
		var over <-chan time.Time
		if req.Timeout > 0 {
			limit := time.NewTimer(req.Timeout)
			defer limit.Stop()
			over = limit.C
		}
		select {
		case <-work.C:
			return echoed(ctx, req, rsp)
		case <-over:
			return context.DeadlineExceeded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TestTime: whatever a call passes through, it ends in time, with the same error.
func TestTime(t *testing.T) {
	t.Parallel()
	derived := func(next client.Invoker) client.Invoker {
		return func(ctx context.Context, req *client.Request) (*client.Response, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			return next(ctx, req)
		}
	}
	for name, opts := range map[string][]client.Option{
		"plain": nil, "middleware": {client.WithMiddleware(passing)}, "derived context": {client.WithMiddleware(derived)},
	} {
		for what, tt := range map[string]struct {
			call []client.CallOption
			ctx  func(ctx context.Context) (context.Context, context.CancelFunc)
			want error
			took time.Duration
		}{
			"default": {nil, nil, context.DeadlineExceeded, client.DefaultTimeout},
			"option":  {[]client.CallOption{client.Timeout(time.Second)}, nil, context.DeadlineExceeded, time.Second},
			"sooner context": {nil, func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Second)
			}, context.DeadlineExceeded, time.Second},
			"later context": {nil, func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Hour)
			}, context.DeadlineExceeded, client.DefaultTimeout},
			"cancel": {nil, func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(2*time.Second, cancel)
				return ctx, cancel
			}, context.Canceled, 2 * time.Second},
		} {
			synctest.Test(t, func(t *testing.T) {
				c := through(t, &wire{answer: patient(time.Minute)}, opts...)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.ctx != nil {
					ctx, cancel = tt.ctx(ctx)
					defer cancel()
				}
				start := time.Now()
				err := c.Call(ctx, "greeter", "Say.Hello", &text{}, &text{}, tt.call...)
				var e *client.Error
				if !errors.Is(err, tt.want) || !errors.As(err, &e) || e.Phase != client.Wait || len(e.Attempts) != 1 || transport.NotSent(err) {
					t.Errorf("%s, %s: %v", name, what, err)
				}
				if took := time.Since(start); took != tt.took || e.Elapsed != took {
					t.Errorf("%s, %s: took %v, says %v, want %v", name, what, took, e.Elapsed, tt.took)
				}
			})
		}
	}
}

// TestMiddlewareSeesTheDeadline: as a context with it, which ends when the call does.
func TestMiddlewareSeesTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen context.Context
		c := through(t, &wire{answer: echoed}, client.WithMiddleware(func(client.Invoker) client.Invoker {
			return func(ctx context.Context, _ *client.Request) (*client.Response, error) {
				seen = ctx
				deadline, ok := ctx.Deadline()
				if left := time.Until(deadline); !ok || left != 3*time.Second {
					t.Errorf("deadline in %v, %t", left, ok)
				}
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}))
		if err := c.Call(t.Context(), "greeter", "Say.Hello", &text{}, &text{}, client.Timeout(3*time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		c = through(t, &wire{answer: echoed}, client.WithMiddleware(func(next client.Invoker) client.Invoker {
			return func(ctx context.Context, req *client.Request) (*client.Response, error) {
				seen = ctx
				return next(ctx, req)
			}
		}))
		if err := c.Call(t.Context(), "greeter", "Say.Hello", &text{}, &text{}); err != nil || !errors.Is(seen.Err(), context.Canceled) {
			t.Errorf("%v, and the call's context goes on after it: %v", err, seen.Err())
		}
		<-seen.Done()
	})
}

// slow is a selector and a transport that wait.
type slow struct {
	selector.Selector
	*wire
	selecting, dialling time.Duration
}

func (s slow) Select(context.Context, selector.Query) (registry.Node, func(error), error) {
	time.Sleep(s.selecting)
	return registry.Node{ID: "slow", Address: "wire:2"}, func(error) {}, nil
}

func (s slow) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	time.Sleep(s.dialling)
	return s.wire.Dial(ctx, addr)
}

func (slow) Close() error { return nil }

// TestTimeThatIsLeft: what passes before a call is sent is not there for its answer any more.
func TestTimeThatIsLeft(t *testing.T) {
	t.Parallel()
	waits := func(next client.Invoker) client.Invoker {
		return func(ctx context.Context, req *client.Request) (*client.Response, error) {
			time.Sleep(time.Second)
			return next(ctx, req)
		}
	}
	for name, tt := range map[string]struct {
		selecting, dialling time.Duration
		middleware          []client.Middleware
		want                time.Duration
	}{
		"nothing":    {0, 0, nil, 5 * time.Second},
		"middleware": {0, 0, []client.Middleware{waits}, 4 * time.Second},
		"selecting":  {2 * time.Second, 0, nil, 3 * time.Second},
		"dialling":   {0, 3 * time.Second, nil, 2 * time.Second},
		"all":        {time.Second, time.Second, []client.Middleware{waits, passing}, 2 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			var got time.Duration
			w := &wire{answer: func(ctx context.Context, req, rsp *transport.Message) error {
				got = req.Timeout
				return echoed(ctx, req, rsp)
			}}
			s := slow{wire: w, selecting: tt.selecting, dialling: tt.dialling}
			c, err := client.New(client.WithTransport(s), client.WithSelector(s), client.WithCodecs(codec.Set{texts{}}), client.WithMiddleware(tt.middleware...))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Call(t.Context(), "greeter", "Say.Hello", &text{}, &text{}); err != nil || got != tt.want {
				t.Errorf("%s: %v left, want %v; %v", name, got, tt.want, err)
			}
			_ = c.Close()
			if tt.selecting+tt.dialling > 0 {
				return
			}
			c = through(t, w, client.WithMiddleware(tt.middleware...))
			for range 2 {
				if err := c.Call(t.Context(), "greeter", "Say.Hello", &text{}, &text{}); err != nil || got != tt.want {
					t.Errorf("%s, with a registry: %v left, want %v; %v", name, got, tt.want, err)
				}
			}
		})
	}
}

// TestFirstSelectCounts: so does the time that the first look into the registry took.
func TestFirstSelectCounts(t *testing.T) {
	t.Parallel()
	for name, m := range map[string][]client.Middleware{"plain": nil, "middleware": {passing}} {
		synctest.Test(t, func(t *testing.T) {
			sys := newSystem(t)
			var got time.Duration
			w := &wire{answer: func(ctx context.Context, req, rsp *transport.Message) error {
				got = req.Timeout
				return echoed(ctx, req, rsp)
			}}
			c := sys.client(client.WithTransport(w), client.WithCodecs(codec.Set{texts{}}), client.WithMiddleware(m...))
			var late sync.WaitGroup
			defer late.Wait()
			late.Go(func() {
				time.Sleep(100 * time.Millisecond)
				sys.register("greeter-1", "wire:1", nil)
			})
			if err := c.Call(t.Context(), "greeter", "Say.Hello", &text{}, &text{}); err != nil || got != client.DefaultTimeout-100*time.Millisecond {
				t.Errorf("%s: %v left, %v", name, got, err)
			}
		})
	}
}
