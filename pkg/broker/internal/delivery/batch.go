package delivery

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
)

// batch is messages that came together, while they are handled.
//
// Each runner has a part of them, and takes one after the other by a compare-and-swap of its span; that is all that a
// message costs beside its handler. Whoever changes a span for a runner, to take over messages that it has not begun or
// to leave it behind, does so by the same means and with mu held, so that each message is settled once.
type batch struct {
	r     *Receiver
	ms    []broker.Message
	began time.Time
	done  chan struct{}

	mu       sync.Mutex
	runners  []*runner
	outcomes []Outcome // nil as long as all acknowledged
	left     int       // messages that are not settled
	behind   bool      // a runner was left behind
	timer    *time.Timer
	pause    time.Duration // until the next look
}

// runner is a goroutine that handles a part of a batch, and holds a place of the Receiver for it.
type runner struct {
	b     *batch
	first int           // where its part began
	span  atomic.Uint64 // the message that it handles, and the end of its part; equal when it has ended

	ctx      context.Context
	cancel   context.CancelFunc
	deadline time.Time // of ctx; guarded by batch.mu
}

// What a span says beside its two numbers.
const (
	stale      = 1 << 31    // the runner's context is too old for another message
	leftBehind = ^uint64(0) // the runner has no part any more, and what its handler returns is not waited for
)

func spanOf(i, end int) uint64 { return uint64(i)<<32 | uint64(end) }

func (w *runner) part() (span uint64, i, end int, ok bool) {
	span = w.span.Load()
	i, end = int(span>>32), int(uint32(span)&^stale)
	return span, i, end, span != leftBehind && i < end
}

func newBatch(r *Receiver, ms []broker.Message) *batch {
	return &batch{r: r, ms: ms, began: time.Now(), done: make(chan struct{}), left: len(ms), pause: tick}
}

// start begins to handle the messages in the place that its caller took.
func (b *batch) start() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer = time.AfterFunc(min(tick, b.r.timeout), b.look)
	b.begin(0, len(b.ms))
	if time.Duration(b.r.pace.Load()) > slow {
		b.spread()
	}
}

// begin gives the messages from i to end to a new runner, which holds a place. mu is held.
func (b *batch) begin(i, end int) {
	w := &runner{b: b, first: i}
	w.span.Store(spanOf(i, end))
	w.ctx, w.cancel = context.WithTimeout(b.r.ctx, b.r.timeout)
	w.deadline, _ = w.ctx.Deadline()
	b.runners = append(b.runners, w)
	go w.run()
}

// run handles the part.
func (w *runner) run() {
	r, start := w.b.r, time.Now()
	_, from, _, ok := w.part()
	if !ok { // it was left behind before it had its turn
		w.cancel()
		r.release()
		return
	}
	worker := r.worker()
	i, returned := from, false
	defer func() {
		if !returned { // the handler has ended the goroutine
			worker.Done()
			w.exited(i)
		}
	}()
	for more := true; more; {
		var err error
		running, ended := w.ctx, r.ending.Load()
		if !ended {
			err = call(running, worker, &w.b.ms[i])
		}
		next, ok := w.advance()
		if !ok {
			returned = true
			worker.Done()
			w.cancel()
			r.note(time.Since(start), i-from+1)
			r.release()
			return
		}
		switch {
		case ended:
			w.b.fail(i, r.gone())
		case err != nil:
			w.b.fail(i, r.judge(running, err))
		}
		more, i = next > i, max(next, i)
	}
	returned = true
	worker.Done()
	r.note(time.Since(start), i-from+1)
	w.finish()
}

// advance goes on to the next message, and gives its number, or 0 where the part has ended. It is not ok where the
// runner was left behind.
func (w *runner) advance() (next int, ok bool) {
	renewed := false
	for {
		span, i, end, ok := w.part()
		if !ok {
			return 0, false
		}
		if i+1 < end && !renewed && (span&stale != 0 || w.b.r.timeout < 100*tick) {
			w.renew() // before the swap: a context that has run out would be held against the next message
			renewed = true
		}
		if !w.span.CompareAndSwap(span, spanOf(i+1, end)) {
			continue
		}
		if i+1 == end {
			return 0, true
		}
		return i + 1, true
	}
}

// renew makes the context of the messages that follow. Quick ones share it.
func (w *runner) renew() {
	w.cancel()
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	w.ctx, w.cancel = context.WithTimeout(w.b.r.ctx, w.b.r.timeout)
	w.deadline, _ = w.ctx.Deadline()
}

// exited settles message i, whose handler ended the goroutine, and goes on with the next on another.
func (w *runner) exited(i int) {
	next, ok := w.advance()
	if !ok {
		w.cancel()
		w.b.r.release()
		return
	}
	w.b.fail(i, Outcome{Err: &Panic{Value: "runtime.Goexit"}})
	if next > i {
		go w.run()
		return
	}
	w.finish()
}

