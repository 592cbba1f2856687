// Package delivery is what brokers have in common: running a subscription's handler within its bounds, fanning messages out to
// subscribers that a broker reaches itself, and ending both when the broker is closed.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/status"
)

// The times by which a Receiver tells quick handlers from slow ones.
const (
	// tick is how often a batch that is still being handled is looked at.
	tick = 10 * time.Millisecond
	// slow is how long a handler may take on average for its messages to be handled one after the other: below it a
	// goroutine for each costs more than it gains.
	slow = 100 * time.Microsecond
	// patience is how long a batch waits for a free place, where places do become free.
	patience = 10 * time.Millisecond
)

// Outcome is what became of a message at one subscriber.
type Outcome struct {
	// Err is nil where the handler acknowledged.
	Err error
	// Refused says that the message was not handled, so that another member of the queue may have it.
	Refused bool
	// Gone says that there is no such subscription any more. A message that was Gone everywhere failed nowhere.
	Gone bool
}

// All gives out for each of n messages.
func All(out Outcome, n int) []Outcome {
	outs := make([]Outcome, n)
	for i := range outs {
		outs[i] = out
	}
	return outs
}

// Panic is the error of a handler that panicked, or that left its goroutine.
type Panic struct {
	Value any
	Stack []byte
}

// Error gives the value, without the stack.
func (p *Panic) Error() string { return fmt.Sprintf("broker: the handler panicked: %v", p.Value) }

// Receiver runs the handler of one subscription. Its methods may be called concurrently.
type Receiver struct {
	worker  func() broker.Worker
	timeout time.Duration
	slots   chan struct{}   // one is held by each goroutine that runs handlers
	ctx     context.Context // ends with Close; handlers' contexts come from it
	cancel  context.CancelFunc
	began   time.Time
	moved   atomic.Int64 // when a slot was last taken or given back, since began
	pace    atomic.Int64 // how long a handler has taken lately, in nanoseconds
	ending  atomic.Bool  // no handler begins any more

	mu      sync.Mutex // orders running.Add before the Wait of Close
	closed  bool
	running sync.WaitGroup
}

// NewReceiver gives a Receiver that runs h within o's bounds until Close.
func NewReceiver(h broker.Handler, o broker.SubscribeOptions) *Receiver {
	r := &Receiver{worker: o.Worker, timeout: o.Timeout, slots: make(chan struct{}, o.Concurrency), began: time.Now()}
	if r.worker == nil {
		r.worker = func() broker.Worker { return plain(h) }
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// plain is a handler that has nothing to prepare, as a Worker.
type plain broker.Handler

func (h plain) Handle(ctx context.Context, m *broker.Message) error { return h(ctx, m) }
func (h plain) Done()                                               {}

// Busy reports whether messages would be refused now: a cheap look before their bodies are read.
func (r *Receiver) Busy() bool { return len(r.slots) == cap(r.slots) && r.stuck() }

// stuck reports whether no place has become free for a while.
func (r *Receiver) stuck() bool {
	return time.Since(r.began)-time.Duration(r.moved.Load()) > patience
}

// Deliver runs the handler with each of ms, which become the handler's own, and waits until each is known: nil where all
// were acknowledged, else an outcome for each. Quick handlers run one after the other, in order, on one goroutine; the
// messages of slow ones are spread over as many as there are free places. A handler that outlasts its time is left
// behind, and holds its place until it returns. When ctx ends, no further handler begins, and those that run are no
// longer waited for. over says that no handler runs any more that was given one of ms.
func (r *Receiver) Deliver(ctx context.Context, ms []broker.Message) (outs []Outcome, over bool) {
	if len(ms) == 0 {
		return nil, true
	}
	if out, ok := r.acquire(ctx); !ok {
		return All(out, len(ms)), true
	}
	b := newBatch(r, ms)
	b.start()
	select {
	case <-b.done:
	case <-r.ctx.Done():
		b.stop(r.gone())
		select {
		case <-b.done:
		case <-ctx.Done():
			b.leave(ctx)
		}
	case <-ctx.Done():
		b.leave(ctx)
	}
	return b.result()
}

func (r *Receiver) gone() Outcome {
	return Outcome{Err: fmt.Errorf("%w: subscription", broker.ErrClosed), Refused: true, Gone: true}
}

// acquire takes a place, or tells why there is none. It waits a moment for one, unless the handlers are stuck.
func (r *Receiver) acquire(ctx context.Context) (Outcome, bool) {
	select {
	case r.slots <- struct{}{}:
	default:
		if r.stuck() || !r.wait(ctx) {
			if r.ctx.Err() != nil {
				return r.gone(), false
			}
			return Outcome{Err: broker.ErrBusy, Refused: true}, false
		}
	}
	if !r.enter() {
		return r.gone(), false
	}
	return Outcome{}, true
}

// wait waits for a place.
func (r *Receiver) wait(ctx context.Context) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r.slots <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	case <-r.ctx.Done():
	}
	return false
}

// enter counts the holder of a place in, or gives the place back where the subscription is closed.
func (r *Receiver) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		<-r.slots
		return false
	}
	r.running.Add(1)
	r.moved.Store(int64(time.Since(r.began)))
	return true
}

// more takes another place, if one is free.
func (r *Receiver) more() bool {
	select {
	case r.slots <- struct{}{}:
		return r.enter()
	default:
		return false
	}
}

// release gives a place back.
func (r *Receiver) release() {
	r.moved.Store(int64(time.Since(r.began)))
	<-r.slots
	r.running.Done()
}

// note learns how long handlers take, from n of them that took d one after the other.
func (r *Receiver) note(d time.Duration, n int) {
	r.pace.Store((r.pace.Load() + int64(d)/int64(n)) / 2)
}

// judge tells a handler that ended for its context's sake from one that failed.
func (r *Receiver) judge(running context.Context, err error) Outcome {
	switch {
	case errors.Is(err, context.DeadlineExceeded) && errors.Is(running.Err(), context.DeadlineExceeded):
		return Outcome{Err: r.timedOut()}
	case errors.Is(err, context.Canceled) && r.ctx.Err() != nil:
		return Outcome{Err: status.Wrap(err, status.Unavailable, "the subscription was closed while the handler ran")}
	}
	var e *status.Error
	return Outcome{Err: err, Refused: errors.As(err, &e) && e.Refused && !e.Remote}
}

func (r *Receiver) timedOut() error {
	return status.Wrap(context.DeadlineExceeded, status.HandlerTimeout, "the handler did not return within %v", r.timeout)
}

// call runs h with m and turns a panic into an error.
func call(ctx context.Context, h broker.Worker, m *broker.Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Panic{Value: v, Stack: debug.Stack()}
		}
	}()
	return h.Handle(ctx, m)
}

// Close refuses what comes from now on, ends the contexts of the running handlers, and waits until they have returned.
func (r *Receiver) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.ending.Store(true)
	r.cancel()
	r.running.Wait()
}
