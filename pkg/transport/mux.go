package transport

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// cancelTime bounds how long a Cancel may wait to be written. It is a courtesy to the server: the caller has gone.
const cancelTime = 5 * time.Second

// keepStorage is the largest body, in bytes, whose storage a Mux keeps for the next reply.
const keepStorage = 256 << 10

// Mux carries many unary calls at a time over one Conn, by Send and Recv. It is a [Caller] for connections that offer
// none. Its methods may be called concurrently.
type Mux struct {
	conn Conn
	done chan struct{} // closed when the reader has ended
	wg   sync.WaitGroup

	heard atomic.Uint64 // messages received

	mu       sync.Mutex
	waiting  map[uint32]*waiter
	last     uint32 // the id of the latest call
	draining bool
	err      error // why the connection ended; set before done is closed
	watch    watch

	waiters sync.Pool
}

// waiter is one call that waits for its reply. Whoever takes it out of the table, the reader or the caller, owns it.
type waiter struct {
	rsp   *Message
	reply chan error
}

var _ Caller = (*Mux)(nil)

// NewCaller gives a Caller over c, which it owns from now on: nobody else may use c. One goroutine reads from c until
// Close, or until the connection fails. A Reply that nobody waits for is dropped where its call was given up, and
// closes the connection where there never was such a call. A server that is silent for 10 s while calls wait is sent a
// Ping; 3 s later the connection counts as lost.
func NewCaller(c Conn) *Mux {
	m := &Mux{conn: c, done: make(chan struct{}), waiting: make(map[uint32]*waiter)}
	m.waiters.New = func() any { return &waiter{reply: make(chan error, 1)} }
	m.wg.Go(m.read)
	return m
}

// Call implements Caller. It chooses the ID itself. When ctx or the time ends, the server is told by Cancel and Call returns ctx's error. A connection that fails while the call
// waits gives an error that does not wrap ErrNotSent: the server may have run it.
func (m *Mux) Call(ctx context.Context, req, rsp *Message) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.Timeout)
		defer cancel()
	}
	out := Message{Kind: Call, Header: req.Header, Body: req.Body}
	if deadline, ok := ctx.Deadline(); ok {
		out.Timeout = max(time.Until(deadline), time.Microsecond)
	}
	w, id, err := m.register(rsp)
	if err != nil {
		return err
	}
	out.ID = id
	req.Lent = false // Send retains nothing
	if err := m.conn.Send(ctx, &out); err != nil {
		return m.abandon(ctx, id, w, err)
	}
	select {
	case err := <-w.reply:
		m.waiters.Put(w)
		return err
	case <-ctx.Done():
		if !m.forget(id) {
			err := <-w.reply // the reader has it: its answer is there at once
			m.waiters.Put(w)
			return err
		}
		m.waiters.Put(w)
		m.cancel(id)
		return ctx.Err()
	}
}

// register puts a waiter into the table, unless the connection takes no more calls.
func (m *Mux) register(rsp *Message) (*waiter, uint32, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.err != nil:
		return nil, 0, fmt.Errorf("%w: the connection to %s has ended: %w", ErrNotSent, m.conn.RemoteAddr(), m.err)
	case m.draining:
		return nil, 0, fmt.Errorf("%w: %s takes no more calls on this connection", ErrNotSent, m.conn.RemoteAddr())
	}
	m.last++
	if m.last == math.MaxUint32 {
		m.draining = true // ids are used once: the next call goes to a new connection
	}
	w := m.waiters.Get().(*waiter)
	w.rsp = rsp
	m.waiting[m.last] = w
	m.arm()
	return w, m.last, nil
}

// forget takes a call out of the table and reports whether it was there.
func (m *Mux) forget(id uint32) bool {
	m.mu.Lock()
	_, ok := m.waiting[id]
	delete(m.waiting, id)
	last := m.draining && len(m.waiting) == 0
	m.mu.Unlock()
	if last {
		m.conn.Close()
	}
	return ok
}

