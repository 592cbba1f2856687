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
	"github.com/cb02dfca/micro/pkg/transport/http/internal/frame"
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
	made    atomic.Uint64 // calls that were ever registered
	heard   atomic.Uint64 // reads that gave something
	unfit   atomic.Bool   // draining, or ended

	reading  atomic.Bool          // somebody reads
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
}

// errEnded answers a call whose connection has ended.
var errEnded = errors.New("link: the connection has ended")

// Call implements transport.Caller.
func (c *Conn) Call(ctx context.Context, req, rsp *transport.Message) error {
	if err := c.fits(ctx, req); err != nil {
		return err
	}
	now := callctx.Now()
	until := expiry(ctx, req.Timeout, now)
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
		c.watchUntil(until, now)
	}
	at, err := c.sendCall(patience{ctx, until}, r, req, now)
	if err != nil {
		err = c.abandon(r, err)
	} else if err = c.await(ctx, r, now); err != nil {
		err = c.explain(err, at)
	}
	r.rsp = nil
	c.o.Buffers.calls.Put(r)
	req.Lent = req.Lent && len(req.Body) >= largeBody && !c.w.through(at)
	return err
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

// expiry is the earlier of the call's own time and ctx's.
func expiry(ctx context.Context, timeout time.Duration, now int64) int64 {
	deadline := never
	if timeout > 0 && int64(timeout) < never-now {
		deadline = now + int64(timeout)
	}
	if at, ok := ctx.Deadline(); ok {
		deadline = min(deadline, now+int64(time.Until(at)))
	}
	return deadline
}

// register gives a call its place.
func (t *calls) register(c *Conn, r *call) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.err != nil:
		return fmt.Errorf("%w: the connection to %s has ended: %w", transport.ErrNotSent, c.RemoteAddr(), t.err)
	case t.draining:
		return fmt.Errorf("%w: %s takes no more calls on this connection", transport.ErrNotSent, c.RemoteAddr())
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
	t.made.Add(1)
	return nil
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
func (c *Conn) sendCall(p patience, r *call, req *transport.Message, now int64) (span, error) {
	how := alone
	if c.calls.waiting.Load() > 1 {
		how = crowded
	}
	m := transport.Message{Kind: transport.Call, ID: r.id, Header: req.Header, Body: req.Body, Lent: req.Lent}
	if r.deadline != never {
		m.Timeout = time.Duration(r.deadline - now)
	}
	if len(req.Body) > frame.MaxBody {
		return c.sendParts(p, &m, how)
	}
	return c.send(p, &m, payload{data: req.Body, lent: req.Lent}, how)
}

// abandon ends a call that could not be sent whole.
func (c *Conn) abandon(r *call, err error) error {
	if mine, _ := c.calls.claim(r.id); mine == nil {
		<-r.answer // somebody has it: the answer is there at once
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

// take deals with what was read: it hands replies to their callers, and says how many.
func (c *Conn) take() (replies int, err error) {
	for {
		m, failed, err := c.in.next()
		if m == nil && err == nil {
			return replies, nil
		}
		if err == nil {
			err = c.in.check(m)
		}
		if err != nil {
			return replies, c.fail(fmt.Errorf("transport/http: from %s: %w", c.RemoteAddr(), err))
		}
		if err := c.receive(m, failed); err != nil {
			return replies, err
		}
		replies++
	}
}

// receive deals with one message to a client that calls.
func (c *Conn) receive(m *transport.Message, failed error) error {
	switch m.Kind {
	case transport.Reply:
		r, known := c.calls.claim(m.ID)
		if !known {
			return c.fail(fmt.Errorf("%w: %s answered call %d, which was never made", transport.ErrProtocol, c.RemoteAddr(), m.ID))
		}
		if r == nil {
			return nil // its caller has left
		}
		if failed == nil {
			c.give(m, r.rsp)
		}
		r.answer <- failed
		c.settle()
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
