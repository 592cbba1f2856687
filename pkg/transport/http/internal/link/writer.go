package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

// What may wait to be written. Beyond it, whoever has more waits, and the peer's slowness is felt where it belongs.
const (
	maxQueued = 256 << 10 // of whole messages
	maxParts  = 96 << 10  // of messages that are cut: small ones pass between their frames, and wait for no more than this
)

// writer gathers the frames of all goroutines, and writes what has gathered in one go: flat combining. Whoever finds
// nobody writing does it, for all. It never waits for the peer: what the system does not take at once is left to a
// goroutine that lives as long as there is something left. So neither a reader nor a call with a deadline gets stuck.
type writer struct {
	c *Conn

	mu     sync.Mutex
	chunks []chunk // filled one after the other
	queued int     // bytes in them
	put    int64   // bytes that were ever added
	taken  int64   // of these, the ones that the system may have
	busy   bool    // somebody writes, or holds
	held   bool    // it is hold's caller who will
	since  int64   // when the first call was added since hold, on callctx's clock; 0: none was
	err    error
	whole  line // of those who wait to add whole messages
	parts  line // of those who wait to add a part of one
	kept   int  // bytes of room that are kept for those who were let in, and have not added what they have yet

	// Of whoever writes.
	batch []chunk // what is not written
	vec   vector
	fault error // of one try to write
	waits bool  // until the system takes more
	write func(fd uintptr) bool
}

// gatherTime is how long calls may gather for one write. It is seldom reached: 500 callers that do nothing but call take half of it
// to have their turns.
const gatherTime = time.Millisecond

// chunk is a piece of what is to be written: a buffer that frames are copied to, or a long body that was given away.
type chunk struct {
	data []byte
	from *[]byte    // the buffer that data lies in
	to   *sync.Pool // where it goes when it has been written; nil: nowhere
}

// largeBody is the size of a body, in bytes, from which on it is worth while not to copy it: one that was given away is
// written from where it lies, and one that is read is read to where it stays.
const largeBody = frame.Large

// payload is the body of a frame, or a part of one. A large one is copied unless it is lent, or given away.
type payload struct {
	data []byte
	lent bool    // it stays as it is until it has been written
	gift *[]byte // where it lies: other storage is there afterwards
}

// span is where something lies in the bytes that a connection sends, from its beginning on.
type span struct{ begin, end int64 }

// add appends a frame, and reports whether the caller has to flush, and where in the connection's bytes the frame is. full says that
// nothing was added: there is no room, or others wait for it in l; a caller whose turn it is has that in t. A nil l is for what passes
// the lines. now is the time on callctx's clock; 0 is that it is not known.
func (w *writer) add(h *frame.Header, section []byte, body payload, l *line, t *ticket, now int64) (at span, lead, full bool, err error) {
	w.mu.Lock()
	if w.err != nil || !w.admit(l, t) {
		full, err = w.err == nil, w.err
		w.mu.Unlock()
		return at, false, full, err
	}
	last := w.space(frame.HeaderSize)
	last.data = h.Append(last.data)
	w.copy(section)
	switch {
	case len(body.data) < largeBody:
		w.copy(body.data)
	case body.gift != nil:
		w.adopt(body.data, body.gift)
	case body.lent:
		w.chunks = append(w.chunks, chunk{data: body.data})
	default:
		w.copy(body.data)
	}
	n := frame.HeaderSize + len(section) + len(body.data)
	at = span{w.put, w.put + int64(n)}
	w.queued += n
	w.put = at.end
	lead = !w.busy || w.overdue(now)
	w.busy = true
	w.mu.Unlock()
	return at, lead, false, nil
}

// space gives the last chunk, with room for n more bytes.
func (w *writer) space(n int) *chunk {
	if k := len(w.chunks); k > 0 {
		if last := &w.chunks[k-1]; last.to == &w.c.o.Buffers.chunks && cap(last.data)-len(last.data) >= n {
			return last
		}
	}
	pool := &w.c.o.Buffers.chunks
	b := pool.Get().(*[]byte)
	w.chunks = append(w.chunks, chunk{data: (*b)[:0], from: b, to: pool})
	return &w.chunks[len(w.chunks)-1]
}

