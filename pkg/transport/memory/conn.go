package memory

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
)

// Conn is one end of a connection.
type Conn struct {
	peer   *Conn
	remote string
	inbox  chan *transport.Message // what the peer sent
	closed chan struct{}
	once   sync.Once

	tracker  *drain.Tracker // the server's end alone
	listener *Listener      // likewise
}

var _ transport.Conn = (*Conn)(nil)

func pair(from string, l *Listener) (client, server *Conn) {
	client = &Conn{remote: l.addr, inbox: make(chan *transport.Message, window), closed: make(chan struct{})}
	server = &Conn{remote: from, inbox: make(chan *transport.Message, window), closed: make(chan struct{}),
		tracker: new(drain.Tracker), listener: l}
	client.peer, server.peer = server, client
	return client, server
}

// Send copies m to the peer, and waits while the peer has not read the earlier messages.
func (c *Conn) Send(ctx context.Context, m *transport.Message) error {
	if err := transport.Check(m, transport.MaxMessage); err != nil {
		return err
	}
	if err := c.down(); err != nil {
		return err
	}
	if c.tracker != nil {
		c.tracker.Sending(m.Kind, m.ID)
		defer c.tracker.Sent(m.Kind)
	}
	sent := &transport.Message{Kind: m.Kind, ID: m.ID, Timeout: m.Timeout}
	sent.Header = append(sent.Header, m.Header...)
	sent.Body = append(sent.Body, m.Body...)
	select {
	case c.peer.inbox <- sent:
		return nil
	case <-c.closed:
	case <-c.peer.closed:
	case <-ctx.Done():
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.remote, ctx.Err())
	}
	return c.down()
}

// down gives the error of sending on a connection that one side has closed.
func (c *Conn) down() error {
	select {
	case <-c.closed:
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.remote, transport.ErrClosed)
	case <-c.peer.closed:
		return fmt.Errorf("%w: %s has closed the connection", transport.ErrNotSent, c.remote)
	default:
		return nil
	}
}

// Recv waits for the next message.
func (c *Conn) Recv(ctx context.Context, m *transport.Message) error {
	for {
		in, err := c.next(ctx)
		if err != nil {
			return err
		}
		if in.Kind == transport.Ping {
			if err := c.Send(ctx, &transport.Message{Kind: transport.Pong, ID: in.ID}); err != nil {
				return err
			}
			continue
		}
		if take, err := c.judge(ctx, in); err != nil {
			return err
		} else if take {
			m.Reset()
			m.Kind, m.ID, m.Timeout = in.Kind, in.ID, in.Timeout
			m.Header = append(m.Header, in.Header...)
			m.Body = append(m.Body, in.Body...)
			return nil
		}
	}
}

func (c *Conn) next(ctx context.Context) (*transport.Message, error) {
	select {
	case <-c.closed:
		return nil, transport.ErrClosed
	default:
	}
	select {
	case <-c.closed:
		return nil, transport.ErrClosed
	case in := <-c.inbox:
		return in, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.peer.closed:
	}
	select {
	case in := <-c.inbox: // sent before it closed
		return in, nil
	default:
		return nil, io.EOF
	}
}

// judge reports whether a message is for the one who receives.
func (c *Conn) judge(ctx context.Context, in *transport.Message) (bool, error) {
	if c.tracker == nil {
		return true, nil
	}
	switch c.tracker.Received(in.Kind, in.ID) {
	case drain.Take:
		return true, nil
	case drain.Refuse:
		return false, c.Send(ctx, drain.Refusal(in.Kind, in.ID))
	case drain.Drop:
		return false, nil
	}
	c.Close()
	return false, fmt.Errorf("%w: %s sent a %s with id %d, which fits nothing under way", transport.ErrProtocol, c.remote, in.Kind, in.ID)
}

// RemoteAddr is the listener's address for the one who dialled, and a made-up name for the other.
func (c *Conn) RemoteAddr() string { return c.remote }

// Close ends the connection for both sides. What was sent before can still be received by the peer.
func (c *Conn) Close() error {
	c.close()
	if c.listener != nil {
		c.listener.forget(c)
	}
	return nil
}

func (c *Conn) close() { c.once.Do(func() { close(c.closed) }) }

// drain closes c when nothing is under way on it; ctx's end leaves it as it is.
func (c *Conn) drain(ctx context.Context) { c.tracker.Shutdown(ctx, c, c.wait) }

// wait reports whether event came while the connection lived and ctx went on.
func (c *Conn) wait(ctx context.Context, event <-chan struct{}) bool {
	select {
	case <-event:
		return true
	case <-c.closed:
	case <-c.peer.closed:
	case <-ctx.Done():
	}
	return false
}
