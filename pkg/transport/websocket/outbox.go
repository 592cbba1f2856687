package websocket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
)

// The sizes of an outbox.
const (
	maxQueued = 64 << 10 // bytes that wait to be written before no further message is taken, or part of one
	writePart = 64 << 10 // bytes of one write, which has WriteTimeout
	keepQueue = 64 << 10 // storage that is kept while nothing waits
)

// lastWrite is how long Close waits for what was sent before to be written.
const lastWrite = 250 * time.Millisecond

// outbox is the connection below a WebSocket. What is written to it is queued, and written by a goroutine that is there while
// something waits: so no writer is ever within a message when its time ends, messages of many goroutines leave in one write,
// and answers to Pings do not wait for a peer that does not read. It bounds the waiting of both directions in time.
type outbox struct {
	net.Conn
	o *Options

	reads, writes atomic.Uint64 // that have been made: the signs of life
	limit         int           // bytes that may be queued in all

	reading sync.Mutex // guards the next three
	within  bool       // a message is being read
	end     time.Time  // by when it must be there
	set     time.Time  // the system's deadline

	work sync.WaitGroup       // the goroutine that writes
	room [lanes]chan struct{} // hints: there is room; one waits at a time in each lane

	mu      sync.Mutex
	queue   []byte
	spare   []byte // storage for the next queue
	waiting int    // bytes that have not been written, of the queue and of the write under way
	writing bool   // the goroutine is there
	idle    chan struct{}
	closing bool
	err     error
}

func newOutbox(nc net.Conn, o *Options) *outbox {
	b := &outbox{Conn: nc, o: o, limit: maxQueued + 2*o.MaxMessage + 64<<10}
	for i := range b.room {
		b.room[i] = make(chan struct{}, 1)
	}
	return b
}

// The lanes in which messages wait for room. They take turns, so that neither holds up the other.
const (
	wholes = iota // messages that go out whole
	parts         // parts of larger ones
	lanes
)

// Write queues p. It fails where so much waits that the peer must have been asking for it without reading: answers to Pings.
func (b *outbox) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err != nil:
		return 0, b.err
	case b.closing:
		return 0, net.ErrClosed
	case b.waiting+len(p) > b.limit:
		return 0, fmt.Errorf("%w: the peer does not read", transport.ErrProtocol)
	}
	b.queue = append(b.queue, p...)
	b.waiting += len(p)
	if !b.writing {
		b.writing, b.idle = true, make(chan struct{})
		b.work.Go(b.flush)
	}
	return len(p), nil
}

// full reports whether what is in a lane has to wait for room, of which the channel then tells.
func (b *outbox) full(lane int) (<-chan struct{}, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.room[lane], b.waiting > maxQueued && b.err == nil
}

// flush writes until nothing waits.
func (b *outbox) flush() {
	for {
		runtime.Gosched() // those who are about to write share the system call
		b.mu.Lock()
		if len(b.queue) == 0 || b.err != nil {
			b.writing = false
			close(b.idle)
			b.mu.Unlock()
			return
		}
		out := b.queue
		b.queue, b.spare = b.spare[:0], nil
		b.mu.Unlock()
		err := b.write(out)
		b.mu.Lock()
		if err != nil {
			b.err = err
		}
		if cap(out) <= keepQueue {
			b.spare = out
		}
		b.mu.Unlock()
		b.tell()
	}
}

// write writes data, each part in its own time: a slow peer is none that has gone.
func (b *outbox) write(data []byte) error {
	for len(data) > 0 {
		part := data[:min(len(data), writePart)]
		if err := b.Conn.SetWriteDeadline(time.Now().Add(b.o.WriteTimeout)); err != nil {
			return err
		}
		if _, err := b.Conn.Write(part); err != nil {
			return err
		}
		b.writes.Add(1)
		data = data[len(part):]
		b.mu.Lock()
		b.waiting -= len(part)
		b.mu.Unlock()
		b.tell()
	}
	return nil
}

func (b *outbox) tell() {
	for _, room := range b.room {
		select {
		case room <- struct{}{}:
		default:
		}
	}
}

// Read reads in the time that there is for it: within a message until the rest is late, between two for Silence.
func (b *outbox) Read(p []byte) (int, error) {
	within, err := b.limitRead()
	if err != nil {
		return 0, err
	}
	n, err := b.Conn.Read(p)
	if n > 0 {
		b.reads.Add(1)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if within {
			return n, fmt.Errorf("%w: the rest of a message did not come in time", transport.ErrProtocol)
		}
		return n, fmt.Errorf("nothing came for %s, not even the answer to a ping", b.o.Silence)
	}
	return n, err
}

// limitRead sets the deadline of the next read, and reports whether that is within a message.
func (b *outbox) limitRead() (within bool, err error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	now := time.Now()
	next := now.Add(b.o.Silence)
	if b.within {
		next = now.Add(b.o.BodyIdle)
		if next.After(b.end) {
			next = b.end
		}
	}
	// The system is told where its deadline is too late, or a good deal too early.
	if ahead := next.Sub(b.set); ahead < 0 || ahead > b.o.Silence/8 || b.within {
		b.set = next
		err = b.Conn.SetReadDeadline(next)
	}
	return b.within, err
}

// begin says that a message is being read from now on, until done, which has been going on for a time already.
func (b *outbox) begin(already time.Duration) {
	b.reading.Lock()
	defer b.reading.Unlock()
	b.within, b.end = true, time.Now().Add(b.o.BodyTimeout-already)
}

func (b *outbox) done() {
	b.reading.Lock()
	defer b.reading.Unlock()
	b.within = false
}

// Close writes what waits, where the peer takes it in time, and closes the connection.
func (b *outbox) Close() error {
	b.mu.Lock()
	b.closing = true
	idle := b.idle
	if !b.writing || b.err != nil {
		idle = nil
	}
	b.mu.Unlock()
	if idle != nil {
		late := time.NewTimer(lastWrite)
		defer late.Stop()
		select {
		case <-idle:
		case <-late.C:
		}
	}
	return b.cut()
}

// cut closes the connection at once, and waits for the goroutine that writes.
func (b *outbox) cut() error {
	b.mu.Lock()
	b.closing = true
	b.mu.Unlock()
	err := b.Conn.Close()
	b.work.Wait()
	return err
}
