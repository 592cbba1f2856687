// Package callctx is the context of a call: one that costs next to nothing until somebody waits for its end.
//
// A context of the standard library with a deadline takes a timer, a place in its parent's list and several allocations
// for each call, and most handlers never look at it. A [Context] is a few words of a [Slab]; its channel, its timer and
// its hook in the parent are made by the first Done or AfterFunc. It is never used again for another call, so it
// may be kept.
package callctx

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// base is where Now counts from. It is not changed.
var base = time.Now()

// Now is the monotonic time in nanoseconds, for deadlines.
func Now() int64 { return int64(time.Since(base)) }

// Never is the deadline of a Context that has none.
const Never int64 = 1<<63 - 1

// slabSize is how many contexts are allocated at a time: 3 KiB. A context that is kept keeps its slab.
const slabSize = 64

// Slab makes contexts. The zero Slab is ready. It is not for concurrent use.
type Slab struct{ free []Context }

// New gives a Context that ends with parent, at the deadline, or by End. values is what it carries beside its
// parent; nil is nothing. The caller calls End.
func (s *Slab) New(parent context.Context, deadline int64, values Values) *Context {
	if len(s.free) == 0 {
		s.free = make([]Context, slabSize)
	}
	c := &s.free[0]
	s.free = s.free[1:]
	c.parent, c.deadline, c.values = parent, deadline, values
	return c
}

// Values is what a Context carries, as the method of that name of context.Context tells.
type Values interface{ Value(key any) any }

// Context is a call's context. Its methods may be called concurrently.
type Context struct {
	parent   context.Context
	deadline int64
	values   Values
	state    atomic.Pointer[state] // nil: it has not ended, and nobody waits
}

var _ context.Context = (*Context)(nil)

// state is what a Context has once somebody waits for it, or once it has ended.
type state struct {
	done chan struct{}

	mu     sync.Mutex
	err    error
	timer  *time.Timer
	unhook func() bool // from the parent
	after  map[*func()]struct{}
}

// ended are the states of contexts that ended before anybody waited. They are shared and not changed.
var canceled, expired = endedState(context.Canceled), endedState(context.DeadlineExceeded)

func endedState(err error) *state {
	s := &state{done: make(chan struct{}), err: err}
	close(s.done)
	return s
}

// End ends the context: with context.DeadlineExceeded where err is that, else with context.Canceled. The first End counts.
func (c *Context) End(err error) {
	s := canceled
	if err == context.DeadlineExceeded { //nolint:errorlint // it is one of two sentinels, wrapped by nobody
		s = expired
	}
	for !c.state.CompareAndSwap(nil, s) {
		if old := c.state.Load(); old != nil {
			old.end(s.err)
			return
		}
	}
}

func (s *state) end(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	close(s.done)
	timer, unhook, after := s.timer, s.unhook, s.after
	s.after = nil
	s.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	if unhook != nil {
		unhook()
	}
	for f := range after {
		go (*f)()
	}
}

// Deadline implements context.Context.
func (c *Context) Deadline() (time.Time, bool) {
	at, ok := c.parent.Deadline()
	if c.deadline == Never {
		return at, ok
	}
	if mine := base.Add(time.Duration(c.deadline)); !ok || mine.Before(at) {
		return mine, true
	}
	return at, true
}

// Expires is the deadline given to New, as Now counts.
func (c *Context) Expires() int64 { return c.deadline }

// Parent is the context given to New.
func (c *Context) Parent() context.Context { return c.parent }

// Err implements context.Context.
func (c *Context) Err() error {
	if s := c.state.Load(); s != nil {
		if err := s.failed(); err != nil {
			return err
		}
	}
	if c.deadline != Never && Now() >= c.deadline {
		c.End(context.DeadlineExceeded)
	} else if err := c.parent.Err(); err != nil {
		c.End(err)
	} else {
		return nil
	}
	return c.state.Load().failed()
}

func (s *state) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Value implements context.Context.
func (c *Context) Value(key any) any {
	if c.values != nil {
		if v := c.values.Value(key); v != nil {
			return v
		}
	}
	return c.parent.Value(key)
}

// Done implements context.Context.
func (c *Context) Done() <-chan struct{} { return c.waited().done }

// AfterFunc has f run on a goroutine of its own when the context ends, as context.AfterFunc does; the standard library
// uses it for contexts that are derived from this one, in place of a goroutine that waits.
func (c *Context) AfterFunc(f func()) (stop func() bool) {
	s := c.waited()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		go f()
		return func() bool { return false }
	}
	if s.after == nil {
		s.after = map[*func()]struct{}{}
	}
	s.after[&f] = struct{}{}
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		_, waiting := s.after[&f]
		delete(s.after, &f)
		return waiting
	}
}

// waited gives the state, and makes it where there is none.
func (c *Context) waited() *state {
	if s := c.state.Load(); s != nil {
		return s
	}
	s := &state{done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.state.CompareAndSwap(nil, s) {
		return c.state.Load()
	}
	if c.deadline != Never {
		s.timer = time.AfterFunc(time.Duration(c.deadline-Now()), func() { s.end(context.DeadlineExceeded) })
	}
	if c.parent.Done() != nil {
		s.unhook = context.AfterFunc(c.parent, func() { s.end(c.parent.Err()) })
	}
	return s
}
