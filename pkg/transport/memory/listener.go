package memory

import (
	"context"
	"sync"

	"github.com/cb02dfca/micro/pkg/transport"
)

// Listener yields the connections to one address.
type Listener struct {
	transport *Transport
	addr      string
	pending   chan *Conn
	done      chan struct{}
	once      sync.Once

	mu    sync.Mutex
	conns map[*Conn]struct{} // the accepted ones that live
}

var (
	_ transport.Listener   = (*Listener)(nil)
	_ transport.Shutdowner = (*Listener)(nil)
)

// Accept waits for the next connection. After Close it returns transport.ErrClosed.
func (l *Listener) Accept() (transport.Conn, error) {
	if l.closed() {
		return nil, transport.ErrClosed
	}
	select {
	case <-l.done:
		return nil, transport.ErrClosed
	case c := <-l.pending:
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.closed() {
			c.close()
			return nil, transport.ErrClosed
		}
		l.conns[c] = struct{}{}
		return c, nil
	}
}

func (l *Listener) closed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// holds reports whether c, which was put among the pending, was accepted or can still be; otherwise it closes c.
func (l *Listener) holds(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, accepted := l.conns[c]; accepted || !l.closed() {
		return true
	}
	c.close()
	return false
}

// Addr is the name to dial.
func (l *Listener) Addr() string { return l.addr }

// Close frees the name and closes the connections that nobody accepted.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.transport.mu.Lock()
		delete(l.transport.listeners, l.addr)
		l.transport.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.pending:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// Shutdown closes the listener, sends GoAway on every accepted connection, and closes each when its calls and streams
// were answered. It returns when all are closed, or with ctx's error.
func (l *Listener) Shutdown(ctx context.Context) error {
	l.Close()
	l.mu.Lock()
	var wg sync.WaitGroup
	for c := range l.conns {
		wg.Go(func() { c.drain(ctx) })
	}
	l.mu.Unlock()
	wg.Wait()
	return ctx.Err()
}

func (l *Listener) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}
