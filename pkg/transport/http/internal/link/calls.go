package link

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

const never = callctx.Never

// firstSlots is how many calls a connection has places for at first. The table doubles when half of them are taken.
const firstSlots = 16

// calls are a client's calls that wait for their replies. An id is a slot of the table and, above it, how often the slots
// were gone round: it rises with each call, is used once, and a slot whose call takes long is passed over. So a
// late reply never meets another call, and finding a call is one look.
type calls struct {
	mu       sync.Mutex
	slots    []*call
	last     uint32 // the latest id
	draining bool
	err      error // why the connection ended

	waiting atomic.Int32  // calls in the table; changed under the lock
	made    uint64        // calls that were ever registered; under the lock
	heard   atomic.Uint64 // reads that gave something
	unfit   atomic.Bool   // draining, or ended

	reading  atomic.Bool          // somebody reads
	paired   bool                 // and another goroutine waits for the baton; of the one who reads
	holds    bool                 // what is sent meanwhile is held back for the one who reads
	passed   int64                // when the reading was passed on
	behind   int                  // to behind how many callers
	slow     int                  // how many times in a row they took long
	apart    int                  // how many times they are still woken apart
	baton    chan bool            // true: read; false: nobody needs you
	leader   atomic.Pointer[call] // the call whose caller does
	lastRead atomic.Int64         // about when, on callctx's clock
	alarm    atomic.Int64         // when the watch will look; never where it does not
	watch    watch
}

// call is the record of a call. It is used again for others. Whoever takes it out of the table, the one who reads, the
// watch or its caller, answers it.
type call struct {
	id       uint32
	deadline int64
	rsp      *transport.Message
	answer   chan error

	// Of the one who reads, and from the answer on of its caller.
	next   *call // whose caller it wakes
	failed error // the answer, while nobody has sent it
	relays bool  // it wakes the goroutine that reads next
}

// errEnded answers a call whose connection has ended.
var errEnded = errors.New("link: the connection has ended")

// Call implements transport.Caller.
func (c *Conn) Call(ctx context.Context, req, rsp *transport.Message) error {
	now, until := callctx.Now(), never
	if req.Timeout > 0 && int64(req.Timeout) < never-now {
		until = now + int64(req.Timeout)
	}
	return c.CallUntil(ctx, now, until, req, rsp)
}

// CallUntil is Call for a call that began and ends at a time, as callctx.Now counts, in place of ending after req.Timeout: who has looked
// at the clock already may spare the call another look.
func (c *Conn) CallUntil(ctx context.Context, began, until int64, req, rsp *transport.Message) error {
	now := c.about(began, until)
	if err := c.fits(ctx, req); err != nil {
		return err
	}
	if at, ok := ctx.Deadline(); ok {
		now = callctx.Now()
		until = min(until, now+int64(time.Until(at)))
	}
	if until <= now {
		return c.notSent(context.DeadlineExceeded)
	}
	c.refresh(now)
	r := c.o.Buffers.calls.Get().(*call)
	r.rsp, r.deadline = rsp, until
	if err := c.calls.register(c, r); err != nil {
		c.o.Buffers.calls.Put(r)
		return err
	}
	if alarm := c.calls.alarm.Load(); until < alarm || alarm == never {
		c.watchUntil(until)
	}
	at, err := c.sendCall(ctx, r, req, now)
	switch {
	case err != nil:
		err = c.abandon(r, err)
	case ctx.Done() == nil && c.calls.reading.Load():
		err = <-r.answer // here, not in a function of its own, of which the caller would have to return
	default:
		err = c.await(ctx, r, now)
	}
	c.wakeNext(r)
	if err != nil {
		err = c.explain(err, at)
	}
	r.rsp = nil
	c.o.Buffers.calls.Put(r)
	req.Lent = req.Lent && len(req.Body) >= largeBody && !c.w.through(at)
	return err
}

// precise is the time, in nanoseconds, that a call must have for about to be good enough.
const precise = int64(time.Second)

// about gives about what the time is, for a call that began a moment ago and ends at until. The clock, which costs a thirtieth of a busy
// call, is spared those who have much time and call where others do, if since began the watch, which looks every lookEvery, has not looked. So
// the time is too early by no more than that, if a middleware took long, and less where replies came meanwhile. The call's end is not.
func (c *Conn) about(began, until int64) int64 {
	t := &c.calls
	if t.waiting.Load() > 0 && until-began >= precise && began >= t.lastRead.Load() && began >= t.alarm.Load()-int64(lookEvery) {
		return began
	}
	return callctx.Now()
}

