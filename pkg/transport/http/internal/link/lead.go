package link

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	var h chain
	_ = c.take(&h)
	h.wake()
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
		c.calls.pace()
		c.w.release()
	}
	for alone := 0; ; {
		err := c.in.fill(context.Background())
		if err == nil {
			c.calls.heard.Add(1)
			held := c.calls.waiting.Load() > 1 && c.w.hold()
			h := chain{apart: c.calls.apart > 0}
			err := c.take(&h)
			if held && h.n > 1 && err == nil && c.pass(&h) {
				return true
			}
			h.wake()
			if held {
				c.w.release()
			}
			if h.n > 1 || c.calls.waiting.Load() > 0 || c.raw == nil {
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
// The last of the callers wakes that one. So all of them have had their turns before the other goroutine writes what they sent, in one go.
// To yield would not do: who yields is run at once by a processor that has nothing else to do.
func (c *Conn) pass(h *chain) bool {
	t := &c.calls
	if !t.paired {
		if t.baton == nil {
			t.baton = make(chan bool, 1)
		}
		if !c.later(c.follow) {
			return false
		}
		t.paired = true
	}
	t.holds, t.passed, t.behind = true, callctx.Now(), h.n
	t.lastRead.Store(t.passed)
	h.last.relays = true
	h.wake()
	return true
}

// How the callers of replies that came together are woken.
const (
	turnTime  = 10 * time.Microsecond // what a caller of a chain may take on the average until it makes its next call, or leaves
	slowRuns  = 3                     // so many chains in a row that took longer have the next ones woken apart
	apartRuns = 64                    // so many
)

// pace decides how the callers of the next replies are woken: one by the other as long as they are quick. Those who have more to do
// than to call would keep the others waiting, and processors without work. A single chain that took long says nothing: the
// system may have had the processor do something else.
func (t *calls) pace() {
	switch {
	case t.apart > 0:
		t.apart--
	case callctx.Now()-t.passed < int64(t.behind)*int64(turnTime):
		t.slow = 0
	case t.slow < slowRuns-1:
		t.slow++
	default:
		t.apart = apartRuns
	}
}

// follow is read for one who waits for the baton first.
func (c *Conn) follow() {
	if <-c.calls.baton {
		c.read()
	}
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
		var h chain
		_ = c.take(&h) // where it fails the connection has, and the call will be told
		h.wake()
	}
	c.stopReading()
}

// lost ends the connection because its peer is silent.
func (c *Conn) lost() {
	c.fail(fmt.Errorf("transport: %s has been silent for %s and does not answer a ping", c.RemoteAddr(), pingAfter+pingTime))
}
