package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/mucp"
)

// mucpAhead is how many messages of a stream are read before somebody receives them. Beyond that the connection is not read.
const mucpAhead = 4

// eosGrace is how long a handler may work off what a client sent that has said its last word and gone. go-micro's clients close the
// connection right behind that word.
const eosGrace = 5 * time.Second

// mucpStream is a stream of a go-micro client, as a connection that has nothing else.
type mucpStream struct {
	c     *mucpConn
	key   string
	lines []byte             // of the headers that all its messages have
	open  *transport.Message // nil once it was received
	said  bool               // the peer's End was received; of Recv

	in       chan mucpMessage
	free     chan []byte   // storage for bodies
	answered chan struct{} // closed when the End was sent
	closed   chan struct{} // closed by Close

	mu    sync.Mutex
	ended bool // answered, or closed before that
}

// mucpMessage is what a peer sent.
type mucpMessage struct {
	kind   transport.Kind // Data or End
	header metadata.MD
	body   []byte
	err    error // why there is no body
}

var _ transport.Conn = (*mucpStream)(nil)

func newMucpStream(c *mucpConn, key string, r *http.Request, m *transport.Message) *mucpStream {
	return &mucpStream{
		c: c, key: key, lines: echoed(r.Header),
		// Its time is not looked at: v1's clients send that of a call with each stream, and wait for longer.
		open: &transport.Message{Kind: transport.Open, ID: mucpID, Header: m.Header.Clone()},
		in:   make(chan mucpMessage, mucpAhead), free: make(chan []byte, mucpAhead),
		answered: make(chan struct{}), closed: make(chan struct{}),
	}
}

// mucpID is the ID of a stream's messages: its connection has no other.
const mucpID = 1

// echoed gives the lines of a stream's headers that its answers repeat: those of the protocol, under their older names as well. go-micro's
// servers repeat all; but a connection may be a proxy's, who has several clients, and a header may be a secret.
func echoed(h http.Header) []byte {
	out := http.Header{}
	for name, values := range h {
		switch {
		case name == headerError || name == headerOldError:
		case strings.HasPrefix(name, "Micro-"), strings.HasPrefix(name, "X-Micro-"), name == "Accept", name == headerNanos:
			out[name] = values
		}
	}
	for _, name := range []string{headerID, "Micro-Service", "Micro-Endpoint", "Micro-Method"} {
		if v := first(h, name, "X-"+name); v != "" {
			out[name], out["X-"+name] = []string{v}, []string{v}
		}
	}
	return mucp.AppendHeader(nil, out)
}

// spare gives storage for the body of a message.
func (s *mucpStream) spare() []byte {
	select {
	case b := <-s.free:
		return b[:0]
	default:
		return nil
	}
}

// take hands on a message of the peer's. It waits for room.
func (s *mucpStream) take(r *http.Request, body []byte) {
	m := mucpMessage{kind: transport.Data, body: body}
	if failed := first(r.Header, headerError, headerOldError); failed != "" {
		m.kind = transport.End
		if failed != mucp.EOS {
			text := public(status.Parse(failed)).AppendJSON(nil)
			m.header, _ = metadata.MD(nil).Set(transport.HeaderError, string(text)) // one that is too long is left out
		}
		s.forget()
	}
	s.put(m)
}

// tooLarge tells of a message that was over the limit.
func (s *mucpStream) tooLarge(err error) {
	s.put(mucpMessage{kind: transport.Data, err: fmt.Errorf("%w: %w", transport.ErrTooLarge, err)})
}

func (s *mucpStream) put(m mucpMessage) {
	select {
	case s.in <- m:
	case <-s.closed:
	}
}

// forget has no more of the connection's messages belong to the stream.
func (s *mucpStream) forget() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.c.streams[s.key] == s {
		delete(s.c.streams, s.key)
	}
}

