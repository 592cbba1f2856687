package link

import (
	"context"
	"errors"
	"fmt"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

// Send has m written, in one frame, or a long body in several between which other messages may pass. It returns when m has
// its place in the queue of what is written, which is short: a peer that does not read makes it wait.
func (c *Conn) Send(ctx context.Context, m *transport.Message) error {
	how := alone
	if m.Kind == transport.Data {
		how = flowing
	}
	return c.sendMessage(ctx, m, how)
}

func (c *Conn) sendMessage(ctx context.Context, m *transport.Message, how manner) error {
	if err := transport.Check(m, c.o.MaxMessage); err != nil {
		return err
	}
	if len(m.Body) > frame.MaxBody && !frame.Divisible(m.Kind) {
		return fmt.Errorf("%w: %s with a body of %d bytes, limit %d", transport.ErrTooLarge, m.Kind, len(m.Body), frame.MaxBody)
	}
	if err := ctx.Err(); err != nil {
		return c.notSent(err)
	}
	p := patience{ctx: ctx}
	if c.tracker != nil {
		c.tracker.Sending(m.Kind, m.ID)
		defer c.tracker.Sent(m.Kind)
	} else {
		c.noteID(m.ID)
	}
	if m.Kind == transport.Data || m.Kind == transport.End {
		if err := c.acquire(p, c.stream); err != nil {
			return err
		}
		defer func() { <-c.stream }()
	}
	if len(m.Body) <= frame.MaxBody {
		_, err := c.send(p, m, given(m), how)
		return err
	}
	_, err := c.sendParts(p, m, how)
	return err
}

// given is the body of a message that is sent.
func given(m *transport.Message) payload {
	if m.Give {
		return payload{data: m.Body, gift: &m.Body}
	}
	return payload{data: m.Body}
}

// noteID keeps the highest id that the peer may answer.
func (c *Conn) noteID(id uint32) {
	for {
		was := c.highest.Load()
		if id <= was || c.highest.CompareAndSwap(was, id) {
			return
		}
	}
}

func head(m *transport.Message, body int, flags uint8) frame.Header {
	return frame.Header{
		Body: uint32(body), ID: m.ID, Section: uint16(len(m.Header)), Kind: m.Kind, Flags: flags, Timeout: frame.Timeout(m.Timeout),
	}
}

// sendParts writes a message in several frames, and gives its place. Where patience ends between two of them, the peer
// is told to forget what it has.
func (c *Conn) sendParts(p patience, m *transport.Message, how manner) (at span, err error) {
	if err := c.acquire(p, c.parts); err != nil {
		return at, err
	}
	defer func() { <-c.parts }()
	h, section, body := head(m, frame.PartBody, frame.More), []byte(m.Header), m.Body
	rest := body
	leads := false
	t := c.o.Buffers.ticket()
	defer c.o.Buffers.leave(t)
	for first := true; ; {
		data := rest[:min(len(rest), frame.PartBody)]
		if rest = rest[len(data):]; len(rest) == 0 {
			h.Flags &^= frame.More
		}
		h.Body = uint32(len(data))
		part, lead, full, err := c.w.add(&h, section, payload{data: data, lent: m.Lent}, &c.w.parts, t, 0)
		leads = leads || lead
		if full { // what is there leaves now, and this part later
			if leads {
				c.push(how)
				leads = false
			}
			rest = body[len(body)-len(rest)-len(data):]
			if err = c.w.queue(&c.w.parts, t, len(data), p); err == nil {
				h.Flags |= frame.More
				continue
			}
		}
		if err != nil {
			return at, c.cutOff(m, h, err)
		}
		if first {
			at.begin, first = part.begin, false
		}
		at.end = part.end
		if len(rest) == 0 {
			if leads {
				c.push(how)
			}
			return at, nil
		}
		h = frame.Header{ID: m.ID, Kind: m.Kind, Flags: frame.Cont | frame.More}
		section = nil
	}
}

// cutOff gives the error of a message that could not be sent whole, and takes back what was sent of it. h is the frame
// that failed.
func (c *Conn) cutOff(m *transport.Message, h frame.Header, err error) error {
	switch {
	case h.Flags&frame.Cont == 0:
		return c.notSent(err)
	case c.isClosed():
		return fmt.Errorf("transport/http: connection to %s failed within a message: %w", c.RemoteAddr(), c.err)
	}
	c.post(frame.Header{ID: m.ID, Kind: m.Kind, Flags: frame.Cont | frame.Abort})
	return c.notSent(err)
}

// post has a frame without a payload written by others: its sender cannot wait. A peer that makes many of them wait reads
// nothing, and the connection is given up.
func (c *Conn) post(h frame.Header) {
	_, lead, full, err := c.w.add(&h, nil, payload{}, nil, nil, 0)
	switch {
	case full:
		c.fail(fmt.Errorf("%w: %s does not read", transport.ErrProtocol, c.RemoteAddr()))
	case err == nil && lead:
		c.w.handOver()
	}
}

// acquire takes a place in gate.
func (c *Conn) acquire(p patience, gate chan struct{}) error {
	select {
	case gate <- struct{}{}:
		return nil
	default:
	}
	select {
	case gate <- struct{}{}:
		return nil
	case <-c.closed:
		return c.notSent(c.err)
	case err := <-p.answer:
		if err = p.giveBack(err); err == nil {
			err = c.err
		}
		return c.notSent(err)
	case <-p.ctx.Done():
		return c.notSent(p.ctx.Err())
	}
}

// Recv reads the next message.
func (c *Conn) Recv(ctx context.Context, m *transport.Message) error {
	for {
		if c.isClosed() {
			return c.err
		}
		in, failed, err := c.in.next()
		if err == nil && in != nil {
			err = c.in.check(in)
		}
		switch {
		case err != nil:
			return c.fail(fmt.Errorf("transport/http: from %s: %w", c.RemoteAddr(), err))
		case in == nil:
			if err := c.in.fill(ctx); err != nil && !errors.Is(err, errInterrupted) {
				return err
			}
			continue
		}
		mine, err := c.sort(ctx, in, failed)
		if mine {
			c.give(in, m)
		}
		if err != nil || mine {
			return err
		}
	}
}

// give hands a message over: by a copy, or by exchanging storage with one that was put together.
func (c *Conn) give(in, m *transport.Message) {
	if c.in.lies(in) {
		header, body := append(m.Header[:0], in.Header...), append(m.Body[:0], in.Body...)
		*m = *in
		m.Header, m.Body = header, body
		return
	}
	*m, *in = *in, *m
}

// sort judges a message and answers those that the connection answers itself. It reports whether m is the receiver's.
func (c *Conn) sort(ctx context.Context, m *transport.Message, failed error) (bool, error) {
	verdict := drain.Take
	if c.tracker != nil {
		verdict = c.tracker.Received(m.Kind, m.ID)
	} else if !c.expected(m) {
		verdict = drain.Broken
	}
	switch {
	case verdict == drain.Broken:
		return false, c.misfit(m)
	case verdict == drain.Drop:
		return false, nil
	case verdict == drain.Refuse:
		return false, c.answer(ctx, drain.Refusal(m.Kind, m.ID))
	case failed != nil && m.Kind == transport.Call && c.tracker != nil:
		return false, c.answer(ctx, c.tooLarge(m))
	case m.Kind == transport.Ping:
		return false, c.answer(ctx, &transport.Message{Kind: transport.Pong, ID: m.ID})
	}
	return true, failed
}

// misfit ends the connection because of a message that fits nothing.
func (c *Conn) misfit(m *transport.Message) error {
	return c.fail(fmt.Errorf("%w: %s sent a %s with id %d, which fits nothing under way", transport.ErrProtocol, c.RemoteAddr(), m.Kind, m.ID))
}

func (c *Conn) tooLarge(m *transport.Message) *transport.Message {
	e := status.New(status.TooLarge, "the message is over the limit of %d bytes", c.o.MaxMessage)
	return drain.Failure(m.Kind, m.ID, e)
}

// expected reports whether a client may get m: an answer must be one to an id that it has sent.
func (c *Conn) expected(m *transport.Message) bool {
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
func (c *Conn) answer(ctx context.Context, m *transport.Message) error {
	err := c.sendMessage(context.WithoutCancel(ctx), m, alone)
	if err != nil && c.isClosed() {
		return c.err
	}
	if errors.Is(err, transport.ErrNotSent) {
		return nil
	}
	return err
}
