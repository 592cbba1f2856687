package nats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
)

// Conn is one end of a connection. It has a subject of its own, to which the other end publishes.
type Conn struct {
	t      *Transport
	nc     *nats.Conn
	token  string
	own    string // this end's subject
	remote string
	heard  atomic.Int64 // when the peer was last heard, as Transport.now counts
	large  chan struct{}
	window sendWindow
	over   chan struct{} // closed when the connection has ended, in whichever way
	closed chan struct{} // closed by Close
	answer chan error    // of a Dial under way: of one element

	tracker  *drain.Tracker // the server's end alone
	listener *Listener      // likewise

	out     sync.Mutex // held while a frame is numbered and published
	peer    string     // the other end's subject
	seq     uint32     // of the last frame that was published
	message uint32     // of the last message

	mu     sync.Mutex
	in     inbound
	calls  map[uint32]sentCall // of the client's end: what was sent and is not answered yet
	err    error               // why the connection has ended; io.EOF where the peer closed it
	isOver bool
}

// sentCall is a Call or an Open that is under way.
type sentCall struct {
	kind transport.Kind
	seq  uint32 // of its last frame
}

var _ transport.Conn = (*Conn)(nil)

func newConn(t *Transport, nc *nats.Conn, remote string) *Conn {
	c := &Conn{
		t: t, nc: nc, remote: remote, large: make(chan struct{}, maxLarge), over: make(chan struct{}), closed: make(chan struct{}),
		in: newInbound(), calls: map[uint32]sentCall{},
	}
	c.heard.Store(int64(t.now()))
	return c
}

// Send hands m to NATS, in parts where it is large. It waits while the peer has not read what was sent before.
func (c *Conn) Send(ctx context.Context, m *transport.Message) error {
	if err := transport.Check(m, c.t.o.MaxMessage); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return c.notSent(err)
	}
	if err := c.down(); err != nil {
		return err
	}
	if c.tracker != nil {
		c.tracker.Sending(m.Kind, m.ID)
		defer c.tracker.Sent(m.Kind)
	}
	chunk := c.chunk()
	total := len(m.Header) + len(m.Body)
	if total > chunk {
		select {
		case c.large <- struct{}{}:
			defer func() { <-c.large }()
		case <-c.over:
			return c.down()
		case <-ctx.Done():
			return c.notSent(ctx.Err())
		}
	}
	f := frame{frameType: framePart, kind: m.Kind, id: m.ID, timeout: m.Timeout, header: len(m.Header), total: total}
	for header, body := []byte(m.Header), m.Body; ; f = (frame{frameType: framePart, flags: flagCont, kind: m.Kind, id: m.ID, message: f.message}) {
		f.data, header = cut(header, chunk)
		f.tail, body = cut(body, chunk-len(f.data))
		left := len(header) + len(body)
		if left > 0 {
			f.flags |= flagMore
		}
		if ok, err := c.window.take(ctx, c.over, f.cost()); err != nil {
			c.abandon(f)
			return c.notSent(err)
		} else if !ok {
			return c.down()
		}
		if err := c.publish(&f); err != nil {
			return err
		}
		if left == 0 {
			return nil
		}
	}
}

// cut gives the first n bytes, and the rest.
func cut(b []byte, n int) (first, rest []byte) {
	n = min(n, len(b))
	return b[:n], b[n:]
}

// chunk is how many bytes of a message one frame takes.
func (c *Conn) chunk() int {
	return max(1, min(maxChunk, int(c.nc.MaxPayload())-sizeFirst))
}

func (c *Conn) notSent(err error) error {
	return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.remote, err)
}

// abandon takes back what was published of a message, of which f would have been the next part.
func (c *Conn) abandon(f frame) {
	if f.flags&flagCont == 0 {
		return
	}
	f.flags, f.data, f.tail = flagCont|flagAbort, nil, nil
	_ = c.publish(&f) // it fails where the connection has ended, and nothing is left to be taken back
}

// publish numbers a frame and hands it to NATS. The first part of a message gives it its number.
func (c *Conn) publish(f *frame) error {
	c.out.Lock()
	defer c.out.Unlock()
	if c.peer == "" {
		return c.down()
	}
	if f.first() {
		c.message++
		f.message = c.message
	}
	c.seq++
	if f.frameType == framePart && f.flags&(flagMore|flagAbort) == 0 && c.tracker == nil {
		c.note(f, c.seq)
	}
	data := f.encode()
	number(data, c.seq)
	if err := c.nc.PublishRequest(c.peer, c.own+"."+strconv.FormatUint(uint64(c.seq), 10), data); err != nil {
		c.fail(c.t.conn.Error(err)) // the next frame's number would be wrong
		return c.down()
	}
	return nil
}

// note takes down that a Call or an Open is under way.
func (c *Conn) note(f *frame, seq uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f.kind {
	case transport.Call, transport.Open:
		c.calls[f.id] = sentCall{f.kind, seq}
	case transport.Cancel:
		delete(c.calls, f.id)
	}
}