func (w *writer) copy(data []byte) {
	for len(data) > 0 {
		last := w.space(1)
		n := min(len(data), cap(last.data)-len(last.data))
		last.data = append(last.data, data[:n]...)
		data = data[n:]
	}
}

// adopt makes a body a chunk of its own.
func (w *writer) adopt(body []byte, gift *[]byte) {
	b := w.c.o.Buffers
	box, home := b.Box(body)
	*gift = b.Body(len(body))
	w.chunks = append(w.chunks, chunk{data: body, from: box, to: home})
}

// flush writes what is there, for the caller that was told to lead. With more of them around, others get to run first
// where that adds to what is written: a write costs the same for one frame and for fifty.
func (w *writer) flush(more bool) {
	if more {
		runtime.Gosched()
	}
	if w.c.raw == nil || !w.drainNow() {
		if !w.c.later(w.drain) {
			w.stop(w.c.err)
		}
	}
}

// hold has what is added gather until the caller calls release, and reports whether it does: not where somebody writes.
func (w *writer) hold() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy {
		return false
	}
	w.busy, w.held, w.since = true, true, 0
	return true
}

// release writes what has gathered since hold, unless a caller has lost its patience and does.
func (w *writer) release() {
	w.mu.Lock()
	held := w.held
	w.held = false
	w.mu.Unlock()
	if held {
		w.flush(false)
	}
}

// overdue reports whether what is held back waits so long that the caller, who adds a call, is to write it: those who were
// woken before the one who would have are busy with other things. The caller holds the lock.
func (w *writer) overdue(now int64) bool {
	switch {
	case !w.held || now == 0:
		return false
	case w.since == 0:
		w.since = now
		return false
	case now-w.since < int64(gatherTime):
		return false
	}
	w.held = false
	return true
}

// handOver has what is there written by a goroutine of its own, while the caller goes on.
func (w *writer) handOver() {
	if !w.c.later(w.drain) {
		w.stop(w.c.err)
	}
}

// take makes what has gathered the batch to write; false, and the writer at rest, where that is nothing.
func (w *writer) take() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.chunks) == 0 || w.err != nil {
		w.busy = false
		return false
	}
	w.batch, w.chunks = w.chunks, w.batch[:0]
	w.taken = w.put
	return true
}

// wrote notes that n bytes of the batch have left, and reports whether that was all.
func (w *writer) wrote(n int) bool {
	done := 0
	for left := n; done < len(w.batch); done++ {
		c := &w.batch[done]
		if left < len(c.data) {
			c.data = c.data[left:]
			break
		}
		left -= len(c.data)
		if c.to != nil {
			*c.from = (*c.from)[:0]
			c.to.Put(c.from)
		}
	}
	w.batch = slices.Delete(w.batch, 0, done)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queued -= n
	w.letIn()
	return len(w.batch) == 0
}

// drainNow writes until nothing is left, and reports whether it could without waiting.
func (w *writer) drainNow() bool {
	for len(w.batch) > 0 || w.take() {
		switch err := w.tryRaw(); {
		case errors.Is(err, errWouldBlock):
			return false
		case err != nil:
			w.broken(err)
			return true
		}
	}
	return true
}

// tryRaw writes what the system takes of the batch, or, where waits says so, all of it.
func (w *writer) tryRaw() error {
	w.fault = nil
	if err := w.c.raw.Write(w.write); err != nil {
		return err
	}
	return w.fault
}

// drain writes until nothing is left, waiting for the peer.
func (w *writer) drain() {
	for limited := false; ; {
		if len(w.batch) == 0 {
			if limited { // before others may write: a deadline that they have set stays
				_ = w.c.nc.SetWriteDeadline(time.Time{}) // of a connection that has ended it does not matter
			}
			if limited = false; !w.take() {
				return
			}
		}
		err := w.c.nc.SetWriteDeadline(time.Now().Add(w.c.o.WriteTimeout))
		limited = true
		if err == nil {
			err = w.writeAll()
		}
		if err != nil {
			w.broken(err)
			return
		}
	}
}