// finish ends a runner that has handled its part. Its place is free before the publisher knows, so that the next
// message finds it.
func (w *runner) finish() {
	w.cancel()
	w.b.r.release()
	_, _, end, _ := w.part()
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	w.b.settle(end - w.first)
}

// fail notes what became of message i, which its runner has handled.
func (b *batch) fail(i int, out Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(i, i+1, out)
}

// set notes what became of the messages from i to end. mu is held.
func (b *batch) set(i, end int, out Outcome) {
	if b.outcomes == nil && i < end {
		b.outcomes = make([]Outcome, len(b.ms))
	}
	for ; i < end; i++ {
		b.outcomes[i] = out
	}
}

// settle counts n messages as known. mu is held.
func (b *batch) settle(n int) {
	if b.left -= n; b.left == 0 && n > 0 {
		b.timer.Stop()
		close(b.done)
	}
}

// look is called by the timer while the batch is being handled: it lets go of handlers whose time is over, and spreads
// the messages of slow ones.
func (b *batch) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	waiting, running, next := 0, 0, now.Add(time.Hour)
	for _, w := range b.runners {
		span, i, end, ok := w.part()
		if !ok {
			continue
		}
		if !now.Before(w.deadline) {
			b.late(w, span, i, end)
			next = now.Add(b.pause) // to see who goes on with the rest
			continue
		}
		w.span.CompareAndSwap(span, span|stale) // where it fails the runner is quick, and has its turn at the next look
		waiting, running = waiting+end-i-1, running+1
		if w.deadline.Before(next) {
			next = w.deadline
		}
	}
	if b.left == 0 {
		return
	}
	known := len(b.ms) - waiting
	if waiting > 0 && now.Sub(b.began)*time.Duration(max(running, 1)) > slow*time.Duration(known) {
		b.spread()
	}
	wait := next.Sub(now)
	if waiting > 0 {
		wait = min(wait, b.pause)
		b.pause = min(2*b.pause, 8*tick)
	}
	b.timer.Reset(max(wait, time.Millisecond))
}

// late leaves w behind, whose handler's time is over, and gives the rest of its part to another, if there is a place.
// mu is held.
func (b *batch) late(w *runner, span uint64, i, end int) {
	if !w.span.CompareAndSwap(span, leftBehind) {
		return // it returned at the last moment
	}
	b.behind = true
	b.set(i, i+1, Outcome{Err: b.r.timedOut()})
	b.settle(i + 1 - w.first)
	switch {
	case i+1 == end:
	case b.r.more():
		b.begin(i+1, end)
	default:
		b.set(i+1, end, Outcome{Err: broker.ErrBusy, Refused: true})
		b.settle(end - i - 1)
	}
}

// spread gives what has not begun to further runners, as many as there are places for. mu is held.
func (b *batch) spread() {
	for {
		var most *runner
		waiting := 0
		for _, w := range b.runners {
			if _, i, end, ok := w.part(); ok && end-i-1 > waiting {
				most, waiting = w, end-i-1
			}
		}
		if most == nil || !b.r.more() {
			return
		}
		from, end, ok := most.shorten((waiting + 1) / 2)
		if !ok {
			b.r.release()
			continue
		}
		b.begin(from, end)
	}
}

// shorten takes up to n messages that have not begun from the end of the part.
func (w *runner) shorten(n int) (from, end int, ok bool) {
	for {
		span, i, end, ok := w.part()
		if n = min(n, end-i-1); !ok || n <= 0 {
			return 0, 0, false
		}
		if w.span.CompareAndSwap(span, span-uint64(n)) {
			return end - n, end, true
		}
	}
}

// stop has no further handler begin: out becomes of the messages.
func (b *batch) stop(out Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.runners {
		if from, end, ok := w.shorten(len(b.ms)); ok {
			b.set(from, end, out)
			b.settle(end - from)
		}
	}
}

// leave ends the waiting for the batch: what has not begun does not begin, and what runs is left behind.
func (b *batch) leave(ctx context.Context) {
	b.stop(Outcome{Refused: true, Err: fmt.Errorf("broker: not handled: %w", context.Cause(ctx))})
	running := Outcome{Err: fmt.Errorf("broker: no longer waiting for the handler, which runs on: %w", context.Cause(ctx))}
	b.mu.Lock()
	for _, w := range b.runners {
		if span, i, _, ok := w.part(); ok && w.span.CompareAndSwap(span, leftBehind) {
			b.behind = true
			b.set(i, i+1, running)
			b.settle(i + 1 - w.first)
		}
	}
	b.mu.Unlock()
	<-b.done // at once: a runner that is not left behind has ended, and is about to say so
}

// result gives what became of the messages, nil where all were acknowledged, and whether no handler was left behind.
func (b *batch) result() (outs []Outcome, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.outcomes, !b.behind
}
