package delivery

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/status"
)

// watchTime is after how long without one that begins the messages of a Pool do not wait for each other any more.
const watchTime = time.Millisecond

// Pool runs the handler of one subscription of a broker whose server keeps the messages: they wait for a place, and none is
// refused. Quick handlers run one after the other, in the order of the messages; where they take longer than 100 µs on average, or
// one does not return, as many at once as there are places. They begin in order, as a rule. Its methods may be called concurrently.
type Pool struct {
	handler broker.Handler
	timeout time.Duration
	places  chan struct{}
	ctx     context.Context // ends with Close; handlers' contexts come from it
	cancel  context.CancelFunc

	mu      sync.Mutex // orders running.Add before the Wait of Close
	closed  bool
	running sync.WaitGroup
	queue   []job // that no handler has begun; each has a place
	workers int
	begun   int           // handlers so far
	pace    time.Duration // how long they have taken lately
	watched bool          // a watch is under way
}

// job is a message in its place.
type job struct {
	m      *broker.Message
	settle func(error)
}

// NewPool gives a Pool that runs h within o's bounds until Close.
func NewPool(h broker.Handler, o broker.SubscribeOptions) *Pool {
	p := &Pool{handler: h, timeout: o.Timeout, places: make(chan struct{}, o.Concurrency)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Context ends when Close is called.
func (p *Pool) Context() context.Context { return p.ctx }

// Take waits for a place, and reports whether it got one: not when the Pool is closed, or when stop was closed, which may be nil. Run uses
// the place up, Give gives it back.
func (p *Pool) Take(stop <-chan struct{}) bool {
	if p.ctx.Err() != nil {
		return false
	}
	select {
	case p.places <- struct{}{}:
		return true
	case <-stop:
	case <-p.ctx.Done():
	}
	return false
}

// TakeMore takes up to n further places, without waiting, and gives how many.
func (p *Pool) TakeMore(n int) int {
	for i := range n {
		select {
		case p.places <- struct{}{}:
		default:
			return i
		}
	}
	return n
}

// Give gives back n places that were taken, and not used.
func (p *Pool) Give(n int) {
	for range n {
		<-p.places
	}
}

// Run runs the handler with m, which becomes the handler's own, in a place that was taken, and does not wait for it. settle is
// called once, with nil where the handler acknowledged: when it has returned, or when its time is over. One that
// runs on then is left behind, and holds its place until it returns. The place is free after settle has returned. Where the Pool is
// closed before the handler begins, the error wraps broker.ErrClosed.
func (p *Pool) Run(m *broker.Message, settle func(error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running.Add(1)
	p.queue = append(p.queue, job{m, settle})
	switch {
	case p.workers == 0 || p.pace > slow:
		p.work()
	case !p.watched:
		p.watched = true
		begun := p.begun
		time.AfterFunc(watchTime, func() { p.watch(begun) })
	}
}

// watch has messages handled beside each other that wait for a handler which does not return. begun is what Pool.begun was.
func (p *Pool) watch(begun int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched = len(p.queue) > 0; !p.watched {
		return
	}
	if p.begun == begun || p.pace > slow {
		for range p.queue {
			p.work()
		}
	}
	begun = p.begun
	time.AfterFunc(watchTime, func() { p.watch(begun) })
}

// work starts a worker, which ends when nothing waits. mu is held.
func (p *Pool) work() {
	p.workers++
	go func() {
		left := true // the handler has ended the goroutine
		defer func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.workers--
			if left && len(p.queue) > 0 {
				p.work()
			}
		}()
		for p.one() {
		}
		left = false
	}()
}

// one handles the first message that waits, and reports whether there was one.
func (p *Pool) one() bool {
	p.mu.Lock()
	if len(p.queue) == 0 {
		p.queue = nil
		p.mu.Unlock()
		return false
	}
	j, closed := p.queue[0], p.closed
	p.queue[0] = job{}
	p.queue = p.queue[1:]
	p.begun++
	p.mu.Unlock()
	defer p.running.Done()
	defer func() { <-p.places }()
	if closed {
		j.settle(closing{})
		return true
	}
	p.handle(j)
	return true
}

func (p *Pool) handle(j job) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(p.ctx, p.timeout)
	defer cancel()
	var once sync.Once
	late := time.AfterFunc(p.timeout+tick, func() { once.Do(func() { j.settle(p.timedOut()) }) }) // a moment for a handler that minds its context
	defer late.Stop()
	err := error(&Panic{Value: "runtime.Goexit"})
	defer func() {
		took := time.Since(start)
		p.mu.Lock()
		p.pace = (p.pace + took) / 2
		p.mu.Unlock()
		once.Do(func() { j.settle(p.judge(ctx, err)) })
	}()
	err = call(ctx, plain(p.handler), j.m)
}

// judge tells a handler that ended for its context's sake from one that failed.
func (p *Pool) judge(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return p.timedOut()
	case errors.Is(err, context.Canceled) && p.ctx.Err() != nil:
		return closing{}
	}
	return err
}

func (p *Pool) timedOut() error {
	return status.Wrap(context.DeadlineExceeded, status.HandlerTimeout, "the handler did not return within %v", p.timeout)
}

// Close lets no further handler begin, ends the contexts of those that run, and waits until they have returned.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.running.Wait()
}
