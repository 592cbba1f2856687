package link_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/link"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

// call makes a call with that body and gives the answer's.
func call(ctx context.Context, c *link.Conn, body string, timeout time.Duration) (string, error) {
	var rsp transport.Message
	err := c.Call(ctx, &transport.Message{Timeout: timeout, Header: callHeader, Body: []byte(body)}, &rsp)
	return string(rsp.Body), err
}

// TestAnswersAreTheirCallers: whatever the sizes, and whoever gives up, each caller gets the answer to its own call.
func TestAnswersAreTheirCallers(t *testing.T) {
	t.Parallel()
	for _, mode := range []transport.PaceMode{transport.PaceAdaptive, transport.PaceInline, transport.PaceGoroutine} {
		client, _ := served(t, router(echo, mode))
		var wg sync.WaitGroup
		for caller := range 32 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, uint64(caller)))
				var rsp transport.Message
				for n := range 100 {
					size := 8 + r.IntN(64)
					switch r.IntN(20) {
					case 0:
						size = 8 + r.IntN(200<<10)
					case 1:
						size = 8 + r.IntN(64<<10)
					}
					body := bytes.Repeat([]byte{byte(caller)}, size)
					binary.BigEndian.PutUint64(body, uint64(caller)<<32|uint64(n))
					ctx, stop := context.WithCancel(context.Background())
					patient := r.IntN(10) > 0
					if !patient {
						go stop()
					}
					err := client.Call(ctx, &transport.Message{Timeout: time.Minute, Header: callHeader, Body: body}, &rsp)
					stop()
					switch {
					case err != nil && (patient || !errors.Is(err, context.Canceled)):
						t.Errorf("call %d of caller %d: %v", n, caller, err)
						return
					case err == nil && !bytes.Equal(rsp.Body, body):
						t.Errorf("call %d of caller %d got another answer, of %d bytes", n, caller, len(rsp.Body))
						return
					case err == nil && !bytes.Equal(rsp.Header, contentType):
						t.Errorf("header %q", rsp.Header)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// gatekeeper is a handler that blocks calls of the body "wait" until it is let go, and echoes others.
type gatekeeper struct {
	gate  chan struct{}
	ended chan error // how the contexts of calls that waited ended
}

func newGatekeeper() *gatekeeper {
	return &gatekeeper{gate: make(chan struct{}), ended: make(chan error, 100)}
}

func (g *gatekeeper) serve(ctx context.Context, req, rsp *transport.Message) {
	if string(req.Body) == "wait" {
		select {
		case <-g.gate:
		case <-ctx.Done():
			g.ended <- ctx.Err()
		}
	}
	echo(ctx, req, rsp)
}

// TestBlockedHandler: the calls behind one that blocks are answered, in every mode.
func TestBlockedHandler(t *testing.T) {
	t.Parallel()
	for _, mode := range []transport.PaceMode{transport.PaceAdaptive, transport.PaceInline, transport.PaceGoroutine} {
		g := newGatekeeper()
		client, _ := served(t, router(g.serve, mode))
		blocked := make(chan error, 8)
		for range cap(blocked) {
			go func() {
				_, err := call(context.Background(), client, "wait", time.Minute)
				blocked <- err
			}()
		}
		for range 100 {
			if got, err := call(context.Background(), client, "x", time.Minute); err != nil || got != "x" {
				t.Fatalf("mode %d: a call beside blocked ones: %q, %v", mode, got, err)
			}
		}
		close(g.gate)
		for range cap(blocked) {
			if err := <-blocked; err != nil {
				t.Errorf("mode %d: a call that was blocked: %v", mode, err)
			}
		}
	}
}

// TestGivenUp: a caller that stops waiting is let go at once, the handler's context ends, and the connection lives on.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	for _, others := range []int{0, 1} { // a caller that reads by itself, and one that does not
		for name, test := range map[string]struct {
			timeout time.Duration
			ctx     func() (context.Context, context.CancelFunc)
			want    error
		}{
			"by its timeout":     {20 * time.Millisecond, func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }, context.DeadlineExceeded},
			"by its own timeout": {20 * time.Millisecond, func() (context.Context, context.CancelFunc) { return context.Background(), func() {} }, context.DeadlineExceeded},
			"by a deadline": {0, func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), 20*time.Millisecond)
			}, context.DeadlineExceeded},
			"by cancelling": {0, func() (context.Context, context.CancelFunc) {
				ctx, stop := context.WithCancel(context.Background())
				time.AfterFunc(20*time.Millisecond, stop)
				return ctx, stop
			}, context.Canceled},
		} {
			g := newGatekeeper()
			// The handler's own time is none, so that it is the caller who ends the call.
			route := &transport.Route{Serve: g.serve, Pace: transport.NewPace(transport.PaceAdaptive), Timeout: func(time.Duration) time.Duration { return 0 }}
			client, _ := served(t, func(metadata.MD) *transport.Route { return route })
			var wg sync.WaitGroup
			for range others {
				wg.Go(func() {
					if _, err := call(context.Background(), client, "wait", time.Minute); err != nil {
						t.Errorf("the call beside: %v", err)
					}
				})
			}
			ctx, stop := test.ctx()
			_, err := call(ctx, client, "wait", test.timeout)
			stop()
			if !errors.Is(err, test.want) || transport.NotSent(err) {
				t.Errorf("%s, beside %d: %v, want %v", name, others, err, test.want)
			}
			<-g.ended
			if got, err := call(context.Background(), client, "x", time.Minute); err != nil || got != "x" {
				t.Errorf("%s, beside %d: the next call: %q, %v", name, others, got, err)
			}
			close(g.gate)
			wg.Wait()
		}
	}
}

