package server

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
)

// cutGrace is how long handlers whose context ended get to return before Serve leaves them behind.
const cutGrace = 5 * time.Second

// serving is the state of one Serve.
type serving struct {
	*Server
	base context.Context // ends when the drain's time is over: the context of every handler hangs on it
	work sync.WaitGroup  // the accept loop, the connections' loops and their handlers
	busy atomic.Int64    // calls and streams whose last message has not been handed to the transport; see underWay

	topics   map[string]*topic
	routes   routes
	plain    sync.Pool // of *plainCall
	lookouts sync.Pool // of *lookout

	mu    sync.RWMutex
	conns map[transport.Conn]struct{}
	ended bool
}

func (r *serving) accept(l transport.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if !r.add(c) {
			_ = c.Close() // accepted in the moment of stopping
			continue
		}
		r.work.Go(func() {
			defer r.remove(c)
			r.converse(c)
		})
	}
}

func (r *serving) add(c transport.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.conns[c] = struct{}{}
	}
	return !r.ended
}

func (r *serving) remove(c transport.Conn) {
	_ = c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

// stop drains, then cuts what is left.
func (r *serving) stop(l transport.Listener, cut context.CancelFunc) error {
	r.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), r.shutdownTimeout)
	defer cancel()
	if sh, ok := l.(transport.Shutdowner); ok {
		_ = sh.Shutdown(ctx) // its error says that time ran out, which the counts below tell better
	}
	r.awaitIdle(ctx)
	left := r.underWay()
	cut()
	_ = l.Close()
	r.mu.Lock()
	r.ended = true
	for c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	done := make(chan struct{})
	go func() { r.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(cutGrace):
		return fmt.Errorf("server %s: %d handlers did not return within %v of their context's end", r.name, r.underWay(), cutGrace)
	}
	if left > 0 {
		return fmt.Errorf("server %s: %d calls were cut off after %v", r.name, left, r.shutdownTimeout)
	}
	return nil
}

// underWay counts the calls and streams that are not over. Those of a transport.UnaryServer, which drains its connections by
// itself, are in a gate alone; others are in busy until they were answered, and in a gate while their handler runs.
func (r *serving) underWay() int64 {
	return max(r.busy.Load(), r.calls.count.Load()+r.streams.count.Load()+r.debug.count.Load())
}

// awaitIdle waits until no call and no stream is under way, and each has been answered.
func (r *serving) awaitIdle(ctx context.Context) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for r.underWay() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
