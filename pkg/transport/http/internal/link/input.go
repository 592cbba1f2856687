package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

// input is the reading side of a connection. Messages are given as they lie in the buffer that they were read into; only
// those that come in several frames, or not as a whole, are put together elsewhere. The buffer is lent while there is
// something in it: before a connection waits, it is given back.
type input struct {
	c     *Conn
	asm   *frame.Assembler
	buf   *[]byte // lent; nil at rest
	data  []byte  // what of it was read and not looked at
	full  bool    // the latest read filled its buffer: more is probably there
	large bool    // the latest message was

	whole   transport.Message  // a message that was put together; its storage may be exchanged
	inPlace transport.Message  // one that lies in buf
	back    *transport.Message // one that was put back; it has been checked
	backErr error              // with which it had failed
	known   []byte             // metadata that was found well formed, and is likely to come again

	interrupted atomic.Bool // the read was broken off from outside

	blocked time.Duration // time spent in waiting for the rest of messages: the Assembler's clock
	timed   bool          // a read deadline is set
	end     time.Time     // the one that limit has set; zero is none

	// Of one read.
	direct  bool // it goes to where the assembler wants it
	probing bool // it does not wait
	n       int
	fault   error
	read    func(fd uintptr) bool
}

// next gives the next message of those that have been read; nil where none is complete. A message that lies in the buffer
// has a header that was not looked at. It is valid until the following next or fill. failed is the error of a message
// that was over its limit, which has all but its body.
func (in *input) next() (m *transport.Message, failed, err error) {
	if in.back != nil {
		m, in.back = in.back, nil
		return m, in.backErr, nil
	}
	for len(in.data) > 0 || in.asm.Ready() {
		if m, err := in.lying(); m != nil || err != nil {
			return m, nil, err
		}
		n, complete, err := in.asm.Feed(in.data)
		in.data = in.data[n:]
		if err != nil {
			return nil, nil, err
		}
		if complete {
			failed := in.asm.Take(&in.whole)
			in.large = len(in.whole.Body) >= largeBody
			return &in.whole, failed, nil
		}
	}
	return nil, nil, nil
}

// lying gives a message that lies at the front of data, complete in one frame.
func (in *input) lying() (*transport.Message, error) {
	if len(in.data) < frame.HeaderSize || !in.asm.Between() {
		return nil, nil
	}
	h, err := frame.Parse(in.data)
	if err != nil {
		return nil, err
	}
	section := frame.HeaderSize + int(h.Section)
	end := section + int(h.Body)
	in.large = h.Body >= largeBody
	if h.Flags != 0 || len(in.data) < end || int(h.Body) > in.c.o.MaxMessage {
		return nil, nil
	}
	in.inPlace = transport.Message{
		Kind: h.Kind, ID: h.ID, Timeout: frame.Duration(h.Timeout),
		Header: metadata.MD(in.data[frame.HeaderSize:section:section]), Body: in.data[section:end:end],
	}
	in.data = in.data[end:]
	return &in.inPlace, nil
}

// lies reports whether m, given by next, lies in the buffer.
func (in *input) lies(m *transport.Message) bool { return m == &in.inPlace }

// check judges the header of a message that lies in the buffer. One that came before is known.
func (in *input) check(m *transport.Message) error {
	if !in.lies(m) || len(m.Header) == 0 || bytes.Equal(m.Header, in.known) {
		return nil
	}
	if _, err := metadata.Parse(m.Header); err != nil {
		return fmt.Errorf("%w: metadata of a %s: %w", transport.ErrProtocol, m.Kind, err)
	}
	if len(m.Header) <= 1<<10 {
		in.known = append(in.known[:0], m.Header...)
	}
	return nil
}

// target gives where the next bytes go.
func (in *input) target() []byte {
	if space := in.asm.Space(); len(space) >= littleSize {
		in.direct = true
		return space
	}
	in.direct = false
	if in.buf == nil {
		in.buf = in.c.o.Buffers.reads.Get().(*[]byte)
	}
	if in.large {
		return (*in.buf)[:littleSize] // a header: the body that follows is then read to where it stays
	}
	return *in.buf
}

// rest gives the storage back. Nothing of it is in use.
func (in *input) rest() {
	if cap(in.whole.Body) >= largeBody {
		in.c.o.Buffers.Keep(in.whole.Body)
		in.whole.Body = nil
	}
	if in.buf == nil {
		return
	}
	if len(*in.buf) == littleSize {
		in.c.o.Buffers.little.Put(in.buf)
	} else {
		in.c.o.Buffers.reads.Put(in.buf)
	}
	in.buf = nil
}

// fill waits for bytes from the peer. All that was read before has been looked at. The end of ctx does not harm the
// connection, any other error ends it.
func (in *input) fill(ctx context.Context) error {
	c := in.c
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := in.limit(); err != nil {
		return c.fail(fmt.Errorf("transport/http: read from %s: %w", c.RemoteAddr(), err))
	}
	if in.interrupted.Load() { // by a deadline that limit may just have overwritten
		in.interrupt()
	}
	n, err := in.readBy(ctx)
	if n > 0 {
		in.took(n)
		return nil // an error comes again with the next read
	}
	in.rest()
	return in.failed(ctx, err)
}