// down gives the error of sending on a connection that has ended; nil while it lives.
func (c *Conn) down() error {
	select {
	case <-c.closed:
		return c.notSent(transport.ErrClosed)
	case <-c.over:
	default:
		return nil
	}
	switch err := c.why(); {
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %s has closed the connection", transport.ErrNotSent, c.remote)
	case transport.NotSent(err):
		return err
	default:
		return c.notSent(err)
	}
}

// why gives what ended the connection.
func (c *Conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// take takes in a frame. It is called by one goroutine at a time, and does not wait. answerTo is what this end's frame was, where m
// answers one: its number.
func (c *Conn) take(f frame, ok bool, m *nats.Msg, answerTo string) {
	c.heard.Store(int64(c.t.now()))
	switch {
	case len(m.Data) == 0 && m.Header.Get("Status") == "503":
		c.undelivered(answerTo, "nobody is there any more")
		return
	case !ok:
		c.breach("sent what is no frame")
		return
	}
	switch f.frameType {
	case frameWelcome:
		c.welcome(m)
	case frameRefuse:
		c.refused(fmt.Errorf("refused: %.200q", f.data))
	case frameReset:
		c.undelivered(answerTo, "it does not know the connection")
	case frameCredit:
		if !c.window.credit(f.credit) {
			c.breach("has read more than was sent")
		}
	case frameProbe:
		c.out.Lock()
		defer c.out.Unlock()
		c.t.publish(c.peer, control(frameAlive))
	case framePart, frameBye:
		c.enqueue(f)
	}
}

// welcome takes in a listener's answer to a Dial.
func (c *Conn) welcome(m *nats.Msg) {
	peer := cutLast(m.Reply)
	c.out.Lock()
	known := c.peer
	if known == "" {
		c.peer = peer
	}
	c.out.Unlock()
	switch {
	case known == "":
		c.answer <- nil
	case known != peer: // two listen at one address
		c.t.publish(m.Reply, control(frameReset))
	}
}

// refused ends a Dial.
func (c *Conn) refused(err error) {
	select {
	case c.answer <- err:
	default: // there was an answer; or this is the server's end
	}
}

// undelivered takes in that a frame of this end was not taken, nor any after it: the peer has gone. Calls that it does not know for that
// reason are answered: they can go elsewhere.
func (c *Conn) undelivered(number, why string) {
	if number == "0" && c.tracker == nil { // of a Dial
		c.refused(errors.New("connection refused: nobody listens there"))
		return
	}
	seq, err := strconv.ParseUint(number, 10, 32)
	known := err == nil
	var refusals []*transport.Message
	c.mu.Lock()
	for id, call := range c.calls {
		if known && int32(call.seq-uint32(seq)) >= 0 {
			refusals = append(refusals, drain.Failure(call.kind, id, status.Refuse(status.Unavailable, "%s: %s", c.remote, why)))
		}
	}
	c.mu.Unlock()
	c.end(fmt.Errorf("transport: nats: the connection to %s is lost: %s: %w", c.remote, why, io.ErrUnexpectedEOF), refusals...)
}

// breach ends a connection whose peer broke the protocol, or whose frames were lost, and tells the peer.
func (c *Conn) breach(what string) {
	c.end(fmt.Errorf("%w: %s %s", transport.ErrProtocol, c.remote, what))
	c.out.Lock()
	defer c.out.Unlock()
	c.t.publish(c.peer, control(frameReset))
}

// fail ends a connection that broke.
func (c *Conn) fail(cause error) {
	c.end(fmt.Errorf("transport: nats: the connection to %s broke: %w: %w", c.remote, cause, io.ErrUnexpectedEOF))
}

// end ends the connection: what came before can still be received, and then last.
func (c *Conn) end(err error, last ...*transport.Message) {
	c.t.remove(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isOver {
		return
	}
	c.isOver, c.err = true, err
	for _, m := range last {
		c.in.queue = append(c.in.queue, item{made: m})
	}
	close(c.over)
	c.in.signal()
}

// probe asks the peer whether it lives.
func (c *Conn) probe() {
	c.out.Lock()
	defer c.out.Unlock()
	if c.peer != "" {
		_ = c.nc.PublishRequest(c.peer, c.own, control(frameProbe)) // what fails ends the connection by itself
	}
}

// RemoteAddr is the listener's subject for the one who dialled, and that of the client's end for the other.
func (c *Conn) RemoteAddr() string { return c.remote }

// Close ends the connection for both sides. What was sent before can still be received by the peer.
func (c *Conn) Close() error {
	c.mu.Lock()
	select {
	case <-c.closed:
		c.mu.Unlock()
		return nil
	default:
		close(c.closed)
	}
	lives := !c.isOver
	c.mu.Unlock()
	if lives {
		_ = c.publish(&frame{frameType: frameBye}) // it fails where the connection has ended
	}
	c.end(transport.ErrClosed)
	if c.listener != nil {
		c.listener.forget(c)
	}
	return nil
}

// drain closes c when nothing is under way on it; ctx's end leaves it as it is.
func (c *Conn) drain(ctx context.Context) { c.tracker.Shutdown(ctx, c, c.wait) }

// wait reports whether event came while the connection lived and ctx went on.
func (c *Conn) wait(ctx context.Context, event <-chan struct{}) bool {
	select {
	case <-event:
		return true
	case <-c.over:
	case <-ctx.Done():
	}
	return false
}