// abandon ends a call whose Send failed. Where the connection failed at the same time the reader may hold the waiter.
// A Send that gave up may have left the message to the connection, which is sending it: the server is told.
func (m *Mux) abandon(ctx context.Context, id uint32, w *waiter, err error) error {
	if !m.forget(id) {
		<-w.reply
	} else if ctx.Err() != nil && !NotSent(err) {
		m.cancel(id)
	}
	m.waiters.Put(w)
	return err
}

// cancel tells the server that nobody waits for id any more. It does not block its caller.
func (m *Mux) cancel(id uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return // also keeps the group from growing while Close waits for it
	}
	m.wg.Go(func() {
		ctx, stop := context.WithTimeout(context.Background(), cancelTime)
		defer stop()
		_ = m.conn.Send(ctx, &Message{Kind: Cancel, ID: id}) // a connection that fails tells the reader
	})
}

// read hands the replies out until the connection ends.
func (m *Mux) read() {
	defer close(m.done)
	var in Message
	for {
		err := m.conn.Recv(context.Background(), &in)
		if err != nil && !(errors.Is(err, ErrTooLarge) && in.Kind == Reply) {
			m.fail(err)
			return
		}
		m.heard.Add(1)
		if err := m.take(&in, err); err != nil {
			m.fail(err)
			return
		}
	}
}

// take handles one message. failed is the error with which a reply came that was over its limit.
func (m *Mux) take(in *Message, failed error) error {
	switch in.Kind {
	case Reply:
		return m.deliver(in, failed)
	case GoAway:
		m.mu.Lock()
		m.draining = true
		idle := len(m.waiting) == 0
		m.mu.Unlock()
		if idle {
			m.conn.Close()
		}
	case Pong:
	default:
		return fmt.Errorf("%w: %s sent a %s on a connection of unary calls", ErrProtocol, m.conn.RemoteAddr(), in.Kind)
	}
	return nil
}

// deliver gives a reply to the call that waits for it. The caller's storage and the reader's change places.
func (m *Mux) deliver(in *Message, failed error) error {
	m.mu.Lock()
	w := m.waiting[in.ID]
	known := in.ID != 0 && in.ID <= m.last
	m.mu.Unlock()
	if w == nil {
		if !known {
			return fmt.Errorf("%w: %s answered call %d, which was never made", ErrProtocol, m.conn.RemoteAddr(), in.ID)
		}
		return nil
	}
	if !m.forget(in.ID) {
		return nil // its caller left a moment ago
	}
	if failed == nil {
		*w.rsp, *in = *in, *w.rsp
		if cap(in.Body) > keepStorage {
			in.Body = nil
		}
	}
	w.rsp = nil
	w.reply <- failed
	return nil
}

// fail ends every call that waits.
func (m *Mux) fail(err error) {
	m.mu.Lock()
	if m.watch.lost != nil {
		err = m.watch.lost
	}
	m.err = err
	calls := m.waiting
	m.waiting = nil
	m.disarm()
	m.mu.Unlock()
	m.conn.Close()
	if len(calls) == 0 {
		return
	}
	err = fmt.Errorf("transport: the connection to %s ended after the call was sent: %w", m.conn.RemoteAddr(), err)
	for _, w := range calls {
		w.rsp = nil
		w.reply <- err
	}
}

// Usable implements Caller.
func (m *Mux) Usable() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.draining && m.err == nil
}

// CloseIdle implements Caller.
func (m *Mux) CloseIdle() bool {
	m.mu.Lock()
	idle := len(m.waiting) == 0
	m.draining = m.draining || idle
	m.mu.Unlock()
	if idle {
		_ = m.Close() // of a connection that nobody uses any more
	}
	return idle
}

// Waiting counts the calls that wait for their reply.
func (m *Mux) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiting)
}

// Done gives a channel that is closed when the connection has ended. Err then tells why.
func (m *Mux) Done() <-chan struct{} { return m.done }

// Err gives the error with which the connection ended; nil while it lives, io.EOF where the server closed it.
func (m *Mux) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// RemoteAddr is the peer's address.
func (m *Mux) RemoteAddr() string { return m.conn.RemoteAddr() }

// Close closes the connection, fails the calls that wait, and returns when its goroutines have ended.
func (m *Mux) Close() error {
	err := m.conn.Close()
	m.wg.Wait()
	return err
}
