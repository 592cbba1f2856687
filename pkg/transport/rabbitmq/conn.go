package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
)

// window is how much a connection's inbox holds, in bytes, beyond which the peer waits; a message that begins within it is taken whole.
const window = 1 << 20

// Conn is one end of a connection: messages through RabbitMQ, in order, with the peer told how much it may send.
type Conn struct {
	port   *port
	key    string // what frames to this end are marked with
	remote string

	tracker  *drain.Tracker // the server's end alone
	listener *Listener      // likewise

	turn chan struct{} // holds a token while a message is being sent
	more chan struct{} // gets a token when the peer has taken something, or it is over

	mu      sync.Mutex
	peer    address // where frames go; set when the connection is open
	number  uint32  // of the latest message that was sent
	sent    uint64  // what the messages sent cost
	taken   uint64  // of that, what the peer has taken
	allowed uint64  // the peer's window

	inbox    [][]byte
	got      chan struct{} // gets a token when something came to the inbox
	expected uint32        // the number of the latest message that came
	held     uint64        // what the inbox costs
	given    uint64        // what was taken from it in all
	told     uint64        // of that, what the peer knows

	opened chan struct{} // closed when the peer has answered the hello
	gone   chan struct{} // closed when nothing comes any more
	why    error         // io.EOF where the peer closed the connection; set before gone is closed
	closed chan struct{} // by this side
	once   sync.Once
}

// address is where frames go to: a queue, and whose they are there.
type address struct{ queue, key string }

var _ transport.Conn = (*Conn)(nil)

func newConn(p *port, key, remote string) *Conn {
	return &Conn{
		port: p, key: key, remote: remote, turn: make(chan struct{}, 1), more: make(chan struct{}, 1), got: make(chan struct{}, 1),
		opened: make(chan struct{}), gone: make(chan struct{}), closed: make(chan struct{}),
	}
}

// Send hands m to RabbitMQ, and waits while the peer's inbox is full. The peer may be gone all the same: that Recv tells.
func (c *Conn) Send(ctx context.Context, m *transport.Message) error {
	if err := transport.Check(m, c.port.t.o.MaxMessage); err != nil {
		return err
	}
	if err := c.down(); err != nil {
		return err
	}
	if c.tracker != nil {
		c.tracker.Sending(m.Kind, m.ID)
		defer c.tracker.Sent(m.Kind)
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-c.closed:
		return c.down()
	case <-c.gone:
		return c.down()
	case <-ctx.Done():
		return c.late(ctx)
	}
	if err := c.room(ctx); err != nil {
		return err
	}
	number, to := c.next(messageHead + len(m.Header) + len(m.Body))
	if err := c.port.write(to, appendMessage(make([]byte, 0, messageHead+len(m.Header)+len(m.Body)), m, number)); err != nil {
		c.end(err)
		return fmt.Errorf("transport: to %s: %w", c.remote, err)
	}
	return nil
}

// room waits until the peer's inbox has room, and RabbitMQ takes messages. The caller has the turn.
func (c *Conn) room(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return c.late(ctx)
		}
		if err := c.down(); err != nil {
			return err
		}
		c.mu.Lock()
		free := c.sent-c.taken < c.allowed
		c.mu.Unlock()
		var unblocked <-chan struct{}
		if free {
			if unblocked = c.port.blocked(); unblocked == nil {
				return nil
			}
		}
		select {
		case <-c.more:
		case <-unblocked:
		case <-c.closed:
		case <-c.gone:
		case <-ctx.Done():
		}
	}
}

// next counts a message of size bytes, and gives its number, and where it goes.
func (c *Conn) next(size int) (uint32, address) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	c.sent += uint64(size) + frameCost
	return c.number, c.peer
}

func (c *Conn) to() address {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

func (c *Conn) late(ctx context.Context) error {
	return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.remote, ctx.Err())
}

// down gives the error of sending on a connection that has ended.
func (c *Conn) down() error {
	select {
	case <-c.closed:
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.remote, transport.ErrClosed)
	default:
	}
	select {
	case <-c.gone:
		if errors.Is(c.why, io.EOF) {
			return fmt.Errorf("%w: %s has closed the connection", transport.ErrNotSent, c.remote)
		}
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.remote, c.why)
	default:
		return nil
	}
}

// Recv waits for the next message.
func (c *Conn) Recv(ctx context.Context, m *transport.Message) error {
	for {
		frame, err := c.take(ctx)
		if err != nil {
			return err
		}
		err = readMessage(frame, m, c.port.t.o.MaxMessage)
		switch {
		case errors.Is(err, transport.ErrProtocol):
			return c.broken(err)
		case m.Kind == transport.Ping && err == nil:
			if err := c.Send(ctx, &transport.Message{Kind: transport.Pong, ID: m.ID}); err != nil {
				return err
			}
			continue
		}
		take, failed := c.judge(ctx, m)
		switch {
		case failed != nil:
			return failed
		case take:
			return err
		}
	}
}