// writeAll writes the batch, until the write deadline.
func (w *writer) writeAll() error {
	if w.c.raw != nil {
		w.waits = true
		defer func() { w.waits = false }()
		return w.tryRaw()
	}
	for {
		n, err := w.c.nc.Write(w.batch[0].data)
		if w.wrote(n) || err != nil {
			return err
		}
	}
}

// broken ends the connection because a write failed.
func (w *writer) broken(err error) {
	w.mu.Lock()
	w.taken = w.put - int64(w.queued) // nobody else writes: it is known what has left
	w.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the peer has read nothing for %s", w.c.o.WriteTimeout)
	}
	err = w.c.fail(fmt.Errorf("transport/http: send to %s: %w", w.c.RemoteAddr(), err))
	w.stop(err)
}

// stop gives up what is left of the batch, for the one who writes.
func (w *writer) stop(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batch, w.vec, w.busy = nil, nil, false
	if w.err == nil {
		w.err = err
	}
}

// fail makes add fail from now on.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.chunks = nil
	w.disperse()
}

// idle reports whether nothing waits to be written.
func (w *writer) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queued == 0
}

// through reports whether all of at has left.
func (w *writer) through(at span) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.put-int64(w.queued) >= at.end
}

// unsent reports whether it is certain that no byte of at has left. It is asked after the connection's end.
func (w *writer) unsent(at span) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return at.begin >= w.taken
}

// patience is how long somebody waits: until ctx ends, or until a call has its answer.
type patience struct {
	ctx    context.Context
	answer chan error // of a call that waits to be sent, whose deadline the watch keeps; nil: none
}

// await waits for event.
func (p patience) await(event <-chan struct{}) error {
	select {
	case <-event:
		return nil
	case err := <-p.answer:
		return p.giveBack(err)
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// errAnswered says that a call has its answer, and need not be sent any further.
var errAnswered = errors.New("link: answered")

// giveBack leaves an answer for the call itself to take, and gives its error; nil is that the connection has ended, for a reason that
// the writer knows.
func (p patience) giveBack(err error) error {
	p.answer <- err
	switch err { //nolint:errorlint // passed from hand to hand, never wrapped
	case errEnded:
		return nil
	case nil:
		return errAnswered
	}
	return err
}

// send adds a message of one frame, waiting in line for room, and has it written. It gives its place in the connection's bytes.
// An error says that nothing of it was or will be written.
func (c *Conn) send(p patience, m *transport.Message, body payload, how manner) (span, error) {
	at, lead, full, err := c.put(m, body, nil)
	if full {
		t := c.o.Buffers.ticket()
		at, lead, err = c.putInTurn(p, m, body, t)
		c.o.Buffers.leave(t)
	}
	switch {
	case err != nil:
		return at, c.notSent(err)
	case lead:
		c.push(how)
	}
	return at, nil
}

// put adds a message of one frame, where there is room, or it is t's turn.
func (c *Conn) put(m *transport.Message, body payload, t *ticket) (at span, lead, full bool, err error) {
	h := head(m, len(body.data), 0)
	return c.w.add(&h, m.Header, body, &c.w.whole, t, 0)
}

// putInTurn is put for who waits in line with t until there is room.
func (c *Conn) putInTurn(p patience, m *transport.Message, body payload, t *ticket) (at span, lead bool, err error) {
	for {
		if err = c.w.queue(&c.w.whole, t, frame.HeaderSize+len(m.Header)+len(body.data), p); err != nil {
			return at, false, err
		}
		var full bool
		if at, lead, full, err = c.put(m, body, t); !full {
			return at, lead, err
		}
	}
}

// manner is how a frame is to leave.
type manner uint8

const (
	alone   manner = iota // at once
	crowded               // at once, but others may have something to add
	flowing               // soon: its sender has more to do than to wait
)

// push has what was added written.
func (c *Conn) push(how manner) {
	switch how {
	case alone, crowded:
		c.w.flush(how == crowded)
	case flowing:
		c.w.handOver()
	}
}
