package link

import (
	"context"
	"errors"
	"fmt"

	"github.com/cb02dfca/micro/internal/callctx"
)

// Who reads the replies. A goroutine that reads for all costs each call a wake-up, which is most of what a single caller
// pays. So a caller that finds nobody reading reads by itself, until it has its reply. Where others wait then, a goroutine
// goes on for them; it leaves when calls come one by one.

// stale is how long nobody may have read, in nanoseconds, before a caller looks whether the connection still lives.
const stale = 200_000

// solitary is how many reads in a row must have given one reply, to the only call there was, before the goroutine leaves
// the reading to callers.
const solitary = 2

// errInterrupted says that a read was broken off because its caller has been answered.
var errInterrupted = errors.New("link: interrupted")

// await waits for the answer of a call that was sent.
func (c *Conn) await(ctx context.Context, r *call, now int64) error {
	if !c.calls.reading.Load() && c.calls.reading.CompareAndSwap(false, true) {
		if c.raw != nil {
			return c.lead(ctx, r, now)
		}
		c.readBehind() // over TLS nothing can be read without waiting: one goroutine always reads
	}
	if ctx.Done() == nil {
		return <-r.answer
	}
	select {
	case err := <-r.answer:
		return err
	case <-ctx.Done():
		if c.leave(r.id) != nil {
			return ctx.Err()
		}
		return <-r.answer
	}
}

// lead reads until r is answered.
func (c *Conn) lead(ctx context.Context, r *call, now int64) error {
	c.calls.leader.Store(r)
	if ctx.Done() != nil {
		id := r.id // r may be another call's by the time that this runs
		stop := context.AfterFunc(ctx, func() {
			if r := c.leave(id); r != nil {
				led := c.calls.leader.Load() == r
				r.answer <- ctx.Err()
				if led {
					c.in.interrupt()
				}
			}
		})
		defer stop()
	}
	for {
		select {
		case err := <-r.answer:
			c.calls.leader.Store(nil)
			c.calls.lastRead.Store(now)
			c.stopReading()
			return err
		default:
		}
		c.turn()
	}
}

// turn reads once, and deals with what came. Where it fails the connection has, and all calls are answered.
func (c *Conn) turn() {
	if c.in.fill(context.Background()) != nil {
		return
	}
	c.calls.heard.Add(1)
	_, last, _ := c.take()
	last.hand()
}

// readBehind has a goroutine read. The caller has set reading.
func (c *Conn) readBehind() {
	if !c.later(c.read) {
		c.calls.reading.Store(false) // the connection has ended, and all calls are answered
	}
}

// read is one of two goroutines that read for all calls by turns: see pass.
func (c *Conn) read() {
	for c.readOn() {
		if !<-c.calls.baton {
			return
		}
	}
}

// readOn reads until the connection ends, until calls come one by one, or until the other goroutine has the reading, which
// it tells by true.
func (c *Conn) readOn() (passed bool) {
	if c.calls.holds {
		c.calls.holds = false
		c.w.release()
	}
	for alone := 0; ; {
		err := c.in.fill(context.Background())
		if err == nil {
			c.calls.heard.Add(1)
			held := c.calls.waiting.Load() > 1 && c.w.hold()
			n, last, err := c.take()
			if held && n > 1 && err == nil && c.pass(last) {
				return true
			}
			last.hand()
			if held {
				c.w.release()
			}
			if n > 1 || c.calls.waiting.Load() > 0 || c.raw == nil {
				alone = 0
			} else {
				alone++
			}
		}
		if err != nil && !errors.Is(err, errInterrupted) {
			c.dismiss()
			return false
		}
		if alone >= solitary {
			c.dismiss()
			c.calls.lastRead.Store(callctx.Now())
			c.stopReading()
			return false
		}
	}
}

// pass gives the reading, and what the callers of the latest replies send next, which is held back, to the other goroutine.
// It wakes that one after all callers but the last, whom it wakes then: the scheduler runs who was woken last first, and the
// others in order. So all of them have had their turns before the other goroutine writes what they sent, in one go. To yield would
// not do: who yields is run at once by a processor that has nothing else to do.
func (c *Conn) pass(last reply) bool {
	t := &c.calls
	t.holds = true
	if t.paired {
		t.baton <- true
	} else {
		if t.baton == nil {
			t.baton = make(chan bool, 1)
		}
		t.paired = true
		if !c.later(c.read) {
			t.paired, t.holds = false, false
			return false
		}
	}
	last.hand()
	return true
}

// dismiss ends the other goroutine, which waits.
func (c *Conn) dismiss() {
	if c.calls.paired {
		c.calls.paired = false
		c.calls.baton <- false
	}
}

// stopReading leaves the reading to whoever calls next. Those who wait already, and saw somebody reading, get a goroutine.
func (c *Conn) stopReading() {
	c.calls.reading.Store(false)
	if c.calls.waiting.Load() > 0 && c.calls.reading.CompareAndSwap(false, true) {
		c.readBehind()
	}
}

// refresh looks, before a call is sent, at what has come while nobody read: the server may have gone away, and the call would
// be lost that could go elsewhere.
func (c *Conn) refresh(now int64) {
	t := &c.calls
	if c.raw == nil || now-t.lastRead.Load() < stale || t.reading.Load() || !t.reading.CompareAndSwap(false, true) {
		return
	}
	t.lastRead.Store(now)
	if some, err := c.in.probe(); some && err == nil {
		_, last, _ := c.take() // where it fails the connection has, and the call will be told
		last.hand()
	}
	c.stopReading()
}

// lost ends the connection because its peer is silent.
func (c *Conn) lost() {
	c.fail(fmt.Errorf("transport: %s has been silent for %s and does not answer a ping", c.RemoteAddr(), pingAfter+pingTime))
}