// explain gives the error of a call that has a place in the connection's bytes.
func (c *Conn) explain(err error, at span) error {
	switch {
	case err != errEnded: //nolint:errorlint // passed from hand to hand, never wrapped
		return err
	case c.w.unsent(at):
		return c.notSent(c.err)
	}
	return fmt.Errorf("transport: the connection to %s ended after the call was sent: %w", c.RemoteAddr(), c.err)
}

// Usable implements transport.Caller.
func (c *Conn) Usable() bool { return !c.calls.unfit.Load() }

// CloseIdle implements transport.Caller.
func (c *Conn) CloseIdle() bool {
	c.calls.mu.Lock()
	idle := c.calls.waiting.Load() == 0
	if idle {
		c.calls.drain()
	}
	c.calls.mu.Unlock()
	if idle {
		_ = c.Close() // gives no error
	}
	return idle
}

// drain lets no further calls in. The caller holds the lock.
func (t *calls) drain() {
	t.draining = true
	t.unfit.Store(true)
}

// fits refuses what cannot be sent.
func (c *Conn) fits(ctx context.Context, req *transport.Message) error {
	if len(req.Body) > c.o.MaxMessage || len(req.Header) > frame.MaxSection {
		return transport.Check(req, c.o.MaxMessage)
	}
	if err := ctx.Err(); err != nil {
		return c.notSent(err)
	}
	return nil
}

// register gives a call its place.
func (t *calls) register(c *Conn, r *call) error {
	t.mu.Lock()
	if t.err != nil || t.draining {
		t.mu.Unlock()
		return t.closed(c)
	}
	if 2*int(t.waiting.Load()) >= len(t.slots) {
		t.grow()
	}
	mask := uint32(len(t.slots) - 1)
	for t.last++; t.slots[t.last&mask] != nil; {
		t.last++
	}
	if t.last > math.MaxUint32-math.MaxUint16 {
		t.drain() // ids are used once: the next call goes to a new connection
	}
	r.id = t.last
	t.slots[r.id&mask] = r
	t.waiting.Add(1)
	t.made++
	t.mu.Unlock()
	return nil
}

// closed says why no more calls are let in.
func (t *calls) closed(c *Conn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return fmt.Errorf("%w: the connection to %s has ended: %w", transport.ErrNotSent, c.RemoteAddr(), t.err)
	}
	return fmt.Errorf("%w: %s takes no more calls on this connection", transport.ErrNotSent, c.RemoteAddr())
}

// grow doubles the table.
func (t *calls) grow() {
	old := t.slots
	t.slots = make([]*call, max(firstSlots, 2*len(old)))
	for _, r := range old {
		if r != nil {
			t.slots[r.id&uint32(len(t.slots)-1)] = r
		}
	}
}

// claim takes the call with that id out of the table; nil where it is not there. known says whether there ever was one.
func (t *calls) claim(id uint32) (r *call, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known = id != 0 && id <= t.last
	if !known || len(t.slots) == 0 { // they are gone once the connection has ended
		return nil, known
	}
	slot := &t.slots[id&uint32(len(t.slots)-1)]
	if r = *slot; r == nil || r.id != id {
		return nil, true
	}
	*slot = nil
	t.waiting.Add(-1)
	return r, true
}

// sendCall puts the frames of a call into the queue, and gives its place.
func (c *Conn) sendCall(ctx context.Context, r *call, req *transport.Message, now int64) (span, error) {
	how := alone
	if c.calls.waiting.Load() > 1 {
		how = crowded
	}
	h := frame.Header{Body: uint32(len(req.Body)), ID: r.id, Section: uint16(len(req.Header)), Kind: transport.Call}
	if r.deadline != never {
		h.Timeout = frame.Timeout(time.Duration(r.deadline - now))
	}
	if len(req.Body) <= frame.MaxBody {
		at, lead, full, err := c.w.add(&h, req.Header, payload{data: req.Body, lent: req.Lent}, &c.w.whole, nil, now)
		if !full && err == nil {
			if lead {
				c.push(how)
			}
			return at, nil
		}
	}
	return c.sendSlowly(ctx, r, req, frame.Duration(h.Timeout), how)
}

// sendSlowly is sendCall for what may have to wait: a long body, or a queue that is full.
func (c *Conn) sendSlowly(ctx context.Context, r *call, req *transport.Message, timeout time.Duration, how manner) (span, error) {
	m := transport.Message{Kind: transport.Call, ID: r.id, Header: req.Header, Body: req.Body, Timeout: timeout, Lent: req.Lent}
	p := patience{ctx: ctx, answer: r.answer}
	if len(req.Body) > frame.MaxBody {
		return c.sendParts(p, &m, how)
	}
	return c.send(p, &m, payload{data: req.Body, lent: req.Lent}, how)
}

