package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/frame"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
)

// atRest is the size of the buffer in which a connection waits for its next message: one small message.
const atRest = 2 << 10

// input is the reading side of a conn. At rest it holds a little buffer; while the socket has more, it borrows larger ones.
type input struct {
	asm     *frame.Assembler
	data    []byte        // bytes that were read and not yet fed
	lent    *[]byte       // the buffer of data, where it is a borrowed one
	full    bool          // the latest read filled its buffer: more is probably there
	blocked time.Duration // time spent in waiting for the rest of messages: the Assembler's clock
	timed   bool          // a read deadline is set
	little  [atRest]byte
}

// Recv reads the next message.
func (c *conn) Recv(ctx context.Context, m *transport.Message) error {
	for {
		if c.isClosed() {
			return c.err
		}
		n, complete, err := c.in.asm.Feed(c.in.data)
		c.in.data = c.in.data[n:]
		switch {
		case err != nil:
			return c.fail(fmt.Errorf("transport/http: from %s: %w", c.RemoteAddr(), err))
		case !complete:
			if err := c.fill(ctx); err != nil {
				return err
			}
			continue
		}
		failed := c.in.asm.Take(m)
		mine, err := c.sort(ctx, m, failed)
		if err != nil || mine {
			return err
		}
	}
}

// sort judges a message and answers those that the connection answers itself. It reports whether m is the receiver's.
func (c *conn) sort(ctx context.Context, m *transport.Message, failed error) (bool, error) {
	verdict := drain.Take
	if c.tracker != nil {
		verdict = c.tracker.Received(m.Kind, m.ID)
	} else if !c.expected(m) {
		verdict = drain.Broken
	}
	switch {
	case verdict == drain.Broken:
		return false, c.fail(fmt.Errorf("%w: %s sent a %s with id %d, which fits nothing under way",
			transport.ErrProtocol, c.RemoteAddr(), m.Kind, m.ID))
	case verdict == drain.Drop:
		return false, nil
	case verdict == drain.Refuse:
		return false, c.answer(ctx, drain.Refusal(m.Kind, m.ID))
	case failed != nil && m.Kind == transport.Call && c.tracker != nil:
		e := status.New(status.TooLarge, "the message is over the limit of %d bytes", c.o.MaxMessage)
		return false, c.answer(ctx, drain.Failure(m.Kind, m.ID, e))
	case m.Kind == transport.Ping:
		return false, c.answer(ctx, &transport.Message{Kind: transport.Pong, ID: m.ID})
	}
	return true, failed
}

// expected reports whether a client may get m: an answer must be one to an id that it has sent.
func (c *conn) expected(m *transport.Message) bool {
	switch m.Kind {
	case transport.Reply, transport.Opened, transport.Data, transport.End:
		return m.ID <= c.highest.Load()
	case transport.Ping, transport.Pong, transport.GoAway:
		return true
	}
	return false
}

// answer sends a message of the connection's own. The end of ctx, which is that of a Recv, does not lose it: a peer that
// does not read is given up after the write timeout.
func (c *conn) answer(ctx context.Context, m *transport.Message) error {
	err := c.Send(context.WithoutCancel(ctx), m)
	if err != nil && c.isClosed() {
		return c.err
	}
	return err
}

// fill waits for bytes from the peer.
func (c *conn) fill(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in := &c.in
	if err := c.limitRead(); err != nil {
		return c.fail(fmt.Errorf("transport/http: read from %s: %w", c.RemoteAddr(), err))
	}
	buf := in.borrow(c.pools)
	n, err := c.readBy(ctx, buf)
	in.data, in.full = buf[:n], n == len(buf)
	if n > 0 {
		return nil // an error comes again with the next read
	}
	in.giveBack(c.pools)
	switch {
	case err == nil:
		return nil
	case c.isClosed():
		return c.err
	case errors.Is(err, os.ErrDeadlineExceeded):
		if ctx.Err() != nil {
			return ctx.Err()
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

// limitRead sets the read deadline: none between messages; within one, how long the rest may still take.
func (c *conn) limitRead() error {
	in := &c.in
	if in.asm.Between() {
		if !in.timed {
			return nil
		}
		in.timed = false
		return c.nc.SetReadDeadline(time.Time{})
	}
	in.timed = true
	left := c.o.BodyTimeout - (in.blocked - in.asm.Oldest())
	return c.nc.SetReadDeadline(time.Now().Add(min(left, c.o.BodyIdle)))
}

// readBy reads once, until ctx ends.
func (c *conn) readBy(ctx context.Context, buf []byte) (int, error) {
	in := &c.in
	if !in.asm.Between() {
		began := time.Now()
		defer func() {
			in.blocked += time.Since(began)
			in.asm.Clock = in.blocked
		}()
	}
	if ctx.Done() == nil {
		return c.nc.Read(buf)
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // a connection that is closed already fails the read by itself
	})
	n, err := c.nc.Read(buf)
	if !stop() {
		<-fired
		in.timed = true
	}
	return n, err
}

// borrow gives the buffer for the next read: a larger one each time that the latest was filled.
func (in *input) borrow(p *pools) []byte {
	switch {
	case !in.full:
		in.giveBack(p)
		return in.little[:]
	case in.lent == nil:
		in.lent = p.get(smallBuffer)
	case len(*in.lent) == smallBuffer:
		p.put(in.lent)
		in.lent = p.get(largeBuffer)
	}
	return *in.lent
}

func (in *input) giveBack(p *pools) {
	if in.lent != nil {
		p.put(in.lent)
		in.lent = nil
	}
	in.full = false
}
