package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// conversation is one connection of messages: many calls at once, or one stream.
type conversation struct {
	*serving
	conn transport.Conn
	ctx  context.Context // ends with the connection

	stream *stream // the last stream on the connection, perhaps ended; of the reader

	unsent atomic.Int64  // answers that are being written
	room   chan struct{} // a hint: unsent has become less

	mu     sync.Mutex
	cancel map[uint32]context.CancelFunc // of the calls under way, by message ID
}

// maxUnsent is how many answers on a connection may wait for a peer that does not read them, before no more of its calls
// are read.
const maxUnsent = 64

// converse answers the connection's messages until it ends. Its calls end with it.
func (r *serving) converse(conn transport.Conn) {
	ctx, stop := context.WithCancel(r.base)
	defer stop()
	c := &conversation{serving: r, conn: conn, ctx: ctx, cancel: map[uint32]context.CancelFunc{}, room: make(chan struct{}, 1)}
	for {
		m := new(transport.Message)
		err := conn.Recv(ctx, m)
		if errors.Is(err, transport.ErrTooLarge) && c.skip(m, err) {
			continue
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, transport.ErrClosed) && ctx.Err() == nil {
				r.logger.Info("connection failed", "service", r.name, "remote", conn.RemoteAddr(), "error", err)
			}
			c.end(err)
			return
		}
		if err := c.take(m); err != nil {
			r.logger.Warn("connection closed", "service", r.name, "remote", conn.RemoteAddr(), "error", err)
			c.end(err)
			return
		}
	}
}

// skip deals with a message that was over the limit of size, and reports whether the connection goes on. A call of that
// kind was answered by the transport.
func (c *conversation) skip(m *transport.Message, err error) bool {
	if m.Kind != transport.Data || c.stream == nil || c.stream.id != m.ID {
		return false
	}
	c.stream.in.end(status.Wrap(err, status.TooLarge, "a message of the stream is too large: %v", err))
	return true
}

// end tells a running stream that its peer has gone.
func (c *conversation) end(err error) {
	if c.stream != nil {
		c.stream.fail(err)
	}
}

// take handles one message. An error is a breach of the protocol.
func (c *conversation) take(m *transport.Message) error {
	switch m.Kind {
	case transport.Call:
		if c.streaming() {
			return errors.New("a call on a connection that a stream owns")
		}
		c.call(m)
	case transport.Open:
		if c.streaming() {
			return errors.New("a second stream on a connection that a stream owns")
		}
		c.open(m)
	case transport.Data, transport.End:
		if c.stream == nil || c.stream.id != m.ID {
			return errors.New("a stream's message without a stream")
		}
		c.stream.put(m)
	case transport.Cancel:
		c.mu.Lock()
		cancel := c.cancel[m.ID] // nil for a call that has ended meanwhile
		c.mu.Unlock()
		if cancel != nil {
			cancel()
		}
	case transport.Ping:
		_ = c.conn.Send(c.ctx, &transport.Message{Kind: transport.Pong, ID: m.ID})
	case transport.Pong:
	default:
		return errors.New("a client's message of kind " + m.Kind.String())
	}
	return nil
}

func (c *conversation) streaming() bool { return c.stream != nil && !c.stream.returned.Load() }

// begin makes the context of a call and remembers how to cancel it.
func (c *conversation) begin(m *transport.Message, limited bool) (context.Context, func()) {
	ctx, cancel := c.handlerContext(c.ctx, m.Timeout, limited)
	c.mu.Lock()
	c.cancel[m.ID] = cancel
	c.mu.Unlock()
	return ctx, func() {
		c.mu.Lock()
		delete(c.cancel, m.ID)
		c.mu.Unlock()
		cancel()
	}
}

// call answers a unary call on a goroutine of its own.
func (c *conversation) call(m *transport.Message) {
	for c.unsent.Load() >= maxUnsent { // ends at the transport's write timeout, where the peer reads nothing at all
		select {
		case <-c.room:
		case <-c.ctx.Done():
			return
		}
	}
	ctx, end := c.begin(m, true)
	c.busy.Add(1)
	c.work.Go(func() {
		defer c.busy.Add(-1)
		defer end()
		header, body := c.unary(ctx, c.conn.RemoteAddr(), m)
		c.reply(&transport.Message{Kind: transport.Reply, ID: m.ID, Header: header, Body: body})
	})
}

// reply sends an answer. It does so on the connection's own context: also where the caller's time has just run out.
func (c *conversation) reply(m *transport.Message) {
	c.unsent.Add(1)
	defer func() {
		c.unsent.Add(-1)
		signal(c.room)
	}()
	err := c.conn.Send(c.ctx, m)
	if errors.Is(err, transport.ErrTooLarge) {
		m.Header = failure(c.name, nil, status.Wrap(err, status.TooLarge, "the answer is too large: %v", err))
		m.Body = nil
		err = c.conn.Send(c.ctx, m)
	}
	if err != nil && c.ctx.Err() == nil {
		c.logger.Info("answer was not sent", "service", c.name, "remote", c.conn.RemoteAddr(), "error", err)
	}
}
