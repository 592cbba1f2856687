package zookeeper

import (
	"context"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/cb02dfca/micro/pkg/registry"
)

// link is a session at ZooKeeper and the connection under it, which is made again whenever it breaks. What has to see every
// change reads over a link that is fleeting: with its connection it gives up the session, and the watches that it set.
// The client's library would set them again, but tells nobody when that is done, and may leave out what changed meanwhile.
type link struct {
	r        *Registry
	timeout  time.Duration // of the session
	fleeting bool
	users    int // of a keeper's links; under the keeper's lock

	mu      sync.Mutex
	client  *client   // nil before the link is used
	up      *epoch    // nil: there is no connection
	err     error     // why there is none, once every server was tried; not nil only where up is
	tries   int       // that failed, since there was a connection
	since   time.Time // when there was one last, or its client began
	changed chan struct{}
	closed  bool
	busy    sync.WaitGroup // requests, and clients that are closed
}

// epoch is a connection's time, from when it may be used until it is lost.
type epoch struct {
	conn    *zk.Conn
	wire    *wire
	session int64
	begun   time.Time
	down    chan struct{} // closed when the connection is lost
	points  points
}

// lose ends a connection that broke, or on which the server says that it is of no use, and waits until the link knows of it.
func (e *epoch) lose(ctx context.Context) {
	_ = e.wire.Close()
	select {
	case <-e.down:
	case <-ctx.Done():
	}
}

// steady is how long a connection has to last for the next one to be made at once.
const steady = time.Second

func newLink(r *Registry, timeout time.Duration, fleeting bool) *link {
	return &link{r: r, timeout: timeout, fleeting: fleeting, changed: make(chan struct{})}
}

// now gives the connection, nil where there is none, and what is closed when that changes.
func (l *link) now() (*epoch, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up, l.changed
}

// ready gives the connection, and waits for it while it is not known whether there will be one. The error is ctx's,
// ErrClosed, or says why there is none.
func (l *link) ready(ctx context.Context) (*epoch, error) {
	for {
		l.mu.Lock()
		if l.client == nil && !l.closed {
			l.client, l.since = l.connect(false), time.Now()
		}
		up, err, closed, changed := l.up, l.err, l.closed, l.changed
		l.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case closed:
			return nil, registry.ErrClosed
		case up != nil:
			return up, nil
		case err != nil:
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// await returns when there is a connection, or ctx ends.
func (l *link) await(ctx context.Context) {
	for {
		up, changed := l.now()
		if up != nil {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// begin says that a request is about to be made; busy.Done ends it.
func (l *link) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return registry.ErrClosed
	}
	l.busy.Add(1)
	return nil
}

// close ends the session, where ZooKeeper can be told, and what runs.
func (l *link) close() {
	l.mu.Lock()
	c := l.client
	was := l.closed
	l.closed = true
	l.signal()
	l.mu.Unlock()
	if c != nil && !was {
		c.close()
	}
	l.busy.Wait()
}

// The rest is called with the lock held.

func (l *link) signal() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// isUp takes in that a client's connection may be used.
func (l *link) isUp(c *client, w *wire) {
	if l.client != c || c.wire != w || !c.has || l.up != nil || l.closed {
		return
	}
	l.up = &epoch{conn: c.conn, wire: w, session: c.conn.SessionID(), begun: time.Now(), down: make(chan struct{})}
	if !l.fleeting {
		l.r.keeper.mine(l.up.session)
	}
	l.err, l.tries = nil, 0
	l.r.back()
	l.signal()
}

// isDown takes in that a client's connection was lost.
func (l *link) isDown(c *client) {
	if l.client != c || l.up == nil {
		return
	}
	short := time.Since(l.up.begun) < steady
	close(l.up.down)
	l.up, l.since = nil, time.Now()
	l.signal()
	if l.fleeting && !l.closed {
		c.end() // before it connects again
		l.busy.Go(c.close)
		l.client = l.connect(short)
	}
}

// failed takes in that a client's attempt at a server failed.
func (l *link) failed(c *client, err error) {
	if l.client != c || l.up != nil || l.closed {
		return
	}
	if l.tries++; l.tries < len(l.r.o.Endpoints) {
		return
	}
	if l.err == nil {
		l.r.away(err)
	}
	l.err = err
	l.signal()
	// The session is over by now, or its nodes can be taken over. To try with it for ever would be in vain where the servers lost
	// their data: they refuse who has seen more than they have.
	if time.Since(l.since) > l.timeout {
		c.end()
		l.busy.Go(c.close)
		l.client, l.since = l.connect(true), time.Now()
	}
}
