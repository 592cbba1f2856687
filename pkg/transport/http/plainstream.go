package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/mucp"
)

// plainStream is a stream to a peer in plain HTTP, as go-micro has them. It owns a TCP connection on which each message is a
// whole HTTP request or response, in no relation to each other. The first request opens the stream: the server takes the
// endpoint from it, and drops its body. Micro-Error ends the stream: from the server with the handler's error, or "EOS". From
// the client "EOS" has the handler see the end of what is sent, and it may still answer; but go-micro's servers tell nothing of
// the end of a handler that has seen it and did not fail. It is asked for then: see awaitEnd.
type plainStream struct {
	c     *plainConn
	nc    net.Conn
	id    uint32
	lines []byte // of each request's head, but for what tells its body and an error
	empty []byte // the body of a message that has none, where the content type wants one

	turn     chan struct{} // held while a message is written
	out      []byte        // storage of whoever holds it
	finished atomic.Bool   // our End was sent, as "EOS"
	over     atomic.Bool   // the server has ended the stream
	said     chan struct{} // a hint: the server has sent something
	missed   int           // answers that say that it is no more; of the reader
}

// arrival is a message that the reader of a stream has for Recv.
type arrival struct {
	m     transport.Message
	err   error         // of a message that was skipped
	taken chan struct{} // it was taken, and m is other storage
}

// Send opens a stream by Open, which connects, and sends its messages. Where ctx ends while a message is written the stream is
// broken.
func (c *plainConn) Send(ctx context.Context, m *transport.Message) error {
	if err := transport.Check(m, c.t.o.MaxMessage); err != nil {
		return err
	}
	if m.Kind == transport.Open {
		return c.open(ctx, m)
	}
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	if err := context.Cause(c.ctx); err != nil {
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.addr, err)
	}
	if s == nil || s.id != m.ID || m.Kind != transport.Data && m.Kind != transport.End && m.Kind != transport.Cancel {
		return fmt.Errorf("%w: to %s: a message of kind %s, which plain HTTP has not got", transport.ErrNotSent, c.addr, m.Kind)
	}
	if s.over.Load() {
		return nil // as the server would drop it
	}
	switch m.Kind {
	case transport.End:
		return s.finish(ctx)
	case transport.Cancel:
		if s.finished.Load() {
			return nil // the closing of the connection tells the rest
		}
		return s.write(ctx, asText(&status.Error{ID: "micro.client", Code: status.Canceled, Detail: "the caller has left the stream"}), nil)
	}
	return s.write(ctx, "", m.Body)
}

// open connects and sends the request that opens a stream.
func (c *plainConn) open(ctx context.Context, m *transport.Message) error {
	if err := c.speaks(m); err != nil {
		return err
	}
	if _, ok := c.enter(); !ok {
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.addr, transport.ErrClosed)
	}
	defer c.leave()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(c.ctx, stop)()
	host, _, _ := net.SplitHostPort(c.addr) // Dial has looked at it
	nc, err := c.t.connect(ctx, c.addr, host)
	if err != nil {
		return fmt.Errorf("%w: dial %s: %w", transport.ErrNotSent, c.addr, err)
	}
	s := &plainStream{c: c, nc: nc, id: m.ID, lines: c.streamLines(m), turn: make(chan struct{}, 1), said: make(chan struct{}, 1)}
	if err := c.adopt(s); err != nil {
		nc.Close()
		return err
	}
	var body []byte
	switch contentType := mediaTypeOf(m.Header.Get(transport.HeaderContentType)); {
	case contentType == "application/json":
		body = []byte("{}") // there are servers that decode it
	case strings.HasSuffix(contentType, "-rpc"): // all messages are read, also those that say something by their head
		body = bytes.Clone(m.Body)
		s.empty = body
	}
	return s.write(ctx, "", body)
}

// streamLines gives the lines of the head that a stream's requests have.
func (c *plainConn) streamLines(m *transport.Message) []byte {
	h := http.Header{"User-Agent": {"Go-http-client/1.1"}}
	c.writeHeader(h, m, m.Timeout)
	h.Set(headerStream, h.Get(headerID))
	return mucp.AppendHeader(nil, h)
}

// adopt makes s the connection's stream, and starts its reader.
func (c *plainConn) adopt(s *plainStream) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.addr, transport.ErrClosed)
	case c.stream != nil && !c.stream.over.Load():
		return fmt.Errorf("%w: to %s: a second stream on a connection that a stream owns", transport.ErrNotSent, c.addr)
	}
	c.stream = s
	c.calls.Go(s.receive)
	return nil
}

// Recv gives the messages of the stream: Opened at once, since no server tells that it has taken a stream.
func (c *plainConn) Recv(ctx context.Context, m *transport.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case a := <-c.incoming:
		*m, a.m = a.m, transport.Message{Header: m.Header, Body: m.Body}
		err := a.err
		a.taken <- struct{}{}
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
}