// Recv implements transport.Conn.
func (s *mucpStream) Recv(ctx context.Context, m *transport.Message) error {
	if s.open != nil {
		*m, s.open = *s.open, nil
		return nil
	}
	if s.said {
		return s.rest(ctx)
	}
	for gone := false; ; {
		select { // what came before the end comes first
		case next := <-s.in:
			return s.give(m, next)
		default:
		}
		if gone {
			return io.EOF
		}
		select {
		case next := <-s.in:
			return s.give(m, next)
		case <-s.c.gone:
			gone = true
		case <-s.closed:
			return transport.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// give makes next the message m, and keeps the storage of m's body.
func (s *mucpStream) give(m *transport.Message, next mucpMessage) error {
	if cap(m.Body) > 0 && cap(m.Body) <= keepStorage {
		select {
		case s.free <- m.Body:
		default:
		}
	}
	*m = transport.Message{Kind: next.kind, ID: mucpID, Header: next.header, Body: next.body}
	s.said = next.kind == transport.End
	return next.err
}

// rest waits for the end, once the peer has sent its own.
func (s *mucpStream) rest(ctx context.Context) error {
	gone, late := s.c.gone, (<-chan time.Time)(nil)
	for {
		select {
		case <-gone:
			gone = nil
			t := time.NewTimer(eosGrace)
			defer t.Stop()
			late = t.C
		case <-late:
			return io.EOF
		case <-s.answered:
			return io.EOF
		case <-s.closed:
			return transport.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Send implements transport.Conn. Kinds that go-micro does not have are not sent.
func (s *mucpStream) Send(ctx context.Context, m *transport.Message) error {
	select {
	case <-s.closed:
		return transport.ErrClosed
	default:
	}
	switch m.Kind {
	case transport.Data:
		return s.data(ctx, m)
	case transport.End:
		return s.answer(ctx, m)
	default:
		return nil
	}
}

// data sends a message of the stream.
func (s *mucpStream) data(ctx context.Context, m *transport.Message) error {
	if limit := s.c.l.t.o.MaxMessage; len(m.Body) > limit {
		return fmt.Errorf("%w: %d bytes, over the limit of %d", transport.ErrTooLarge, len(m.Body), limit)
	}
	contentType, _ := m.Header.Bytes(transport.HeaderContentType)
	return s.write(ctx, func(dst []byte) []byte {
		dst = append(mucp.AppendLength(dst, len(m.Body)), s.lines...)
		if len(contentType) > 0 {
			dst = mucp.AppendLine(dst, "Content-Type", string(contentType))
		}
		return append(append(dst, "\r\n"...), m.Body...)
	})
}

// answer sends the message that ends the stream.
func (s *mucpStream) answer(ctx context.Context, m *transport.Message) error {
	text := mucp.EOS
	if failed, ok := m.Header.Bytes(transport.HeaderError); ok && len(failed) > 0 {
		text = string(public(status.Parse(string(failed))).AppendJSON(nil))
	}
	err := s.write(ctx, func(dst []byte) []byte {
		dst = append(mucp.AppendLength(dst, len(m.Body)), s.lines...)
		if contentType, _ := m.Header.Bytes(transport.HeaderContentType); len(m.Body) > 0 && len(contentType) > 0 {
			dst = mucp.AppendLine(dst, "Content-Type", string(contentType))
		}
		dst = mucp.AppendLine(dst, headerError, text)
		dst = mucp.AppendLine(dst, headerOldError, text)
		return append(append(dst, "\r\n"...), m.Body...)
	})
	if s.ends() {
		close(s.answered)
	}
	return err
}

func (s *mucpStream) write(ctx context.Context, message func(dst []byte) []byte) error {
	err := s.c.out.Write(ctx, false, message)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ctx.Err()):
		return fmt.Errorf("%w: %w", transport.ErrNotSent, err)
	}
	return fmt.Errorf("transport/http: %w", err)
}

// ends counts the stream out, and reports whether that was still to be done.
func (s *mucpStream) ends() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.ended = true
	s.c.leave(func() { s.c.open-- })
	return true
}

// RemoteAddr implements transport.Conn.
func (s *mucpStream) RemoteAddr() string { return s.c.remote }

// Close implements transport.Conn. A stream that has not ended breaks its connection: nothing else tells a go-micro client.
func (s *mucpStream) Close() error {
	s.forget()
	if s.ends() {
		s.c.nc.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

// TurnAway ends a stream that came too late: no handler has run.
func (s *mucpStream) TurnAway() {
	e := status.Refuse(status.Unavailable, "the server is shutting down")
	header, _ := metadata.MD(nil).Set(transport.HeaderError, string(e.AppendJSON(nil))) // it is short
	_ = s.Send(context.Background(), &transport.Message{Kind: transport.End, Header: header})
	_ = s.Close()
}
