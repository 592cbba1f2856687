package delivery

import (
	"context"
	"sync"

	"github.com/cb02dfca/micro/pkg/broker"
)

// closing is the cause of the contexts that Close ends: broker.ErrClosed without the package's name, since it stands
// inside errors that begin with it.
type closing struct{}

func (closing) Error() string        { return "the broker was closed" }
func (closing) Is(target error) bool { return target == broker.ErrClosed }

// Gate lets a broker's methods in until it is closed, and ends those that are under way then.
type Gate struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex // orders inside.Add before the Wait of Close
	closed bool
	inside sync.WaitGroup
}

// NewGate gives an open gate.
func NewGate() *Gate {
	g := &Gate{}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// Context ends with Close.
func (g *Gate) Context() context.Context { return g.ctx }

// Enter gives a context that ends with ctx, after broker.DefaultTimeout where ctx has no deadline, and with a cause
// that wraps broker.ErrClosed when the gate is closed. leave is called when the method returns. The error is ErrClosed.
func (g *Gate) Enter(ctx context.Context) (inner context.Context, leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil, broker.ErrClosed
	}
	g.inside.Add(1)
	timed, stopTimer := ctx, context.CancelFunc(func() {})
	if _, ok := ctx.Deadline(); !ok {
		timed, stopTimer = context.WithTimeout(ctx, broker.DefaultTimeout)
	}
	inner, cancel := context.WithCancelCause(timed)
	stop := context.AfterFunc(g.ctx, func() { cancel(closing{}) })
	return inner, func() {
		stop()
		cancel(nil)
		stopTimer()
		g.inside.Done()
	}, nil
}

// Close ends the contexts of those inside and waits until they have left. It reports whether it was the first.
func (g *Gate) Close() bool {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	g.inside.Wait()
	return first
}
