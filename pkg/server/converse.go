package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// conversation is one connection of messages: many calls at once, or one stream.
type conversation struct {
	*serving
	conn   transport.Conn
	remote string
	ctx    context.Context // ends with the connection

	contexts callctx.Slab // of the reader
	stream   *stream      // the last stream on the connection, perhaps ended; of the reader

	unsent atomic.Int64  // answers that are being written
	room   chan struct{} // a hint: unsent has become less

	mu     sync.Mutex
	cancel map[uint32]*callctx.Context // of the calls under way, by message ID
}

// maxUnsent is how many answers on a connection may wait for a peer that does not read them, before no more of its calls
// are read.
const maxUnsent = 64

// converse answers the connection's messages until it ends. Its calls end with it.
func (r *serving) converse(conn transport.Conn) {
	remote := conn.RemoteAddr()
	ctx, stop := context.WithCancel(context.WithValue(r.base, remoteKey{}, remote))
	defer stop()
	c := &conversation{
		serving: r, conn: conn, remote: remote, ctx: ctx,
		room: make(chan struct{}, 1), cancel: map[uint32]*callctx.Context{},
	}
	if u, ok := conn.(transport.UnaryServer); ok {
		if err := u.ServeCalls(ctx, r.find); err != nil {
			c.failed(err)
			return
		}
		// It has a stream, and is read here from now on: clients have connections for streams and others for calls.
	}
	c.read()
}

// failed logs why the connection ended, where it was not closed.
func (c *conversation) failed(err error) {
	if !errors.Is(err, io.EOF) && !errors.Is(err, transport.ErrClosed) && c.ctx.Err() == nil {
		c.logger.Info("connection failed", "service", c.name, "remote", c.remote, "error", err)
	}
}

// read takes the connection's messages until it ends.
func (c *conversation) read() {
	var m *transport.Message
	for {
		if m == nil {
			m = c.message()
		}
		err := c.conn.Recv(c.ctx, m)
		if errors.Is(err, transport.ErrTooLarge) && c.skip(m, err) {
			continue
		}
		if err != nil {
			c.failed(err)
			c.end(err)
			return
		}
		kept, err := c.take(m)
		if err != nil {
			c.logger.Warn("connection closed", "service", c.name, "remote", c.remote, "error", err)
			c.end(err)
			return
		}
		if kept {
			m = nil
		}
	}
}

// message gives one to receive into: the next of a stream has the storage of one that its handler is done with.
func (c *conversation) message() *transport.Message {
	if c.streaming() {
		return c.stream.in.spare()
	}
	return new(transport.Message)
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

// take handles one message, and tells whether somebody keeps it. An error is a breach of the protocol.
func (c *conversation) take(m *transport.Message) (kept bool, err error) {
	switch m.Kind {
	case transport.Call:
		if c.streaming() {
			return false, errors.New("a call on a connection that a stream owns")
		}
		c.call(m)
		return true, nil
	case transport.Open:
		if c.streaming() {
			return false, errors.New("a second stream on a connection that a stream owns")
		}
		c.open(m)
	case transport.Data, transport.End:
		if c.stream == nil || c.stream.id != m.ID {
			return false, errors.New("a stream's message without a stream")
		}
		return c.stream.put(m), nil
	case transport.Cancel:
		c.mu.Lock()
		call := c.cancel[m.ID] // nil for a call that has ended meanwhile
		c.mu.Unlock()
		if call != nil {
			call.End(context.Canceled)
		}
	case transport.Ping:
		_ = c.conn.Send(c.ctx, &transport.Message{Kind: transport.Pong, ID: m.ID})
	case transport.Pong:
	default:
		return false, errors.New("a client's message of kind " + m.Kind.String())
	}
	return false, nil
}

func (c *conversation) streaming() bool { return c.stream != nil && !c.stream.returned.Load() }

// begin makes the context of a call or a stream, and remembers it for a Cancel. It ends with the connection, too.
func (c *conversation) begin(m *transport.Message, timeout time.Duration) *callctx.Context {
	ctx := c.contexts.New(c.ctx, deadline(timeout), values(m.Header, ""))
	c.mu.Lock()
	c.cancel[m.ID] = ctx
	c.mu.Unlock()
	return ctx
}

// finish ends the context of a call or a stream.
func (c *conversation) finish(id uint32, ctx *callctx.Context) {
	c.mu.Lock()
	delete(c.cancel, id)
	c.mu.Unlock()
	ctx.End(context.Canceled)
}

// call answers a unary call on a goroutine of its own, and keeps m for that long.
func (c *conversation) call(m *transport.Message) {
	for c.unsent.Load() >= maxUnsent { // ends at the transport's write timeout, where the peer reads nothing at all
		select {
		case <-c.room:
		case <-c.ctx.Done():
			return
		}
	}
	rt := c.route(m.Header)
	ctx := c.begin(m, c.limit(m.Timeout))
	c.busy.Add(1)
	c.work.Go(func() {
		defer c.busy.Add(-1)
		defer c.finish(m.ID, ctx)
		rsp := &transport.Message{Kind: transport.Reply, ID: m.ID}
		rt.serve(ctx, m, rsp)
		c.reply(rsp)
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
		c.logger.Info("answer was not sent", "service", c.name, "remote", c.remote, "error", err)
	}
}
