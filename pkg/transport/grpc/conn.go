package grpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Conn is a client's connection: of unary calls, many at a time, by Call; or of streams, one after the other. Each is a stream
// of an HTTP/2 connection, which Conns to the same address share.
type Conn struct {
	ch     *channel
	closed chan struct{}
	work   sync.WaitGroup

	mu      sync.Mutex
	shut    bool // closed is
	running int  // calls under way
	awaits  bool // a stream will be opened
	stream  *clientStream
	opened  chan *clientStream // the next stream, for who receives
}

var (
	_ transport.Conn    = (*Conn)(nil)
	_ transport.Caller  = (*Conn)(nil)
	_ transport.Unheard = (*Conn)(nil)
)

func newConn(ch *channel) *Conn {
	return &Conn{ch: ch, closed: make(chan struct{}), opened: make(chan *clientStream, 1)}
}

func (c *Conn) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.shut {
		c.running++
	}
	return !c.shut
}

func (c *Conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
}

// closing reports whether Close was called.
func (c *Conn) closing() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// Usable reports whether the connection takes new calls.
func (c *Conn) Usable() bool {
	c.mu.Lock()
	shut := c.shut
	c.mu.Unlock()
	return !shut && c.ch.usable()
}

// CloseIdle closes the connection unless a call is under way.
func (c *Conn) CloseIdle() bool {
	c.mu.Lock()
	idle := c.running == 0
	c.mu.Unlock()
	if idle {
		_ = c.Close() // gives no error
	}
	return idle
}

// AwaitOpen keeps room for a stream, which is open when its headers have gone out.
func (c *Conn) AwaitOpen() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut || !c.ch.usable() {
		return fmt.Errorf("%w: to %s: the connection takes no more streams", transport.ErrNotSent, c.ch.addr)
	}
	if !c.awaits {
		c.awaits = true
		c.ch.awaited.Add(1)
	}
	return nil
}

// awaited ends what AwaitOpen began. The caller holds the lock.
func (c *Conn) awaited() {
	if c.awaits {
		c.awaits = false
		c.ch.awaited.Add(-1)
	}
}

// RemoteAddr is the address that was dialled.
func (c *Conn) RemoteAddr() string { return c.ch.addr }

// Close breaks the stream. The HTTP/2 connection is closed with the last Conn that uses it, and the calls with it.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.shut {
		c.mu.Unlock()
		c.work.Wait()
		return nil
	}
	c.shut = true
	c.awaited()
	close(c.closed)
	s := c.stream
	c.mu.Unlock()
	if s != nil {
		s.cancel()
	}
	c.ch.release()
	c.work.Wait()
	return nil
}

// clientStream is a stream that this side opened.
type clientStream struct {
	conn   *Conn
	id     uint32
	cancel context.CancelFunc
	out    outbox
	in     feed
	over   chan struct{} // closed when the server's End was received, or the stream failed
}

// Send opens a stream, sends one's messages, ends this side's, or gives it up. Calls go by Call.
func (c *Conn) Send(ctx context.Context, m *transport.Message) error {
	if err := transport.Check(m, c.ch.t.o.MaxMessage); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", transport.ErrNotSent, err)
	}
	c.mu.Lock()
	s, shut := c.stream, c.shut
	c.mu.Unlock()
	if shut {
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.ch.addr, transport.ErrClosed)
	}
	switch m.Kind {
	case transport.Open:
		return c.open(ctx, m)
	case transport.Data:
		if s == nil || s.id != m.ID {
			return nil // it crossed the end of its stream
		}
		return s.out.put(ctx, m.Body, c.ch.t.o.Gzip)
	case transport.End:
		if s != nil && s.id == m.ID {
			s.out.end()
		}
	case transport.Cancel:
		if s != nil && s.id == m.ID {
			s.cancel()
		}
	case transport.Ping, transport.Pong: // HTTP/2 has its own
	default:
		return fmt.Errorf("%w: a %s on a connection of gRPC, whose calls go by Call: %w", transport.ErrNotSent, m.Kind, errors.ErrUnsupported)
	}
	return nil
}

