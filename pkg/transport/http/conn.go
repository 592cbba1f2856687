package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/frame"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
)

// conn is an upgraded connection: frames both ways.
type conn struct {
	nc    net.Conn
	o     *Options
	pools *pools

	in      input          // of Recv, one goroutine at a time
	tracker *drain.Tracker // on the server's side alone
	highest atomic.Uint32  // on the client's side: the highest id that it has sent

	writing chan struct{} // held while a frame is written; waiters are served in turn
	parts   chan struct{} // a place for each message that may be under way in frames
	stream  chan struct{} // held while a message of a stream is sent, so that they stay in order

	once    sync.Once
	err     error // why it was closed; read after closed
	closed  chan struct{}
	onClose func()

	mu      sync.Mutex
	closing bool           // no write begins any more that nobody waits for
	behind  sync.WaitGroup // such writes: the rest of frames, and frames that take half-sent messages back
}

var _ transport.Conn = (*conn)(nil)

// newConn returns the connection whose upgrade was agreed on. early is what came after the 101 with it.
func newConn(nc net.Conn, t *Transport, early []byte) *conn {
	boundQueue(nc)
	c := &conn{
		nc:      nc,
		o:       &t.o,
		pools:   t.pools,
		writing: make(chan struct{}, 1),
		parts:   make(chan struct{}, frame.MaxPartial),
		stream:  make(chan struct{}, 1),
		closed:  make(chan struct{}),
	}
	c.in = input{asm: frame.NewAssembler(t.o.MaxMessage), data: early}
	return c
}

// RemoteAddr is the peer's address.
func (c *conn) RemoteAddr() string { return c.nc.RemoteAddr().String() }

// Close breaks the connection.
func (c *conn) Close() error {
	c.fail(transport.ErrClosed)
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.behind.Wait()
	return nil
}

// fail closes the connection because of err, and gives the error of which it was closed, which may be an earlier one.
func (c *conn) fail(err error) error {
	c.once.Do(func() {
		c.err = err
		close(c.closed)
		c.nc.Close()
		if c.onClose != nil {
			c.onClose()
		}
	})
	return c.err
}

// Send writes m in one frame, or a long body in several between which other messages may pass.
func (c *conn) Send(ctx context.Context, m *transport.Message) error {
	if err := transport.Check(m, c.o.MaxMessage); err != nil {
		return err
	}
	if len(m.Body) > frame.MaxBody && !frame.Divisible(m.Kind) {
		return fmt.Errorf("%w: %s with a body of %d bytes, limit %d", transport.ErrTooLarge, m.Kind, len(m.Body), frame.MaxBody)
	}
	if c.tracker != nil {
		c.tracker.Sending(m.Kind, m.ID)
		defer c.tracker.Sent(m.Kind)
	} else {
		c.noteID(m.ID)
	}
	inOrder := m.Kind == transport.Data || m.Kind == transport.End
	if inOrder {
		if err := c.acquire(ctx, c.stream); err != nil {
			return err
		}
	}
	release := func() {
		if inOrder {
			<-c.stream
		}
	}
	if len(m.Body) <= frame.MaxBody {
		defer release()
		return c.write(ctx, head(m, len(m.Body), 0), m.Header, m.Body)
	}
	return c.sendParts(ctx, m, release)
}

// noteID keeps the highest id that the peer may answer.
func (c *conn) noteID(id uint32) {
	for {
		was := c.highest.Load()
		if id <= was || c.highest.CompareAndSwap(was, id) {
			return
		}
	}
}

func head(m *transport.Message, body int, flags uint8) frame.Header {
	return frame.Header{
		Body: uint32(body), ID: m.ID, Section: uint16(len(m.Header)), Kind: m.Kind, Flags: flags, Timeout: frame.Timeout(m.Timeout),
	}
}

// errLeft is wrapped by the error of a write whose caller has gone while the frame is still being written.
var errLeft = errors.New("within a frame")

// sendParts writes a message in several frames. Where ctx ends between two of them, the peer is told to forget what it has.
func (c *conn) sendParts(ctx context.Context, m *transport.Message, release func()) error {
	if err := c.acquire(ctx, c.parts); err != nil {
		release()
		return err
	}
	free := func() { <-c.parts; release() }
	h, section, rest := head(m, frame.MaxBody, frame.More), []byte(m.Header), m.Body
	for first := true; ; first = false {
		part := rest[:min(len(rest), frame.MaxBody)]
		if rest = rest[len(part):]; len(rest) == 0 {
			h.Flags &^= frame.More
		}
		h.Body = uint32(len(part))
		err := c.write(ctx, h, section, part)
		left := errors.Is(err, errLeft) && len(rest) > 0
		if (left || err != nil && !first && errors.Is(err, transport.ErrNotSent)) && !c.isClosed() {
			c.abort(frame.Header{ID: m.ID, Kind: m.Kind, Flags: frame.Cont | frame.Abort}, free)
			return c.notSent(ctx.Err())
		}
		if err != nil && !first && errors.Is(err, transport.ErrNotSent) {
			err = fmt.Errorf("transport/http: connection to %s failed within a message: %w", c.RemoteAddr(), c.err)
		}
		if err != nil || len(rest) == 0 {
			free()
			return err
		}
		h = frame.Header{ID: m.ID, Kind: m.Kind, Flags: frame.Cont | frame.More}
		section = nil
	}
}

