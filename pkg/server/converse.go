package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// conversation is one connection of messages: many calls at once, or one stream.
type conversation struct {
	*serving
	conn transport.Conn
	ctx  context.Context // ends with the connection

	mu     sync.Mutex
	cancel map[uint32]context.CancelFunc // of the calls under way, by message ID
	stream *stream                       // the last stream on the connection, perhaps ended
}

// converse answers the connection's messages until it ends. Its calls end with it.
func (r *serving) converse(conn transport.Conn) {
	ctx, stop := context.WithCancel(r.base)
	defer stop()
	c := &conversation{serving: r, conn: conn, ctx: ctx, cancel: map[uint32]context.CancelFunc{}}
	for {
		m := new(transport.Message)
		if err := conn.Recv(ctx, m); err != nil {
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
	ctx, end := c.begin(m, true)
	c.busy.Add(1)
	c.work.Go(func() {
		defer c.busy.Add(-1)
		defer end()
		header, body := c.unary(ctx, c.conn.RemoteAddr(), m)
		reply := &transport.Message{Kind: transport.Reply, ID: m.ID, Header: header, Body: body}
		// The connection's own context: an answer is sent even where the caller's time has just run out.
		err := c.conn.Send(c.ctx, reply)
		if errors.Is(err, transport.ErrTooLarge) {
			reply.Header = failure(c.name, nil, status.Wrap(err, status.TooLarge, "the answer is too large: %v", err))
			reply.Body = nil
			err = c.conn.Send(c.ctx, reply)
		}
		if err != nil && c.ctx.Err() == nil {
			c.logger.Info("answer was not sent", "service", c.name, "remote", c.conn.RemoteAddr(), "error", err)
		}
	})
}

// open runs a stream's handler on a goroutine of its own.
func (c *conversation) open(m *transport.Message) {
	s := &stream{conversation: c, id: m.ID, in: make(chan *transport.Message, streamBuffer), done: make(chan struct{})}
	s.ctx, s.cancel = c.begin(m, false)
	c.stream = s
	c.busy.Add(1)
	c.work.Go(func() {
		defer c.busy.Add(-1)
		defer close(s.done)
		defer s.cancel()
		header := metadata.MD(nil)
		if err := s.serve(m); err != nil {
			header = failure(c.name, nil, c.public(err, m.Header))
		}
		s.returned.Store(true) // before End: whoever reads that may open the next stream at once
		_ = c.conn.Send(c.ctx, &transport.Message{Kind: transport.End, ID: m.ID, Header: header})
	})
}

// stream is the pipe of a stream.
type stream struct {
	*conversation
	id       uint32
	ctx      context.Context
	cancel   func()
	returned atomic.Bool   // the handler has
	done     chan struct{} // closed when End was sent, too

	in   chan *transport.Message // what the handler has not received yet
	last *transport.Message      // what recv gave last

	mu     sync.Mutex
	ended  bool // the peer sent End, or failed: in is closed
	broken error
}

func (s *stream) serve(m *transport.Message) error {
	c, ep, err := s.route(s.conn.RemoteAddr(), m, s)
	if err != nil {
		return err
	}
	if ep.Kind == Unary {
		return status.New(status.Unimplemented, "%s is no stream: call it", ep.Name)
	}
	if err := s.streams.enter(); err != nil {
		return err
	}
	defer s.streams.leave()
	return s.run(s.ctx, c, ep.handler, &ep.stats)
}

// put takes a message for the handler. It waits while streamBuffer messages are unread: the peer then feels it.
func (s *stream) put(m *transport.Message) {
	s.mu.Lock()
	ended := s.ended
	s.ended = ended || m.Kind == transport.End
	s.mu.Unlock()
	switch {
	case ended: // late or wrong: nobody reads it
	case m.Kind == transport.End:
		close(s.in)
	default:
		select {
		case s.in <- m:
		case <-s.done: // the handler returned without reading on
		case <-s.ctx.Done():
		}
	}
}

// fail ends the stream from the peer's side.
func (s *stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended, s.broken = true, err
		close(s.in)
	}
	s.cancel()
}

func (s *stream) recv() ([]byte, error) {
	select {
	case m, ok := <-s.in:
		if ok {
			s.last = m
			return m.Body, nil
		}
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return nil, status.Wrap(s.broken, status.Canceled, "the caller went away")
	}
	return nil, io.EOF
}

// sendTimeout is how long a stream's message waits for a peer that does not read.
const sendTimeout = 10 * time.Second

func (s *stream) send(contentType string, body []byte) error {
	ctx, cancel := context.WithTimeout(s.ctx, sendTimeout)
	defer cancel()
	m := &transport.Message{Kind: transport.Data, ID: s.id, Body: body}
	if contentType != "" {
		m.Header, _ = m.Header.Set(transport.HeaderContentType, contentType)
	}
	err := s.conn.Send(ctx, m)
	if err != nil && errors.Is(err, context.DeadlineExceeded) && s.ctx.Err() == nil {
		s.cancel()
		return status.Wrap(err, status.Unavailable, "the caller has not read for %v", sendTimeout)
	}
	return err
}

func (s *stream) setHeader(string, string) error {
	return status.New(status.Unimplemented, "a stream has no header of its own")
}