// fail breaks the connection because of err.
func (c *plainConn) fail(err error) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel(err)
}

// write sends a request: with body, or with failed as its Micro-Error.
func (s *plainStream) write(ctx context.Context, failed string, body []byte) error {
	return s.writeWith(ctx, s.lines, failed, body)
}

// writeWith is write with other lines for its head.
func (s *plainStream) writeWith(ctx context.Context, lines []byte, failed string, body []byte) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, s.c.addr, ctx.Err())
	case <-s.c.ctx.Done():
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, s.c.addr, context.Cause(s.c.ctx))
	}
	out := s.out[:0]
	if failed != "" && len(s.empty) > 0 { // without it the server takes the message for the end of the connection
		out = mucp.AppendRequest(out, s.c.addr, "/", mucp.AppendLine(bytes.Clone(lines), headerError, failed), s.empty)
	} else if failed != "" {
		out = mucp.AppendEnd(out, s.c.addr, "/", mucp.AppendLine(bytes.Clone(lines), headerError, failed))
	} else {
		out = mucp.AppendRequest(out, s.c.addr, "/", lines, body)
	}
	if s.out = out; cap(out) > keepStorage {
		s.out = nil
	}
	return s.writeAll(ctx, out)
}

// writeAll writes p, in one write where the connection takes it.
func (s *plainStream) writeAll(ctx context.Context, p []byte) error {
	_ = s.nc.SetWriteDeadline(time.Now().Add(s.c.t.o.WriteTimeout)) // fails on a connection that has gone, as the write will
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = s.nc.SetWriteDeadline(time.Unix(1, 0))
		close(ended)
	})
	n, err := s.nc.Write(p)
	if !stop() {
		<-ended // so that it does not end the next write
	}
	switch {
	case err == nil, s.over.Load():
		return nil
	case ctx.Err() != nil && n == 0:
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, s.c.addr, ctx.Err())
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	err = fmt.Errorf("transport/http: stream to %s: %w", s.c.addr, err)
	s.c.fail(err)
	return err
}

// receive reads the server's messages until the stream ends, and gives them to Recv.
func (s *plainStream) receive() {
	defer s.nc.Close()
	defer context.AfterFunc(s.c.ctx, func() { s.nc.Close() })()
	a := &arrival{taken: make(chan struct{}, 1)}
	o := &s.c.t.o
	in := mucp.NewReader(s.nc, nil, mucp.Limits{Head: o.MaxHeader, Body: o.MaxMessage, HeadTime: o.HeaderTimeout, BodyIdle: o.BodyIdle, BodyTime: o.BodyTimeout})
	a.m.Kind = transport.Opened
	for {
		a.m.ID = s.id
		s.hear()
		if a.m.Kind == transport.End {
			s.over.Store(true)
			s.nc.Close()
		}
		select {
		case s.c.incoming <- a:
			<-a.taken
		case <-s.c.ctx.Done():
			return
		}
		if s.over.Load() {
			return
		}
		a.m.Reset()
		a.m.Kind = transport.Data
		whole := false
		if whole, a.err = s.read(in, &a.m); !whole {
			s.c.fail(a.err)
			return
		}
	}
}

// read reads a message, and reports whether the next one can be read, which it can after one that was too large.
func (s *plainStream) read(in *mucp.Reader, m *transport.Message) (whole bool, err error) {
	answer, err := in.Response()
	if err == nil {
		m.Body, err = in.Body(m.Body)
	}
	switch {
	case err == nil && s.isGone(answer):
		if s.missed++; s.missed < 2 { // what the stream sent last may be on its way behind this
			s.hear()
			return s.read(in, m)
		}
		m.Kind, m.Body = transport.End, m.Body[:0]
		return true, nil
	case errors.Is(err, mucp.ErrBodyTooLarge):
		m.Body = m.Body[:0]
		return in.Skip(), fmt.Errorf("%w: %w", transport.ErrTooLarge, err)
	case errors.Is(err, mucp.ErrMalformed), errors.Is(err, mucp.ErrHeadTooLarge):
		return false, fmt.Errorf("%w: %.200s", transport.ErrProtocol, err)
	case err != nil:
		return false, err
	}
	err = s.present(answer, m)
	return err == nil, err
}

// present makes m what the answer says: a message, or the end.
func (s *plainStream) present(answer *http.Response, m *transport.Message) error {
	failed := first(answer.Header, headerError, "X-Micro-Error")
	if failed != mucp.EOS {
		var err error
		if failed, err = told(answer, m.Body); err != nil {
			return err
		}
	}
	if failed != "" {
		m.Kind, m.Body = transport.End, m.Body[:0]
		if failed == mucp.EOS {
			return nil
		}
		return put(m, transport.HeaderError, clip(failed))
	}
	return put(m, transport.HeaderContentType, mediaTypeOf(get(answer.Header, "Content-Type")))
}