// abort takes a half-sent message back. The frame may have to wait for others, the caller not; free is called after it.
func (c *conn) abort(h frame.Header, free func()) {
	began := c.later(func() {
		defer free()
		if err := c.write(context.Background(), h, nil, nil); err != nil {
			c.fail(err)
		}
	})
	if !began {
		free()
	}
}

// later runs f on a goroutine that Close waits for, unless the connection is being closed.
func (c *conn) later(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.behind.Go(f)
	}
	return !c.closing
}

// acquire takes a place in gate.
func (c *conn) acquire(ctx context.Context, gate chan struct{}) error {
	select {
	case gate <- struct{}{}:
		return nil
	case <-c.closed:
		return c.notSent(c.err)
	case <-ctx.Done():
		return c.notSent(ctx.Err())
	}
}

func (c *conn) notSent(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s has closed the connection", transport.ErrNotSent, c.RemoteAddr())
	}
	return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.RemoteAddr(), err)
}

func (c *conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// write writes one frame by one write. An error wraps ErrNotSent where no byte of the frame was written. Where ctx ends
// within the frame, the caller goes and the frame is finished behind its back: other messages share the connection.
func (c *conn) write(ctx context.Context, h frame.Header, section, body []byte) error {
	if err := ctx.Err(); err != nil {
		return c.notSent(err)
	}
	if c.isClosed() {
		return c.notSent(c.err)
	}
	if err := c.acquire(ctx, c.writing); err != nil {
		return err
	}
	buf := c.pools.get(frame.HeaderSize + len(section) + len(body))
	free := func() {
		c.pools.put(buf)
		<-c.writing
	}
	data := append(append(h.Append((*buf)[:0]), section...), body...)
	if c.o.TLSConfig != nil && ctx.Done() != nil {
		return c.writeBehind(ctx, data, free) // a TLS connection does not outlive a write that was broken off
	}
	n, err := c.writeBy(ctx, data)
	if err != nil && ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		if n == 0 {
			free()
			return c.notSent(ctx.Err())
		}
		if !c.later(func() { defer free(); _ = c.writeAll(data[n:]) }) {
			free()
		}
		return fmt.Errorf("transport/http: send to %s: %w %w", c.RemoteAddr(), ctx.Err(), errLeft)
	}
	free()
	if err != nil {
		return c.broken(n, err)
	}
	return nil
}

// writeBehind writes data on a goroutine of its own, and waits for it until ctx ends.
func (c *conn) writeBehind(ctx context.Context, data []byte, free func()) error {
	done := make(chan error, 1)
	write := func() {
		defer free()
		done <- c.writeAll(data)
	}
	if !c.later(write) {
		free()
		return c.notSent(transport.ErrClosed)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("transport/http: send to %s: %w %w", c.RemoteAddr(), ctx.Err(), errLeft)
	}
}

// writeAll writes data within the write timeout; where it fails the connection does.
func (c *conn) writeAll(data []byte) error {
	n, err := c.writeBy(context.Background(), data)
	if err != nil {
		return c.broken(n, err)
	}
	return nil
}

// broken closes the connection because a write failed after n bytes, and gives the error for its caller.
func (c *conn) broken(n int, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the peer has read nothing for %s", c.o.WriteTimeout)
	}
	err = c.fail(fmt.Errorf("transport/http: send to %s: %w", c.RemoteAddr(), err))
	if n == 0 {
		return c.notSent(err)
	}
	return err
}

// writeBy writes data until ctx ends or the write timeout has passed.
func (c *conn) writeBy(ctx context.Context, data []byte) (int, error) {
	limit := time.Now().Add(c.o.WriteTimeout)
	if err := c.nc.SetWriteDeadline(limit); err != nil {
		return 0, err
	}
	if ctx.Done() == nil {
		return c.nc.Write(data)
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = c.nc.SetWriteDeadline(time.Unix(1, 0)) // a connection that is closed already fails the write by itself
	})
	n, err := c.nc.Write(data)
	if !stop() {
		<-fired
	}
	return n, err
}
