package program

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cb02dfca/micro/pkg/status"
)

// Gate bounds how many processes run at once, and how many calls wait for their turn, first come first served.
type Gate struct {
	slots   chan struct{}
	queue   int64
	waiting atomic.Int64
}

// NewGate makes a gate for running processes and waiting calls. A running of 0 means twice the number of processors; a
// queue of 0 means that nobody waits. The error wraps ErrInvalid.
func NewGate(running, queue int) (*Gate, error) {
	if running == 0 {
		running = defaultConcurrency()
	}
	if running < 0 || running > MaxConcurrency {
		return nil, fmt.Errorf("%w: concurrency %d, want 1 to %d", ErrInvalid, running, MaxConcurrency)
	}
	if queue < 0 {
		return nil, fmt.Errorf("%w: queue %d, want 0 or more", ErrInvalid, queue)
	}
	return &Gate{slots: make(chan struct{}, running), queue: int64(queue)}, nil
}

// Load tells how many processes run and how many calls wait, at about the same time.
func (g *Gate) Load() (running, waiting int) { return len(g.slots), int(g.waiting.Load()) }

// enter takes a slot, which leave gives back. Its errors say that nothing ran.
func (g *Gate) enter(ctx context.Context, closing <-chan struct{}) error {
	select {
	case g.slots <- struct{}{}:
		return nil
	default:
	}
	if g.waiting.Add(1) > g.queue {
		g.waiting.Add(-1)
		return status.Refuse(status.ResourceExhausted, "busy: %d running and %d waiting", cap(g.slots), g.queue)
	}
	defer g.waiting.Add(-1)
	select {
	case g.slots <- struct{}{}:
		return nil
	case <-closing:
		return errClosing()
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return status.Refuse(status.Canceled, "the caller went away while the call waited for its turn")
		}
		return status.Refuse(status.ResourceExhausted, "busy: the call's time ran out while it waited for its turn")
	}
}

func (g *Gate) leave() { <-g.slots }

func errClosing() error {
	return status.Refuse(status.Unavailable, "shutting down")
}
