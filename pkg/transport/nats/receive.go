package nats

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
)

// inbound is what came and was not received yet. It is under the Conn's lock but for partials, which are the receiver's.
type inbound struct {
	seq      uint32 // of the last frame
	queue    []item
	bytes    int // of the queue, as the window counts
	news     chan struct{}
	read     uint64 // bytes that were taken from the queue, as the window counts
	credited uint64 // of them those that the peer knows of
	partials map[uint32]*partial
}

// item is a frame, or a message that was made here.
type item struct {
	frame
	made *transport.Message
}

// partial is a message that came in part.
type partial struct {
	frame
	bytes []byte
	got   int
}

// keepRoom is how much room is made for a message that came in part: what its sender says of its length need not be so.
const keepRoom = 256 << 10

func newInbound() inbound {
	return inbound{news: make(chan struct{}, 1), partials: map[uint32]*partial{}}
}

// signal wakes the receiver.
func (in *inbound) signal() {
	select {
	case in.news <- struct{}{}:
	default:
	}
}

// enqueue takes in a numbered frame.
func (c *Conn) enqueue(f frame) {
	c.mu.Lock()
	in := &c.in
	in.seq++
	next := in.seq
	gap, full := f.seq != next, in.bytes+f.cost() > window
	if !c.isOver && !gap && !full {
		in.bytes += f.cost()
		in.queue = append(in.queue, item{frame: f})
		in.signal()
	}
	c.mu.Unlock()
	switch {
	case gap:
		c.breach(fmt.Sprintf("sent frame %d where %d is next: some were lost", f.seq, next))
	case full:
		c.breach("sends more than it may")
	case f.frameType == frameBye:
		c.end(io.EOF)
	}
}

// Recv waits for the next message.
func (c *Conn) Recv(ctx context.Context, m *transport.Message) error {
	for {
		it, err := c.next(ctx)
		if err != nil {
			return err
		}
		if it.made != nil {
			m.Reset()
			m.Kind, m.ID = it.made.Kind, it.made.ID
			m.Header = append(m.Header, it.made.Header...)
			return nil
		}
		if whole, err := c.assemble(&it.frame, m); err != nil || !whole {
			if err != nil && !c.survives(ctx, m, err) {
				return err
			}
			continue
		}
		if m.Kind == transport.Ping {
			if err := c.Send(ctx, &transport.Message{Kind: transport.Pong, ID: m.ID}); err != nil {
				return err
			}
			continue
		}
		if take, err := c.judge(ctx, m); take || err != nil {
			return err
		}
	}
}

// next gives the next frame, or why there is none.
func (c *Conn) next(ctx context.Context) (item, error) {
	for {
		select {
		case <-c.closed:
			return item{}, transport.ErrClosed
		default:
		}
		c.mu.Lock()
		in := &c.in
		if len(in.queue) > 0 {
			it := in.queue[0]
			if in.queue = in.queue[1:]; len(in.queue) == 0 {
				in.queue = nil // and its storage
			}
			cost := it.cost()
			in.bytes -= cost
			in.read += uint64(cost)
			tell := in.read-in.credited >= window/4 && !c.isOver
			if tell {
				in.credited = in.read
			}
			read := in.read
			c.mu.Unlock()
			if tell {
				c.credit(read)
			}
			return it, nil
		}
		err := c.err
		c.mu.Unlock()
		if err != nil {
			if errors.Is(err, io.EOF) && len(in.partials) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return item{}, err
		}
		select {
		case <-in.news:
		case <-c.closed:
		case <-ctx.Done():
			return item{}, ctx.Err()
		}
	}
}

// credit tells the peer how much was read.
func (c *Conn) credit(read uint64) {
	c.out.Lock()
	defer c.out.Unlock()
	_ = c.nc.PublishRequest(c.peer, c.own, encodeCredit(read)) // what fails ends the connection by itself
}

