// Package delivery is what brokers that reach subscribers themselves have in common: running a subscription's handler
// within its bounds, fanning a message out, and ending both when the broker is closed.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/status"
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

// Panic is the error of a handler that panicked, or that left its goroutine.
type Panic struct {
	Value any
	Stack []byte
}

// Error gives the value, without the stack.
func (p *Panic) Error() string { return fmt.Sprintf("broker: the handler panicked: %v", p.Value) }

// Receiver runs the handler of one subscription. Its methods may be called concurrently.
type Receiver struct {
	handler broker.Handler
	timeout time.Duration
	slots   chan struct{}
	ctx     context.Context // ends with Close; handlers' contexts come from it
	cancel  context.CancelFunc

	mu      sync.Mutex // orders running.Add before the Wait of Close
	closed  bool
	running sync.WaitGroup
}

// NewReceiver gives a Receiver that runs h within o's bounds until Close.
func NewReceiver(h broker.Handler, o broker.SubscribeOptions) *Receiver {
	r := &Receiver{handler: h, timeout: o.Timeout, slots: make(chan struct{}, o.Concurrency)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Busy reports whether a message would be refused now: a cheap look before its body is read.
func (r *Receiver) Busy() bool { return len(r.slots) == cap(r.slots) }

// Deliver runs the handler with m, which becomes the handler's own, and waits until it has returned or its time has run
// out; a handler that runs on holds its slot until it returns. The end of ctx ends the waiting alone: a message that
// was taken is handled, whether or not its publisher stays.
func (r *Receiver) Deliver(ctx context.Context, m *broker.Message) Outcome {
	if out, ok := r.acquire(); !ok {
		return out
	}
	running, cancel := context.WithTimeout(r.ctx, r.timeout)
	done := make(chan error, 1)
	go func() {
		defer r.running.Done()
		defer cancel()
		err := error(&Panic{Value: "runtime.Goexit"})
		// The slot is free before the publisher knows, so that its next message finds it.
		defer func() { <-r.slots; done <- err }()
		err = call(running, r.handler, m)
	}()
	timer := time.NewTimer(r.timeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return r.judge(running, err)
	case <-timer.C:
		return Outcome{Err: r.timedOut()}
	case <-ctx.Done():
		return Outcome{Err: fmt.Errorf("broker: no longer waiting for the handler, which runs on: %w", context.Cause(ctx))}
	}
}

// acquire takes a slot, or tells why there is none.
func (r *Receiver) acquire() (Outcome, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return Outcome{Err: fmt.Errorf("%w: subscription", broker.ErrClosed), Refused: true, Gone: true}, false
	}
	select {
	case r.slots <- struct{}{}:
	default:
		return Outcome{Err: broker.ErrBusy, Refused: true}, false
	}
	r.running.Add(1)
	return Outcome{}, true
}

// judge tells a handler that ended for its context's sake from one that failed.
func (r *Receiver) judge(running context.Context, err error) Outcome {
	switch {
	case err == nil:
		return Outcome{}
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

// call runs h and turns a panic into an error.
func call(ctx context.Context, h broker.Handler, m *broker.Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Panic{Value: v, Stack: debug.Stack()}
		}
	}()
	return h(ctx, m)
}

// Close refuses what comes from now on, ends the contexts of the running handlers, and waits until they have returned.
func (r *Receiver) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.running.Wait()
}
