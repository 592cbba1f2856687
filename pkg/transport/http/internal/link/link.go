// Package link is one connection of frames. It carries unary calls, many at a time, for a client and for a server, and
// messages one by one for streams.
//
// It is where a call's cost is decided, and each part is there for what it saves; docs/speed.md has the figures.
//
//	line.go      who waits to send
//	writer.go    frames of many goroutines leave in one write
//	input.go     messages are read where they lie, in a buffer that a connection at rest has not got
//	calls.go     a client's calls: a table of those that wait, whose records are used again
//	lead.go      a caller that is alone reads its reply itself
//	watch.go     timeouts, silent servers and idle connections, without a timer for each call
//	serve.go     a server's calls: handlers that are fast run on the goroutine that reads
//	monitor.go   and lose it when they are not
//	memo.go      a header that came before is not looked at again
//	message.go   Send and Recv, for streams
package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

// Options say how a Conn works. All are needed.
type Options struct {
	MaxMessage   int           // bytes of a message's body
	BodyIdle     time.Duration // no byte within a message
	BodyTimeout  time.Duration // a message, from its first byte
	WriteTimeout time.Duration // a write that the peer does not take
	Buffers      *Buffers
	Monitor      *Monitor // of a server's connections
}

// Conn is a connection of frames. A client uses either Call, or Send and Recv; a server either ServeCalls, or Recv.
type Conn struct {
	nc  net.Conn
	raw syscall.RawConn // of the TCP connection that nc is; nil where there is more between the two, or no raw reading
	o   *Options

	// OnClose is called once when the connection has ended. Set before use.
	OnClose func()

	w       writer
	in      input          // of whoever reads, one at a time
	tracker *drain.Tracker // on the server's side alone
	calls   calls          // on the client's side alone
	highest atomic.Uint32  // the highest id that a client has sent by Send

	parts  chan struct{} // a place for each message that may be under way in frames
	stream chan struct{} // held while a message of a stream is sent, so that they stay in order

	once   sync.Once
	err    error // why it ended; read after closed
	closed chan struct{}

	mu      sync.Mutex
	closing bool           // no goroutine begins any more
	work    sync.WaitGroup // the connection's own goroutines
}

var (
	_ transport.Conn   = (*Conn)(nil)
	_ transport.Caller = (*Conn)(nil)
)

// New returns the connection of a peer that has agreed to frames. tcp is the TCP connection that nc writes to as it is; nil
// where nc changes the bytes. early is what was read behind the agreement. server says which side this is.
func New(nc net.Conn, tcp *net.TCPConn, o *Options, early []byte, server bool) *Conn {
	c := &Conn{
		nc:     nc,
		o:      o,
		parts:  make(chan struct{}, frame.MaxPartial),
		stream: make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	if tcp != nil {
		c.raw = rawOf(tcp)
	}
	if server {
		c.tracker = new(drain.Tracker)
	}
	c.in = input{c: c, asm: frame.NewAssembler(o.MaxMessage, o.Buffers), data: early}
	c.in.read = c.in.readRaw
	c.w = writer{c: c, whole: line{limit: maxQueued}, parts: line{limit: maxParts}}
	c.w.write = c.w.writeRaw
	c.calls.alarm.Store(never)
	return c
}

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() string { return c.nc.RemoteAddr().String() }

// lastWrite is how long Close waits for what was sent before to be written.
const lastWrite = 250 * time.Millisecond

// Close breaks the connection and waits for its goroutines.
func (c *Conn) Close() error {
	if !c.isClosed() && !c.w.idle() {
		ctx, stop := context.WithTimeout(context.Background(), lastWrite)
		c.written(ctx)
		stop()
	}
	c.fail(transport.ErrClosed)
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.work.Wait()
	return nil
}

// Done gives a channel that is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.closed }

// fail ends the connection because of err, and gives the error of which it ended, which may be an earlier one.
func (c *Conn) fail(err error) error {
	c.once.Do(func() {
		c.err = err
		close(c.closed)
		c.nc.Close()
		c.w.fail(err)
		c.calls.fail(err)
		if c.OnClose != nil {
			c.OnClose()
		}
	})
	<-c.closed // err is set
	return c.err
}

// later runs f on a goroutine that Close waits for, and reports whether it does: not on a connection that is being closed.
func (c *Conn) later(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.work.Go(f)
	}
	return !c.closing
}

func (c *Conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// notSent wraps the reason for which nothing of a message was sent.
func (c *Conn) notSent(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s has closed the connection", transport.ErrNotSent, c.RemoteAddr())
	}
	return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.RemoteAddr(), err)
}

// Drain tells the peer that the connection takes nothing more, and closes it when nothing is under way. ctx's end leaves
// it as it is.
func (c *Conn) Drain(ctx context.Context) {
	c.tracker.Shutdown(ctx, c, func(ctx context.Context, event <-chan struct{}) bool {
		select {
		case <-event:
			return c.written(ctx)
		case <-c.closed:
		case <-ctx.Done():
		}
		return false
	})
}

// written waits until all that was sent has been written, and reports whether it was.
func (c *Conn) written(ctx context.Context) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !c.w.idle() {
		select {
		case <-tick.C:
		case <-c.closed:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// TurnAway refuses what the client sends until it has read GoAway, and closes the connection.
func (c *Conn) TurnAway() {
	ctx, stop := context.WithTimeout(context.Background(), drain.Grace)
	defer stop()
	c.tracker.Drain()
	var m transport.Message
	for err := c.Send(ctx, &transport.Message{Kind: transport.GoAway}); err == nil; {
		err = c.Recv(ctx, &m)
	}
	c.Close()
}