// assemble takes in a part, and reports whether m is whole now. The error of a message that is over the limit comes with its last part.
func (c *Conn) assemble(f *frame, m *transport.Message) (whole bool, err error) {
	if f.frameType == frameBye {
		return false, nil
	}
	parts := c.in.partials
	p := parts[f.message]
	switch {
	case f.first() && p == nil && len(parts) < maxLarge:
		p = &partial{frame: *f}
		if f.flags&flagMore != 0 {
			parts[f.message] = p
		}
	case p == nil || f.first():
		return false, c.broken("sent a part of no message")
	case f.flags&flagAbort != 0:
		delete(parts, f.message)
		return false, nil
	}
	if p.got += len(f.data); p.got > p.total || f.flags&flagMore == 0 && p.got < p.total || f.flags&flagMore != 0 && len(f.data) == 0 {
		return false, c.broken("sent a message of another length than it said")
	}
	if f.flags&flagMore == 0 {
		delete(parts, f.message)
	}
	return c.fill(p, f, m)
}

// fill puts the bytes of a part where they belong: those of a message in several parts are kept, of one over the limit the header alone.
func (c *Conn) fill(p *partial, f *frame, m *transport.Message) (whole bool, err error) {
	bytes := f.data
	tooLarge := p.total-p.header > c.t.o.MaxMessage || p.header > metadata.MaxSize
	if f.flags&flagMore != 0 || len(p.bytes) > 0 || tooLarge {
		keep := f.data
		if tooLarge {
			keep = keep[:min(len(keep), max(0, min(p.header, metadata.MaxSize)-len(p.bytes)))]
		}
		if p.bytes == nil {
			p.bytes = make([]byte, 0, min(p.total, keepRoom))
		}
		p.bytes = append(p.bytes, keep...)
		bytes = p.bytes
	}
	if f.flags&flagMore != 0 {
		return false, nil
	}
	m.Reset()
	m.Kind, m.ID, m.Timeout = p.kind, p.id, p.timeout
	m.Header = append(m.Header, bytes[:min(p.header, len(bytes))]...)
	if tooLarge {
		return false, fmt.Errorf("%w: %s sent a message of %d bytes, limit %d", transport.ErrTooLarge, c.remote, p.total-p.header, c.t.o.MaxMessage)
	}
	if len(m.Header) > 0 {
		if _, err := metadata.Parse(m.Header); err != nil {
			return false, c.broken(fmt.Sprintf("sent a header that is none: %v", err))
		}
	}
	if len(p.bytes) > 0 {
		m.Body = bytes[p.header:] // nobody else has it
	} else {
		m.Body = append(m.Body, bytes[p.header:]...)
	}
	return true, nil
}

func (c *Conn) broken(what string) error {
	c.breach(what)
	return fmt.Errorf("%w: %s %s", transport.ErrProtocol, c.remote, what)
}

// survives deals with a call that is over the limit of size, and reports whether that is all there is to it.
func (c *Conn) survives(ctx context.Context, m *transport.Message, err error) bool {
	if !errors.Is(err, transport.ErrTooLarge) || c.tracker == nil || m.Kind != transport.Call && m.Kind != transport.Open {
		return false
	}
	if take, err := c.judge(ctx, m); !take {
		return err == nil
	}
	return c.Send(ctx, drain.Failure(m.Kind, m.ID, status.Wrap(err, status.TooLarge, "the request is over the limit of %d bytes", c.t.o.MaxMessage))) == nil
}

// judge reports whether a message is for the one who receives.
func (c *Conn) judge(ctx context.Context, m *transport.Message) (bool, error) {
	if c.tracker == nil {
		if m.Kind == transport.Reply || m.Kind == transport.End {
			c.mu.Lock()
			delete(c.calls, m.ID)
			c.mu.Unlock()
		}
		return true, nil
	}
	switch c.tracker.Received(m.Kind, m.ID) {
	case drain.Take:
		return true, nil
	case drain.Refuse:
		return false, c.Send(ctx, drain.Refusal(m.Kind, m.ID))
	case drain.Drop:
		return false, nil
	}
	return false, c.broken(fmt.Sprintf("sent a %s with id %d, which fits nothing under way", m.Kind, m.ID))
}