// took gives n bytes that were read to whoever they are for.
func (in *input) took(n int) {
	if in.direct {
		in.asm.Filled(n)
		return
	}
	in.data, in.full = (*in.buf)[:n], n == len(*in.buf)
}

// failed tells what the error of a read means.
func (in *input) failed(ctx context.Context, err error) error {
	c := in.c
	switch {
	case err == nil:
		return nil
	case c.isClosed():
		return c.err
	case errors.Is(err, os.ErrDeadlineExceeded):
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if in.interrupted.Swap(false) || in.end.IsZero() || time.Now().Before(in.end) {
			in.timed = true // from outside, and perhaps late
			return errInterrupted
		}
		return c.fail(fmt.Errorf("%w: the rest of a message from %s did not come in time", transport.ErrProtocol, c.RemoteAddr()))
	case errors.Is(err, io.EOF) && in.asm.Between():
		return c.fail(io.EOF)
	case errors.Is(err, io.EOF):
		return c.fail(io.ErrUnexpectedEOF)
	}
	if !in.asm.Between() {
		err = fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
	}
	return c.fail(fmt.Errorf("transport/http: read from %s: %w", c.RemoteAddr(), err))
}

// interrupt breaks off a read that waits, or the next one.
func (in *input) interrupt() {
	in.interrupted.Store(true)
	_ = in.c.nc.SetReadDeadline(time.Unix(1, 0)) // a connection that is closed already fails the read by itself
}

// limit sets the read deadline: none between messages; within one, how long the rest may still take.
func (in *input) limit() error {
	if in.asm.Between() {
		if !in.timed {
			return nil
		}
		in.timed, in.end = false, time.Time{}
		return in.c.nc.SetReadDeadline(time.Time{})
	}
	left := in.c.o.BodyTimeout - (in.blocked - in.asm.Oldest())
	in.timed, in.end = true, time.Now().Add(min(left, in.c.o.BodyIdle))
	return in.c.nc.SetReadDeadline(in.end)
}

// readBy reads once, until ctx ends.
func (in *input) readBy(ctx context.Context) (int, error) {
	if !in.asm.Between() {
		began := time.Now()
		defer func() {
			in.blocked += time.Since(began)
			in.asm.Clock = in.blocked
		}()
	}
	if ctx.Done() == nil {
		return in.readOnce()
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = in.c.nc.SetReadDeadline(time.Unix(1, 0)) // a connection that is closed already fails the read by itself
	})
	n, err := in.readOnce()
	if !stop() {
		<-fired
		in.timed = true
	}
	return n, err
}

func (in *input) readOnce() (int, error) {
	if in.c.raw == nil {
		return in.readNet()
	}
	if err := in.c.raw.Read(in.read); err != nil {
		return 0, err
	}
	return in.n, in.fault
}

// readNet reads through package net, which wants a buffer to wait with: a little one, and a large one while there is much.
func (in *input) readNet() (int, error) {
	if space := in.asm.Space(); len(space) >= littleSize {
		in.direct = true
		return in.c.nc.Read(space)
	}
	in.direct = false
	if !in.full {
		in.rest()
	}
	switch {
	case in.buf == nil && in.full:
		in.buf = in.c.o.Buffers.reads.Get().(*[]byte)
	case in.buf == nil:
		in.buf = in.c.o.Buffers.little.Get().(*[]byte)
	case len(*in.buf) == littleSize:
		in.rest()
		in.buf = in.c.o.Buffers.reads.Get().(*[]byte)
	}
	return in.c.nc.Read(*in.buf)
}

// probe reads what is there already, without waiting, and reports whether something was. It is not for connections that
// have no raw reading.
func (in *input) probe() (bool, error) {
	in.probing = true
	defer func() { in.probing = false }()
	n, err := in.readOnce()
	switch {
	case n > 0:
		in.took(n)
		return true, nil
	case errors.Is(err, errWouldBlock):
		return false, nil
	}
	in.rest()
	return false, in.failed(context.Background(), err)
}

// yield gives up the buffer, which the latest message may lie in, and keeps what of it was not looked at.
func (in *input) yield() *[]byte {
	old := in.buf
	in.buf, in.whole = nil, transport.Message{}
	if len(in.data) > 0 {
		in.buf = in.c.o.Buffers.reads.Get().(*[]byte)
		in.data = (*in.buf)[:copy(*in.buf, in.data)]
	}
	if old != nil && len(*old) != readSize {
		return nil // a little one is left to the collector
	}
	return old
}

// putBack has the next Recv yield m again.
func (in *input) putBack(m *transport.Message, failed error) {
	in.back = &transport.Message{Kind: m.Kind, ID: m.ID, Timeout: m.Timeout, Header: m.Header.Clone()}
	in.backErr = failed
}
