package zookeeper

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

const (
	connectTime = 3 * time.Second // for one attempt
	maxAnswer   = 64 << 20
	maxRequest  = 256 << 10 // a record has 64 KiB at most
)

// client is the library's client, which makes its connection again by itself, and what a link has to know of it. All but
// the first group is under the link's lock.
type client struct {
	l      *link
	life   context.Context // of attempts to connect
	end    context.CancelFunc
	events <-chan zk.Event // closed when the client has ended
	tried  int             // servers since there was a session; its goroutine's

	conn    *zk.Conn
	wire    *wire // the last connection
	has     bool  // there is a session on it
	greeted bool  // the user was named, and will be by the library from here on
	expired bool  // the session of before is no more
	refused error // what was said to the login
	hosts   []string
}

// connect starts a client, after a pause of a second where that is wanted. It is called with the lock held.
func (l *link) connect(pause bool) *client {
	c := &client{l: l}
	if pause {
		c.tried = len(l.r.o.Endpoints)
	}
	c.life, c.end = context.WithCancel(context.Background())
	// Its only errors are of an empty list of servers, and of the host provider.
	c.conn, c.events, _ = zk.Connect(l.r.o.Endpoints, l.timeout, zk.WithDialer(c.dial), zk.WithHostProvider((*hosts)(c)), zk.WithEventCallback(c.see),
		zk.WithLogger(silence{}), zk.WithLogInfo(false), zk.WithMaxBufferSize(maxAnswer), zk.WithMaxConnBufferSize(maxRequest))
	return c
}

// close ends the session, where that can be said within a second, and waits for the client's end.
func (c *client) close() {
	c.conn.Close()
	c.end()
	c.l.mu.Lock()
	w := c.wire
	c.l.mu.Unlock()
	if w != nil {
		_ = w.Close()
	}
	for range c.events {
	}
}

// dial connects to a server.
func (c *client) dial(network, address string, _ time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(c.life, connectTime)
	defer cancel()
	plain := &net.Dialer{}
	dial := plain.DialContext
	if c.l.r.o.TLS != nil {
		dial = (&tls.Dialer{NetDialer: plain, Config: c.l.r.o.TLS}).DialContext
	}
	conn, err := dial(ctx, network, address)
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if err != nil {
		c.l.failed(c, c.l.r.unavailable(reason(err)))
		return nil, err
	}
	if c.wire != nil {
		_ = c.wire.Close() // the library leaves that of a lost session open
	}
	c.wire = &wire{Conn: conn, greeting: time.Now().Add(c.l.r.o.Timeout)}
	c.wire.heard.Store(time.Now().UnixNano())
	return c.wire, nil
}

// see takes in an event. The library waits for it.
func (c *client) see(e zk.Event) {
	l := c.l
	switch {
	case e.Type != zk.EventSession:
		l.mu.Lock()
		up := l.up
		l.mu.Unlock()
		if up != nil && up.conn == c.conn {
			up.points.fire(e.Path)
		}
	case e.State == zk.StateHasSession:
		l.mu.Lock()
		defer l.mu.Unlock()
		c.has = true
		c.wire.greeted()
		c.greet(c.wire)
	case e.State == zk.StateExpired:
		l.mu.Lock()
		defer l.mu.Unlock()
		c.expired = true
	case e.State == zk.StateDisconnected:
		l.mu.Lock()
		defer l.mu.Unlock()
		c.lost()
	}
}

// greet names the user, on a connection that has a session, and lets the link use it.
func (c *client) greet(w *wire) {
	o := &c.l.r.o
	if o.Username == "" || c.greeted {
		c.l.isUp(c, w)
		return
	}
	if c.l.closed {
		return
	}
	c.l.busy.Go(func() {
		err := c.conn.AddAuth("digest", []byte(o.Username+":"+o.Password))
		c.l.mu.Lock()
		defer c.l.mu.Unlock()
		switch {
		case err == nil:
			c.greeted = true
			c.l.isUp(c, w)
		case !broken(err):
			c.refused = c.l.r.said(err)
			_ = w.Close()
		}
	})
}

// lost takes in the end of a connection, or of an attempt to have a session on one.
func (c *client) lost() {
	had := c.l.up != nil && c.l.client == c
	expired := c.expired
	c.has, c.expired = false, false
	switch {
	case had:
		c.l.isDown(c)
	case expired: // the next attempt is for a new one
	case c.refused != nil:
		c.l.failed(c, c.refused)
	case c.wire != nil:
		c.l.failed(c, c.l.r.unavailable(reason(c.wire.why())))
	}
}

// hosts gives the client its servers: in turn, and with a pause when all were tried. It looks no names up, which the dialer
// does each time.
type hosts client

// Init takes the servers, in the order in which they are to be tried.
func (h *hosts) Init(servers []string) error {
	h.hosts = servers
	return nil
}

// Len is how many there are.
func (h *hosts) Len() int { return len(h.hosts) }

// Next gives the next one; pause says that it is to wait a second, or for the client's end.
func (h *hosts) Next() (server string, pause bool) {
	pause = h.tried > 0 && h.tried%len(h.hosts) == 0 || h.life.Err() != nil
	h.tried++
	return h.hosts[h.tried%len(h.hosts)], pause
}

// Connected says that there is a session.
func (h *hosts) Connected() { h.tried = 0 }

// silence is the library's logger: what it says, in the clear and at each attempt, the link tells by itself.
type silence struct{}

// Printf says nothing.
func (silence) Printf(string, ...any) {}

// wire is a connection that ends when it is not answered in time at its beginning, and that knows why it ended.
type wire struct {
	net.Conn
	heard atomic.Int64 // when something was read, in nanoseconds

	mu       sync.Mutex
	greeting time.Time // until when there has to be a session; zero: there is one
	err      error     // of the first Read that failed
}

// Read notes when, and what goes wrong.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(time.Now().UnixNano())
	}
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.err == nil {
			w.err = err
		}
	}
	return n, err
}

// errWrite is wrapped by the error of a Write, which the library hands on to who made the request.
var errWrite = errors.New("it closed the connection")

// Write says of its error what it is.
func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", errWrite, err)
	}
	return n, err
}

// SetReadDeadline is bounded while there is no session: the library would wait for several session timeouts, or for ever.
func (w *wire) SetReadDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.greeting.IsZero() && (t.IsZero() || t.After(w.greeting)) {
		t = w.greeting
	}
	return w.Conn.SetReadDeadline(t)
}

func (w *wire) greeted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.greeting = time.Time{}
}

// why gives the reason for which the connection ended.
func (w *wire) why() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err == nil, errors.Is(w.err, io.EOF), errors.Is(w.err, io.ErrUnexpectedEOF), errors.Is(w.err, net.ErrClosed):
		return errors.New("it closed the connection")
	case errors.Is(w.err, os.ErrDeadlineExceeded):
		return errTime
	}
	return w.err
}

// breakIfSilent ends the connection if nothing was heard for so long.
func (w *wire) breakIfSilent(d time.Duration) {
	if time.Since(time.Unix(0, w.heard.Load())) >= d {
		_ = w.Close()
	}
}