// take takes a frame from the inbox, and tells the peer when that has room again.
func (c *Conn) take(ctx context.Context) ([]byte, error) {
	for {
		select {
		case <-c.closed:
			return nil, transport.ErrClosed
		default:
		}
		c.mu.Lock()
		if len(c.inbox) > 0 {
			frame := c.inbox[0]
			c.inbox[0] = nil
			if c.inbox = c.inbox[1:]; len(c.inbox) == 0 {
				c.inbox = nil
			}
			n := cost(frame)
			c.held, c.given = c.held-n, c.given+n
			tell := c.given-c.told >= window/2
			if tell {
				c.told = c.given
			}
			given, to := c.given, c.peer
			c.mu.Unlock()
			if tell {
				_ = c.port.write(to, credit(given)) // a connection that fails, gone tells
			}
			return frame, nil
		}
		c.mu.Unlock()
		select {
		case <-c.got:
		case <-c.closed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.gone:
			c.mu.Lock()
			empty := len(c.inbox) == 0
			c.mu.Unlock()
			if empty {
				return nil, c.why
			}
		}
	}
}

// judge reports whether a message is for the one who receives.
func (c *Conn) judge(ctx context.Context, m *transport.Message) (bool, error) {
	if c.tracker == nil {
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
	return false, c.broken(fmt.Errorf("%w: a %s with id %d, which fits nothing under way", transport.ErrProtocol, m.Kind, m.ID))
}

// broken closes a connection whose peer broke the protocol.
func (c *Conn) broken(err error) error {
	_ = c.Close() // it has no error to give
	return fmt.Errorf("transport: from %s: %w", c.remote, err)
}

// receive takes a frame in. It is called by the port, one frame after the other.
func (c *Conn) receive(frame []byte) {
	if len(frame) == 0 {
		c.end(fmt.Errorf("%w: an empty frame", transport.ErrProtocol))
		return
	}
	switch frame[0] {
	case frameCredit:
		if taken, err := readCredit(frame); err != nil {
			c.end(err)
		} else {
			c.credit(taken)
		}
	case frameRefuse:
		c.end(fmt.Errorf("connection refused: %q", frame[1:]))
	case frameBye:
		c.end(io.EOF)
	default:
		if err := c.put(frame); err != nil {
			c.end(err)
		}
	}
}

// put puts a message into the inbox.
func (c *Conn) put(frame []byte) error {
	number, err := numberOf(frame)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case number != c.expected+1:
		return fmt.Errorf("%w: message %d follows upon %d", transport.ErrProtocol, number, c.expected)
	case c.held >= window:
		return fmt.Errorf("%w: %s sends more than the inbox has room for", transport.ErrProtocol, c.remote)
	}
	c.expected, c.held = number, c.held+cost(frame)
	c.inbox = append(c.inbox, frame)
	token(c.got)
	return nil
}

// credit takes in how much the peer has taken.
func (c *Conn) credit(taken uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if taken > c.taken && taken <= c.sent {
		c.taken = taken
	}
	token(c.more)
}

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// open says where the peer is, and how much it takes.
func (c *Conn) open(peer address, allowed uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer, c.allowed = peer, uint64(allowed)
	select {
	case <-c.opened:
	default:
		close(c.opened)
	}
}

// welcomed takes in the answer to the hello.
func (c *Conn) welcomed(frame []byte) {
	allowed, queue, err := readHello(frame)
	if err != nil {
		c.end(err)
		return
	}
	c.open(address{queue, serverKey(c.key)}, allowed)
}

// end says that nothing comes any more. What came before can still be received.
func (c *Conn) end(why error) {
	c.mu.Lock()
	select {
	case <-c.gone:
	default:
		c.why = why
		close(c.gone)
	}
	c.mu.Unlock()
	c.port.remove(c)
	if c.listener != nil {
		c.listener.forget(c)
	}
}

// RemoteAddr is the listener's address for the one who dialled, and the peer's reply address for the other.
func (c *Conn) RemoteAddr() string { return c.remote }

// Close ends the connection for both sides. What was sent before can still be received by the peer.
func (c *Conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		select {
		case <-c.gone: // the peer has closed it, or cannot be reached
		default:
			if to := c.to(); to.queue != "" {
				_ = c.port.write(to, []byte{frameBye})
			}
		}
		c.port.remove(c)
		if c.listener != nil {
			c.listener.forget(c)
		}
	})
	return nil
}

// drain closes c when nothing is under way on it; ctx's end leaves it as it is.
func (c *Conn) drain(ctx context.Context) { c.tracker.Shutdown(ctx, c, c.wait) }

// wait reports whether event came while the connection lived and ctx went on.
func (c *Conn) wait(ctx context.Context, event <-chan struct{}) bool {
	select {
	case <-event:
		return true
	case <-c.closed:
	case <-c.gone:
	case <-ctx.Done():
	}
	return false
}
