package link_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/link"
)

// The tests of this file measure on a clock that moves only while everybody waits: a call that nothing holds up takes no time,
// and what another takes is what it was held up.

// atATime is what a slow handler may hold up another call, each time.
const atATime = 10 * time.Millisecond

// beside is a connection with two endpoints, one of them fast.
type beside struct {
	t      *testing.T
	client *link.Conn
	delay  time.Duration // of the fast calls, in all
	worst  time.Duration
}

var slowHeader = metadata.Of(transport.HeaderEndpoint, "Bytes.Slow")

// newBeside gives a connection on which calls with slowHeader go to slow, and others are echoed. end closes
// it, before the end of the test's bubble.
func newBeside(t *testing.T, slow func(ctx context.Context, req, rsp *transport.Message)) (b *beside, end func()) {
	near, far := net.Pipe()
	b = &beside{t: t, client: link.New(near, nil, options(), nil, false)}
	server := link.New(far, nil, options(), nil, true)
	fastRoute := &transport.Route{Serve: echo, Pace: transport.NewPace(transport.PaceAdaptive)}
	slowRoute := &transport.Route{Serve: slow, Pace: transport.NewPace(transport.PaceAdaptive)}
	done := make(chan error, 1)
	go func() {
		done <- server.ServeCalls(context.Background(), func(h metadata.MD) *transport.Route {
			if h.Get(transport.HeaderEndpoint) == "Bytes.Slow" {
				return slowRoute
			}
			return fastRoute
		})
	}()
	return b, func() {
		b.client.Close()
		<-done
		server.Close()
		time.Sleep(time.Second) // the monitor has seen that nothing runs, and ended
	}
}

// slow makes a call of the slow endpoint.
func (b *beside) slow(body string) {
	var rsp transport.Message
	if err := b.client.Call(context.Background(), &transport.Message{Header: slowHeader, Body: []byte(body)}, &rsp); err != nil {
		b.t.Error(err)
	}
}

// fast makes a fast call and notes how long it was held up.
func (b *beside) fast() {
	began := time.Now()
	if got, err := call(context.Background(), b.client, "x", 0); err != nil || got != "x" {
		b.t.Errorf("a fast call: %q, %v", got, err)
	}
	took := time.Since(began)
	b.delay += took
	b.worst = max(b.worst, took)
}

// while makes fast calls, one each half of a millisecond, until done is closed.
func (b *beside) while(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-time.After(500 * time.Microsecond):
			b.fast()
		}
	}
}

// check tells what is over the limits, and forgets what has been measured.
func (b *beside) check(what string, limit time.Duration) {
	b.t.Helper()
	b.t.Logf("%s: %v of delay, at most %v at a time", what, b.delay, b.worst)
	if b.worst > atATime || b.delay > limit {
		b.t.Errorf("%s: fast calls were held up for %v, and for %v in all; want %v and %v at most", what, b.worst, b.delay, atATime, limit)
	}
	b.delay, b.worst = 0, 0
}

// TestBesideSlow: a handler holds up the fast calls of its connection for a moment, and then never again.
func TestBesideSlow(t *testing.T) {
	t.Parallel()
	for takes, calls := range map[time.Duration]int{300 * time.Microsecond: 60, 2 * time.Millisecond: 60, 7 * time.Millisecond: 20, 200 * time.Millisecond: 5} {
		t.Run(takes.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, end := newBeside(t, func(context.Context, *transport.Message, *transport.Message) { time.Sleep(takes) })
				defer end()
				for _, limit := range []time.Duration{2 * atATime, 0, 0} {
					done := make(chan struct{})
					go func() {
						defer close(done)
						for range calls {
							b.slow("x")
						}
					}()
					b.while(done)
					b.check("beside slow calls", limit)
				}
			})
		})
	}
}

// TestBesideBlocked: the same of a handler that does not return, and of more calls of it while it does not.
func TestBesideBlocked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		var blocked sync.WaitGroup
		release := make(chan struct{})
		b, end := newBeside(t, func(context.Context, *transport.Message, *transport.Message) { running.Add(1); <-release })
		defer end()
		for n, limit := range []time.Duration{atATime, 0, 0, 0} {
			blocked.Go(func() { b.slow("x") })
			interval := make(chan struct{})
			time.AfterFunc(300*time.Millisecond, func() { close(interval) })
			b.while(interval)
			b.check("beside one more", limit)
			if got := running.Load(); got != int32(n+1) {
				t.Errorf("%d handlers are running, want %d", got, n+1)
			}
		}
		close(release)
		blocked.Wait()
	})
}
