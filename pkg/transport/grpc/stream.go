package grpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// serverConn is a stream that a client has opened: Recv yields its Open first.
type serverConn struct {
	x    *exchange
	in   feed
	done chan struct{} // closed when nothing more is to be sent, nor to be read
	bad  *status.Error // what was wrong with a message of the client's; of the request's goroutine

	mu      sync.Mutex // of the one who sends
	ended   bool       // done is closed
	trailer *transport.Message
	watched context.Context // whose end breaks a write that is under way
	unwatch func() bool

	edge    sync.Mutex
	writing bool
	gone    bool // the request's goroutine has returned: x.w is not to be used any more
}

var _ transport.Conn = (*serverConn)(nil)

// serveStream serves a stream: it gives the connection to Accept, and reads for it until the answer has ended.
func (x *exchange) serveStream(endpoint string) {
	header, e := x.header(endpoint)
	if e != nil {
		x.fail(e)
		return
	}
	c := &serverConn{x: x, done: make(chan struct{})}
	c.in.init()
	select {
	case x.l.accepted <- c:
	case <-x.l.done:
		x.fail(status.Refuse(status.Unavailable, "the server is shutting down"))
		return
	case <-x.r.Context().Done():
		return
	}
	open := c.in.spare()
	open.Kind, open.ID, open.Timeout, open.Header = transport.Open, streamID, x.timeout, append(open.Header, header...)
	c.read(open)
	<-c.done
	c.finish()
}

// streamID is the id of the messages of a stream, which has its connection to itself.
const streamID = 1

// read takes what the client sends, until that has ended and the answer, too.
func (c *serverConn) read(m *transport.Message) {
	for c.in.put(m, c.done) {
		m = c.in.spare()
		m.Kind, m.ID = transport.Data, streamID
		var err error
		m.Body, err = c.x.reader.next(m.Body)
		switch {
		case errors.Is(err, io.EOF):
			m.Kind = transport.End
			if c.in.put(m, c.done) {
				c.await()
			}
			return
		case err != nil:
			err = c.lost(err)
			if e := (*status.Error)(nil); errors.As(err, &e) || errors.Is(err, transport.ErrTooLarge) {
				c.bad = unread(err)
			}
			c.in.end(err)
			return
		}
	}
}

// await waits until the answer has ended, or the client has gone.
func (c *serverConn) await() {
	select {
	case <-c.done:
	case <-c.x.r.Context().Done():
		c.in.end(io.EOF)
	}
}

// lost gives the error of a stream that cannot be read.
func (c *serverConn) lost(err error) error {
	e := (*status.Error)(nil)
	switch {
	case c.x.r.Context().Err() != nil:
		return io.EOF // the client has given it up
	case errors.As(err, &e), errors.Is(err, transport.ErrTooLarge):
		return err
	}
	return fmt.Errorf("transport/grpc: the stream from %s has failed: %w", c.x.r.RemoteAddr, err)
}

// Recv gives the next message of the client.
func (c *serverConn) Recv(ctx context.Context, m *transport.Message) error {
	return c.in.get(ctx, m, c.done)
}

// Send sends a message of the stream, or its end.
func (c *serverConn) Send(ctx context.Context, m *transport.Message) error {
	if err := transport.Check(m, c.x.l.t.o.MaxMessage); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", transport.ErrNotSent, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return fmt.Errorf("%w: %w", transport.ErrNotSent, transport.ErrClosed)
	}
	switch m.Kind {
	case transport.Data:
		return c.write(ctx, m)
	case transport.End:
		c.trailer = &transport.Message{Header: m.Header.Clone()}
		c.end()
	case transport.Opened, transport.Pong, transport.GoAway: // HTTP/2 has its own
		if c.x.r.Context().Err() != nil {
			return fmt.Errorf("transport/grpc: the client has gone: %w", transport.ErrClosed)
		}
	default:
		return fmt.Errorf("%w: a %s on a stream of gRPC", transport.ErrNotSent, m.Kind)
	}
	return nil
}

// write writes a message. The caller holds the lock.
func (c *serverConn) write(ctx context.Context, m *transport.Message) error {
	x := c.x
	if !x.begun {
		x.describe(m.Header)
		x.begun = true
	}
	c.watch(ctx)
	c.setWriting(true)
	defer c.setWriting(false)
	if ctx.Err() != nil { // it may have ended before there was a write to break
		return fmt.Errorf("%w: %w", transport.ErrNotSent, ctx.Err())
	}
	x.out = appendFrame(x.out[:0], m.Body, x.packs)
	_, err := x.w.Write(x.out)
	if cap(x.out) > keepStorage {
		x.out = nil
	}
	if err == nil {
		err = http.NewResponseController(x.w).Flush()
	}
	if err != nil {
		c.end()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("transport/grpc: to %s: %w", x.r.RemoteAddr, err)
	}
	return nil
}

// watch has a write that waits for the client end with ctx. HTTP/2 then ends the whole stream. All messages of a stream are sent with
// the same ctx, mostly.
func (c *serverConn) watch(ctx context.Context) {
	if ctx == c.watched {
		return
	}
	if c.unwatch != nil {
		c.unwatch()
	}
	c.watched = ctx
	c.unwatch = context.AfterFunc(ctx, c.breakWrite)
}

func (c *serverConn) setWriting(on bool) {
	c.edge.Lock()
	defer c.edge.Unlock()
	c.writing = on
}

// breakWrite ends a write that is under way, and the stream with it.
func (c *serverConn) breakWrite() {
	c.edge.Lock()
	defer c.edge.Unlock()
	if c.writing && !c.gone {
		_ = http.NewResponseController(c.x.w).SetWriteDeadline(time.Unix(1, 0)) // fails on a stream that has gone
	}
}

// end lets the request's goroutine end the answer. The reader, which is that goroutine, may be waiting for the client: what that still
// sends is not read. The caller holds the lock.
func (c *serverConn) end() {
	if !c.ended {
		c.ended = true
		close(c.done)
		_ = http.NewResponseController(c.x.w).SetReadDeadline(time.Unix(1, 0)) // fails on a stream that has gone, as the read will
	}
}

// finish writes the end of the answer.
func (c *serverConn) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unwatch != nil {
		c.unwatch()
	}
	c.edge.Lock()
	c.gone = true
	c.edge.Unlock()
	switch failed := c.trailer != nil && c.trailer.Header.Get(transport.HeaderError) != ""; {
	case c.bad != nil && (c.trailer == nil || failed): // the handler knows no more than that the stream has failed
		c.x.end(nil, c.bad)
	case c.trailer == nil:
		c.x.end(nil, status.New(status.Unavailable, "the server broke the stream off"))
	default:
		c.x.end(c.trailer.Header, status.Parse(c.trailer.Header.Get(transport.HeaderError)))
	}
}

// RemoteAddr is the client's address.
func (c *serverConn) RemoteAddr() string { return c.x.r.RemoteAddr }

// Close breaks the stream, unless it has ended.
func (c *serverConn) Close() error {
	c.breakWrite()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
	return nil
}