// TestServerGone: what was not sent says so, the rest does not.
func TestServerGone(t *testing.T) {
	t.Parallel()
	g := newGatekeeper()
	client, server := served(t, router(g.serve, transport.PaceAdaptive))
	if _, err := call(context.Background(), client, "x", time.Minute); err != nil {
		t.Fatal(err)
	}
	under := make(chan error, 1)
	go func() {
		_, err := call(context.Background(), client, "wait", time.Minute)
		under <- err
	}()
	for range 3 {
		if _, err := call(context.Background(), client, "x", time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	server.Close()
	if err := <-under; err == nil || transport.NotSent(err) {
		t.Errorf("the call under way: %v, want an error that does not say that it was not sent", err)
	}
	if _, err := call(context.Background(), client, "x", time.Minute); !transport.NotSent(err) {
		t.Errorf("the next call: %v, want ErrNotSent", err)
	}
	if client.Usable() {
		t.Error("the connection is still usable")
	}
}

// TestServerGoneUnread: the end of a connection that nobody reads is noticed before the next call is sent.
func TestServerGoneUnread(t *testing.T) {
	t.Parallel()
	client, server := served(t, router(echo, transport.PaceAdaptive))
	for range 10 {
		if _, err := call(context.Background(), client, "x", time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	server.Close()
	time.Sleep(time.Millisecond) // longer than a connection may go unread; the end of it has arrived, as this is one machine
	if _, err := call(context.Background(), client, "x", time.Minute); !transport.NotSent(err) {
		t.Errorf("the next call: %v, want ErrNotSent", err)
	}
}

// TestDrain: what is under way is answered, what comes later is not sent, and both sides close.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, mode := range []transport.PaceMode{transport.PaceAdaptive, transport.PaceGoroutine} {
		g := newGatekeeper()
		client, server := served(t, router(g.serve, mode))
		under := make(chan error, 1)
		go func() {
			_, err := call(context.Background(), client, "wait", time.Minute)
			under <- err
		}()
		for range 3 {
			if _, err := call(context.Background(), client, "x", time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		drained := make(chan struct{})
		go func() { server.Drain(context.Background()); close(drained) }()
		for client.Usable() {
			time.Sleep(time.Millisecond) // until GoAway has come
		}
		if _, err := call(context.Background(), client, "x", time.Minute); !transport.NotSent(err) {
			t.Errorf("a call after GoAway: %v, want ErrNotSent", err)
		}
		close(g.gate)
		if err := <-under; err != nil {
			t.Errorf("the call under way: %v", err)
		}
		<-drained
		<-client.Done()
	}
}

// TestBothWrite: calls and answers of 4 MiB, 64 at a time, on one connection: each side has more to write than the
// other takes, and neither waits for the other for ever.
func TestBothWrite(t *testing.T) {
	t.Parallel()
	for mode, size := range map[transport.PaceMode]int{transport.PaceAdaptive: 4 << 20, transport.PaceGoroutine: 1 << 20} {
		client, _ := served(t, router(echo, mode))
		body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				var rsp transport.Message
				err := client.Call(context.Background(), &transport.Message{Timeout: time.Minute, Header: callHeader, Body: body}, &rsp)
				if err != nil || !bytes.Equal(rsp.Body, body) {
					t.Errorf("%d bytes, %v", len(rsp.Body), err)
				}
			})
		}
		wg.Wait()
	}
}

// TestNested: A's handlers call B, and B's call A, on the same connections, 64 at a time.
func TestNested(t *testing.T) {
	t.Parallel()
	var toA, toB *link.Conn
	forward := func(to **link.Conn) func(context.Context, *transport.Message, *transport.Message) {
		return func(ctx context.Context, req, rsp *transport.Message) {
			depth := req.Body[0]
			if depth > 0 {
				var in transport.Message
				out := transport.Message{Header: callHeader, Body: append([]byte{depth - 1}, req.Body[1:]...)}
				if err := (*to).Call(ctx, &out, &in); err != nil {
					t.Error(err)
				}
				rsp.Body = append(rsp.Body, in.Body...)
				return
			}
			rsp.Body = append(rsp.Body, req.Body...)
		}
	}
	toB, _ = served(t, router(forward(&toA), transport.PaceAdaptive))
	toA, _ = served(t, router(forward(&toB), transport.PaceAdaptive))
	var wg sync.WaitGroup
	for caller := range 64 {
		wg.Go(func() {
			for range 5 {
				got, err := call(context.Background(), toB, string([]byte{3, byte(caller)}), time.Minute)
				if err != nil || got != string([]byte{0, byte(caller)}) {
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestKept: what a handler keeps of a call stays as it was, whatever comes after it.
func TestKept(t *testing.T) {
	t.Parallel()
	for _, mode := range []transport.PaceMode{transport.PaceAdaptive, transport.PaceGoroutine} {
		var keepers sync.WaitGroup
		over := make(chan struct{})
		keep := func(ctx context.Context, req, rsp *transport.Message) {
			mine := string(req.Body)
			md := metadata.Incoming(ctx)
			keepers.Go(func() {
				for {
					select {
					case <-over:
						<-ctx.Done()
						if !errors.Is(ctx.Err(), context.Canceled) {
							t.Errorf("the context that was kept: %v", ctx.Err())
						}
						return
					default:
					}
					_, _ = ctx.Deadline()
					_ = ctx.Err()
					if got := metadata.Incoming(ctx).Get("n"); got != mine || md.Get("n") != mine {
						t.Errorf("metadata of call %s became that of %s", mine, got)
						return
					}
				}
			})
			echo(ctx, req, rsp)
		}
		client, _ := served(t, router(keep, mode))
		for n := range 12 {
			body := []byte{byte('0' + n/10), byte('0' + n%10)}
			var rsp transport.Message
			req := &transport.Message{Timeout: time.Minute, Body: body, Header: metadata.Of(transport.HeaderEndpoint, "Say.Hello", "n", string(body))}
			if err := client.Call(context.Background(), req, &rsp); err != nil {
				t.Fatal(err)
			}
		}
		close(over)
		keepers.Wait()
	}
}

// TestSilentServer: a server that is there and does not answer a ping costs its calls 13 seconds, and no more.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		client := link.New(near, nil, options(), nil, false)
		start := time.Now()
		_, err := call(context.Background(), client, "x", time.Minute)
		if err == nil || transport.NotSent(err) || !strings.Contains(err.Error(), "silent") {
			t.Fatalf("Call: %v, want that the server is silent", err)
		}
		if took := time.Since(start).Round(time.Second); took != 13*time.Second {
			t.Fatalf("Call took %s, want 13s", took)
		}
		client.Close()
		far.Close()
	})
}

// TestWrongAnswers: what fits no call ends the connection.
func TestWrongAnswers(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]frame.Header{
		"never called": {Kind: transport.Reply, ID: 99},
		"id 0":         {Kind: transport.Reply},
		"of a stream":  {Kind: transport.Data, ID: 1},
		"a call":       {Kind: transport.Call, ID: 1},
	} {
		c, s := sockets(t)
		client := link.New(c, c, options(), nil, false)
		go func() {
			if _, err := io.ReadFull(s, make([]byte, frame.HeaderSize)); err == nil {
				_, _ = s.Write(h.Append(nil))
			}
		}()
		if _, err := call(context.Background(), client, "x", time.Minute); !errors.Is(err, transport.ErrProtocol) || transport.NotSent(err) {
			t.Errorf("%s: %v, want ErrProtocol", name, err)
		}
		client.Close()
		s.Close()
	}
}

// TestAnswersTogether: answers that come in one read, among them one to a call that is not sent whole and one to a caller that has left,
// reach all who wait.
func TestAnswersTogether(t *testing.T) {
	t.Parallel()
	const callers = 16
	c, s := sockets(t)
	if err := errors.Join(s.SetReadBuffer(64<<10), c.SetWriteBuffer(64<<10)); err != nil {
		t.Fatal(err)
	}
	client := link.New(c, c, options(), nil, false)
	defer client.Close()
	defer s.Close()
	seen := map[uint32]bool{}
	for round := range 5 {
		var answers []byte
		var calls sync.WaitGroup
		leaver, leave := context.WithCancel(t.Context())
		for i := range callers {
			ctx, body := t.Context(), "x"
			switch i {
			case callers - 1:
				body = strings.Repeat("x", 4<<20) // the server stops reading before its end
			case 7:
				ctx = leaver
			}
			calls.Go(func() {
				if _, err := call(ctx, client, body, time.Minute); err != nil && ctx != leaver {
					t.Errorf("round %d, caller %d: %v", round, i, err)
				}
			})
			h := make([]byte, frame.HeaderSize)
			for more := true; more; { // one call after the other, so that the ids are known
				if _, err := io.ReadFull(s, h); err != nil {
					t.Fatal(err)
				}
				parsed, err := frame.Parse(h)
				if err != nil {
					t.Fatal(err)
				}
				more = parsed.Kind != transport.Call || seen[parsed.ID]
				seen[parsed.ID] = true
				if _, err := io.CopyN(io.Discard, s, int64(parsed.Section)+int64(parsed.Body)); err != nil {
					t.Fatal(err)
				}
				if !more {
					answer := frame.Header{Kind: transport.Reply, ID: parsed.ID, Section: uint16(len(contentType))}
					answers = slices.Concat(answer.Append(nil), contentType, answers) // the latest call's first
				}
			}
		}
		leave()
		if _, err := s.Write(answers); err != nil {
			t.Fatal(err)
		}
		calls.Wait()
	}
}

// TestCloseIdle: a connection is closed when no call is under way, and only then.
func TestCloseIdle(t *testing.T) {
	t.Parallel()
	g := newGatekeeper()
	client, _ := served(t, router(g.serve, transport.PaceAdaptive))
	under := make(chan error, 1)
	go func() {
		_, err := call(context.Background(), client, "wait", time.Minute)
		under <- err
	}()
	for range 3 {
		if _, err := call(context.Background(), client, "x", time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if client.CloseIdle() {
		t.Error("closed under a call")
	}
	close(g.gate)
	if err := <-under; err != nil {
		t.Error(err)
	}
	if !client.CloseIdle() || client.Usable() {
		t.Error("not closed without calls")
	}
}

// TestCallUntil: a call that is given a time ends then, and the time that is left travels with it.
func TestCallUntil(t *testing.T) {
	t.Parallel()
	told, release := make(chan time.Duration, 1), make(chan struct{})
	client, _ := served(t, router(func(_ context.Context, req, _ *transport.Message) {
		told <- req.Timeout
		<-release
	}, transport.PaceGoroutine))
	defer close(release)
	var rsp transport.Message
	req := &transport.Message{Header: callHeader, Timeout: time.Hour} // not looked at
	err := client.CallUntil(context.Background(), callctx.Now(), callctx.Now()+int64(100*time.Millisecond), req, &rsp)
	if !errors.Is(err, context.DeadlineExceeded) || transport.NotSent(err) {
		t.Errorf("got %v, want the deadline, after the call was sent", err)
	}
	if left := <-told; left <= 0 || left > 100*time.Millisecond {
		t.Errorf("the server was told of %v", left)
	}
	if err := client.CallUntil(context.Background(), callctx.Now(), callctx.Now(), req, &rsp); !errors.Is(err, context.DeadlineExceeded) || !transport.NotSent(err) {
		t.Errorf("a time that is over: got %v, want the deadline, and nothing sent", err)
	}
}

// TestToldTime: a call whose middleware took long, beside one that waits, tells the server of the time that is left, to within the tenth
// of a second for which it may rely on when it began.
func TestToldTime(t *testing.T) {
	t.Parallel()
	told, release := make(chan time.Duration, 2), make(chan struct{})
	client, _ := served(t, router(func(_ context.Context, req, _ *transport.Message) {
		told <- req.Timeout
		<-release
	}, transport.PaceGoroutine))
	defer close(release)
	var calls sync.WaitGroup
	defer calls.Wait()
	try := func(ago time.Duration) time.Duration {
		ctx, leave := context.WithCancel(context.Background())
		defer leave()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			began := callctx.Now() - int64(ago)
			_ = client.CallUntil(ctx, began, began+int64(10*time.Second), &transport.Message{Header: callHeader}, new(transport.Message))
		}()
		left := <-told
		leave()
		<-ended
		return left
	}
	under, leave := context.WithCancel(context.Background())
	defer leave()
	calls.Go(func() {
		_, _ = call(under, client, "under way", time.Minute)
	})
	<-told
	<-time.After(300 * time.Millisecond) // for so long nothing is read: only the watch, which looks every 100 ms, can tell that time has passed
	for _, ago := range []time.Duration{250 * time.Millisecond, 0, 5 * time.Second} {
		if left := try(ago); left > 10*time.Second-ago+100*time.Millisecond || left < 5*time.Second-ago {
			t.Errorf("began %v ago, with 10 s: told %v", ago, left)
		}
	}
}

// TestContextBesideOthers: a call whose context has an end does not fail before that, where it relies on when it began.
func TestContextBesideOthers(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	client, _ := served(t, router(func(context.Context, *transport.Message, *transport.Message) { <-release }, transport.PaceGoroutine))
	defer close(release) // not sooner: a handler that answers at the call's end may be quicker than the client's watch
	var calls sync.WaitGroup
	defer calls.Wait()
	under, leave := context.WithCancel(context.Background())
	defer leave()
	calls.Go(func() {
		_, _ = call(under, client, "wait", time.Minute)
	})
	<-time.After(70 * time.Millisecond) // so that a beginning of then is younger than the connection, and than the watch's last look
	began := callctx.Now() - int64(60*time.Millisecond)
	ctx, stop := context.WithTimeout(context.Background(), 90*time.Millisecond)
	defer stop()
	at, _ := ctx.Deadline()
	err := client.CallUntil(ctx, began, began+int64(time.Minute), &transport.Message{Header: callHeader}, new(transport.Message))
	if ended := time.Now(); !errors.Is(err, context.DeadlineExceeded) || ended.Before(at) {
		t.Errorf("%v, %v before the context's end", err, at.Sub(ended))
	}
}