// open opens a stream. One that went before has ended.
func (c *Conn) open(ctx context.Context, m *transport.Message) error {
	s := &clientStream{conn: c, id: m.ID, over: make(chan struct{})}
	s.out.init()
	s.in.init()
	var life context.Context
	life, s.cancel = context.WithCancel(context.Background())
	var wrote atomic.Bool
	life = httptrace.WithClientTrace(life, &httptrace.ClientTrace{WroteHeaders: func() {
		wrote.Store(true)
		c.ch.wire.flush()
		s.out.opened()
	}})
	r, err := c.ch.request(life, m, &s.out, m.Timeout)
	if err != nil {
		s.cancel()
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.shut:
		s.cancel()
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.ch.addr, transport.ErrClosed)
	case c.stream != nil:
		s.cancel()
		return fmt.Errorf("%w: a second stream on a connection of gRPC that one owns", transport.ErrNotSent)
	}
	c.awaited()
	c.stream = s
	c.opened <- s // there is none in it: it was received before the stream that went before could end
	c.work.Go(func() { s.run(r, &wrote) })
	return nil
}

// run makes the stream's request, and reads its answer to the end.
func (s *clientStream) run(r *http.Request, wrote *atomic.Bool) {
	defer s.cancel()
	defer s.out.Close()
	type result struct {
		answer *http.Response
		err    error
	}
	done := make(chan result, 1)
	go func() { // ends with the request's context at the latest, which run ends
		answer, err := s.conn.ch.http.RoundTrip(r)
		done <- result{answer, err}
	}()
	var got result
	select {
	case <-s.out.headers: // the server has it
		if !s.give(transport.Opened, nil) {
			s.cancel()
		}
		got = <-done
	case got = <-done:
		if got.err == nil && !s.give(transport.Opened, nil) {
			s.cancel()
		}
	}
	if got.err != nil {
		s.fail(got.err, wrote.Load())
		return
	}
	defer got.answer.Body.Close()
	s.read(got.answer)
}

// give hands a message without a body on, and reports whether the Conn still wants it.
func (s *clientStream) give(kind transport.Kind, failed *status.Error) bool {
	m := s.in.spare()
	m.Kind, m.ID = kind, s.id
	if failed != nil {
		h := head{metadata: m.Header}
		h.addError(failed)
		m.Header = h.metadata
	}
	return s.in.put(m, s.conn.closed)
}

// read hands the answer's messages on, and then its end.
func (s *clientStream) read(answer *http.Response) {
	packed, err := accept(answer)
	if err != nil {
		s.in.end(err)
		return
	}
	in := reader{r: answer.Body, max: s.conn.ch.t.o.MaxMessage, gzip: packed}
	for {
		m := s.in.spare()
		m.Kind, m.ID = transport.Data, s.id
		m.Body, err = in.next(m.Body)
		if err != nil {
			break
		}
		if !s.in.put(m, s.conn.closed) {
			return
		}
	}
	if !errors.Is(err, io.EOF) {
		s.fail(err, true)
		return
	}
	failed, err := outcome(answer)
	if err == nil && isLarge(failed) {
		err = failed
	}
	if err != nil {
		s.in.end(err)
		return
	}
	end := &transport.Message{Kind: transport.End, ID: s.id}
	if err := s.conn.ch.readHeader(answer, end, failed); err != nil {
		s.in.end(err)
		return
	}
	s.in.put(end, s.conn.closed)
}

// fail ends the stream with an error: as the server's End, where that is how the server ended it.
func (s *clientStream) fail(err error, begun bool) {
	err = s.conn.explain(err, begun)
	if e := (*status.Error)(nil); errors.As(err, &e) && e.Remote {
		s.give(transport.End, e)
		return
	}
	if errors.Is(err, transport.ErrTooLarge) {
		s.give(transport.End, status.Wrap(err, status.TooLarge, "a message of the stream is too large: %v", err))
		return
	}
	s.in.end(err)
}

// Recv gives the next message of the stream, Opened before all. Without a stream it waits for the next, or for the end of the
// connection: io.EOF.
func (c *Conn) Recv(ctx context.Context, m *transport.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	if s == nil {
		select {
		case s = <-c.opened:
		case <-c.closed:
			return transport.ErrClosed
		case <-c.ch.gone:
			return io.EOF
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := s.in.get(ctx, m, c.closed)
	if err == nil && m.Kind == transport.End || errors.Is(err, io.EOF) {
		c.ended(s)
	}
	return err
}

// ended frees the connection for another stream.
func (c *Conn) ended(s *clientStream) {
	s.out.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream == s {
		c.stream = nil
	}
	select {
	case <-c.opened: // where Recv found the stream without it
	default:
	}
}
