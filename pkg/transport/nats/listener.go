package nats

import (
	"context"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/natsconn"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
)

// Listener yields the connections to one subject.
type Listener struct {
	t       *Transport
	addr    string
	sub     *natsconn.Subscription
	claimed bool // it is its Transport's listener of the subject
	pending chan *Conn
	done    chan struct{}
	once    sync.Once

	mu    sync.Mutex
	conns map[*Conn]struct{} // those that live
}

var (
	_ transport.Listener   = (*Listener)(nil)
	_ transport.Shutdowner = (*Listener)(nil)
)

func newListener(t *Transport, addr string) *Listener {
	return &Listener{t: t, addr: addr, pending: make(chan *Conn, backlog), done: make(chan struct{}), conns: map[*Conn]struct{}{}}
}

// receive answers those who dial.
func (l *Listener) receive(m *nats.Msg) {
	f, ok := parse(m)
	if !ok || m.Reply == "" {
		return
	}
	switch f.frameType {
	case frameWho:
		l.t.publish(m.Reply, control(frameHere))
	case frameHello:
		if why := l.meet(m.Reply); why != "" {
			l.t.o.Logger.Warn("a connection is refused", "address", l.addr, "from", m.Reply, "reason", why)
			l.t.publish(m.Reply, append(control(frameRefuse), why...))
		}
	}
}

// meet makes the server's end of a connection, or gives the reason why not.
func (l *Listener) meet(reply string) (why string) {
	nc := l.t.conn.Current()
	if nc == nil {
		return "" // nobody would hear of it
	}
	peer := cutLast(reply)
	c := newConn(l.t, nc, peer)
	c.peer, c.tracker, c.listener = peer, new(drain.Tracker), l
	if l.t.add(c) != nil {
		return "the listener is closed"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed():
		why = "the listener is closed"
	case len(l.conns) >= maxConns:
		why = "too many connections"
	default:
		select {
		case l.pending <- c:
			l.conns[c] = struct{}{}
			_ = nc.PublishRequest(reply, c.own+".0", control(frameWelcome)) // who dials asks again, if it fails
			return ""
		default:
			why = "too many connections wait to be accepted"
		}
	}
	l.t.remove(c)
	return why
}

// begin gives l its subscription, unless it is closed already.
func (l *Listener) begin(sub *natsconn.Subscription) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed() {
		sub.Close()
		return false
	}
	l.sub = sub
	return true
}

// Accept waits for the next connection. After Close it returns transport.ErrClosed.
func (l *Listener) Accept() (transport.Conn, error) {
	if l.closed() {
		return nil, transport.ErrClosed
	}
	select {
	case <-l.done:
	case c := <-l.pending:
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.closed() {
			return c, nil
		}
		defer func() { go c.Close() }() // not under the lock
	}
	return nil, transport.ErrClosed
}

func (l *Listener) closed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Addr is the subject to dial.
func (l *Listener) Addr() string { return l.addr }

// Close frees the subject and closes the connections that nobody accepted.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.mu.Lock()
		close(l.done)
		if l.sub != nil { // else it has not begun
			l.sub.Close()
		}
		l.mu.Unlock()
		l.forgetMe()
		for {
			select {
			case c := <-l.pending:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// forgetMe lets another listen on the subject.
func (l *Listener) forgetMe() {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if l.claimed {
		delete(l.t.listeners, l.addr)
		l.claimed = false
	}
}

// Shutdown closes the listener, sends GoAway on every connection, and closes each when its calls and streams were answered. It
// returns when all are closed, or with ctx's error.
func (l *Listener) Shutdown(ctx context.Context) error {
	_ = l.Close() // its only error is nil
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

// cutLast gives a subject without its last word.
func cutLast(subject string) string {
	if at := strings.LastIndexByte(subject, '.'); at >= 0 {
		return subject[:at]
	}
	return subject
}
