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
	"unsafe"
)

// base is where Now counts from. It is not changed.
var base = time.Now()

// Now is the monotonic time in nanoseconds, for deadlines.
func Now() int64 { return int64(time.Since(base)) }

// Never is the deadline of a Context that has none.
const Never int64 = 1<<63 - 1

// most is how many contexts are allocated at a time, 768 bytes, by a Slab that has made as many; the first time it is one. A context that is
// kept keeps those that were allocated with it, and what they came from.
const most = 32

// Slab makes contexts. The zero Slab is ready. It is not for concurrent use.
type Slab struct {
	free    []Context
	origin  *origin // of the latest context
	origins []origin
	made    uint32 // how many contexts were allocated last
	changes uint32 // and origins
}

// origin is what a context comes from, and what most have in common that are made in a row. The fewer bytes a context has of its own, the
// less often the collector runs: it takes a good part of what a call costs.
type origin struct {
	parent context.Context
	values Values
}

// New gives a Context that ends with parent, at the deadline, or by End. values is what it carries beside its
// parent; nil is nothing. The caller calls End.
func (s *Slab) New(parent context.Context, deadline int64, values Values) *Context {
	if s.origin == nil || !s.origin.is(parent, values) {
		s.originate(parent, values)
	}
	if len(s.free) == 0 {
		s.made = next(s.made)
		s.free = make([]Context, s.made)
	}
	c := &s.free[0]
	s.free = s.free[1:]
	c.origin, c.deadline = s.origin, deadline
	return c
}

// originate makes the origin of the next contexts. Where each has another one, they are allocated together, too.
func (s *Slab) originate(parent context.Context, values Values) {
	if len(s.origins) == 0 {
		s.changes = next(s.changes)
		s.origins = make([]origin, s.changes)
	}
	s.origin = &s.origins[0]
	s.origins = s.origins[1:]
	s.origin.parent, s.origin.values = parent, values
}

// next is how many are allocated after so many.
func next(n uint32) uint32 { return min(max(2*n, 1), most) }

// is reports whether a context of this parent with these values comes from here.
func (o *origin) is(parent context.Context, values Values) bool {
	return same(unsafe.Pointer(&o.parent), unsafe.Pointer(&parent)) && same(unsafe.Pointer(&o.values), unsafe.Pointer(&values))
}

// same reports whether two interfaces of one type, at these addresses, have the same value at the same address: not every context can be
// compared by what it is.
func same(a, b unsafe.Pointer) bool { return *(*[2]uintptr)(a) == *(*[2]uintptr)(b) }

// Values is what a Context carries, as the method of that name of context.Context tells.
type Values interface{ Value(key any) any }

// Context is a call's context. Its methods may be called concurrently.
type Context struct {
	origin   *origin
	deadline int64
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
	at, ok := c.origin.parent.Deadline()
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
func (c *Context) Parent() context.Context { return c.origin.parent }

// Err implements context.Context.
func (c *Context) Err() error {
	if s := c.state.Load(); s != nil {
		if err := s.failed(); err != nil {
			return err
		}
	}
	if c.deadline != Never && Now() >= c.deadline {
		c.End(context.DeadlineExceeded)
	} else if err := c.origin.parent.Err(); err != nil {
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
	if c.origin.values != nil {
		if v := c.origin.values.Value(key); v != nil {
			return v
		}
	}
	return c.origin.parent.Value(key)
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
	if c.origin.parent.Done() != nil {
		s.unhook = context.AfterFunc(c.origin.parent, func() { s.end(c.origin.parent.Err()) })
	}
	return s
}