// abandon ends a call that could not be sent whole. An answer that has come all the same counts.
func (c *Conn) abandon(r *call, err error) error {
	if mine, _ := c.calls.claim(r.id); mine == nil {
		// Somebody has it: the answer is there, or comes as soon as those before it in a chain are awake.
		if answered := <-r.answer; answered == nil {
			err = nil
		}
	}
	c.settle()
	return err
}

// leave ends a call whose caller waits no longer. It gives nil where the call is being answered, or has been.
func (c *Conn) leave(id uint32) *call {
	r, _ := c.calls.claim(id)
	if r != nil {
		c.post(frame.Header{Kind: transport.Cancel, ID: id})
		c.settle()
	}
	return r
}

// settle closes a connection that takes no more calls when the last was answered.
func (c *Conn) settle() {
	if c.calls.unfit.Load() && c.calls.waiting.Load() == 0 {
		c.fail(transport.ErrClosed)
	}
}

// fail answers every call that waits.
func (t *calls) fail(err error) {
	t.mu.Lock()
	t.err = err
	t.unfit.Store(true)
	slots := t.slots
	t.slots = nil
	t.waiting.Store(0)
	t.mu.Unlock()
	t.watch.stop()
	for _, r := range slots {
		if r != nil {
			r.answer <- errEnded
		}
	}
}

// chain are callers who have been answered and are woken one by the other: each wakes the next before it goes on. A caller that makes
// its next call at once is then out of the way when the next one runs, on the same processor, and what they all touch is
// there. Where they are all woken by the one who reads, half of them are run by another processor, which fetches it first.
type chain struct {
	first, last *call
	n           int
	apart       bool // each is woken by the one who reads, when the next is there
}

// add adds the caller of r, whose answer is err.
func (h *chain) add(r *call, err error) {
	r.failed = err
	switch {
	case h.first == nil:
		h.first = r
	case h.apart:
		h.wake()
		h.first = r
	default:
		h.last.next = r
	}
	h.last = r
	h.n++
}

// wake wakes the first.
func (h *chain) wake() {
	if h.first != nil {
		h.first.answer <- h.first.failed
	}
}

// wakeNext is what a caller does first that has been answered: nobody but it knows of those behind it.
func (c *Conn) wakeNext(r *call) {
	if next := r.next; next != nil {
		r.next = nil
		next.answer <- next.failed
	} else if r.relays {
		r.relays = false
		c.calls.baton <- true
	}
}

// take deals with what was read: it makes a chain of those who were answered.
func (c *Conn) take(h *chain) error {
	leader := c.calls.leader.Load()
	for {
		m, failed, err := c.in.next()
		if m == nil && err == nil {
			return nil
		}
		if err == nil {
			err = c.in.check(m)
		}
		if err != nil {
			return c.fail(fmt.Errorf("transport/http: from %s: %w", c.RemoteAddr(), err))
		}
		if m.Kind != transport.Reply {
			if err := c.receive(m); err != nil {
				return err
			}
			continue
		}
		next, err := c.reply(m, failed)
		if err != nil {
			return err
		}
		switch {
		case next == nil:
		case next == leader:
			next.answer <- failed
		default:
			h.add(next, failed)
		}
	}
}

// reply gives a message to the call that it answers.
func (c *Conn) reply(m *transport.Message, failed error) (*call, error) {
	r, known := c.calls.claim(m.ID)
	if !known {
		return nil, c.fail(fmt.Errorf("%w: %s answered call %d, which was never made", transport.ErrProtocol, c.RemoteAddr(), m.ID))
	}
	if r == nil {
		return nil, nil // its caller has left
	}
	if failed == nil {
		c.give(m, r.rsp)
	}
	c.settle()
	return r, nil
}

// receive deals with a message that is no reply.
func (c *Conn) receive(m *transport.Message) error {
	switch m.Kind {
	case transport.GoAway:
		c.calls.mu.Lock()
		c.calls.drain()
		c.calls.mu.Unlock()
		c.settle()
	case transport.Ping:
		c.post(frame.Header{Kind: transport.Pong, ID: m.ID})
	case transport.Pong:
	default:
		return c.fail(fmt.Errorf("%w: %s sent a %s on a connection of unary calls", transport.ErrProtocol, c.RemoteAddr(), m.Kind))
	}
	return nil
}
