package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
)

// The limits of a pool.
const (
	dialTimeout = 5 * time.Second // over the transport's own, which is mostly shorter
	idleStreams = 16              // connections per address that wait for a next stream
)

// pool keeps connections by the address that was dialled: one for unary calls, which share it, and those whose stream
// has ended.
type pool struct {
	transport transport.Transport
	idle      time.Duration
	ctx       context.Context // ends with the pool
	cancel    context.CancelFunc
	work      sync.WaitGroup

	mu    sync.Mutex
	peers map[string]*peer
	links map[*link]struct{} // all that are open, drained ones among them
}

// peer is what a pool has of one address.
type peer struct {
	link    *link
	dialing *dialing
	streams []idleConn
}

// idleConn is a connection that waits for its next stream. A goroutine reads from it meanwhile, so that one whose server
// is going away, or has gone, is not taken.
type idleConn struct {
	conn   transport.Conn
	since  time.Time
	cancel context.CancelFunc
	unfit  chan bool // whether the reader found the connection unfit; one value, when it has ended
}

// keep starts the reader of a connection whose stream has ended.
func (p *pool) keep(c transport.Conn) idleConn {
	ctx, cancel := context.WithCancel(p.ctx)
	s := idleConn{conn: c, since: time.Now(), cancel: cancel, unfit: make(chan bool, 1)}
	p.work.Go(func() {
		var m transport.Message
		err := c.Recv(ctx, &m)
		// Whatever comes on an idle connection, GoAway or the end of it, says that it is not to be used.
		unfit := err == nil || ctx.Err() == nil
		if unfit {
			_ = c.Close()
		}
		s.unfit <- unfit
	})
	return s
}

// take ends the reader and reports whether the connection may be used.
func (s idleConn) take() bool {
	s.cancel()
	return !<-s.unfit
}

// dialing is a dial under way, which all who want the connection wait for.
type dialing struct {
	done chan struct{}
	link *link
	err  error
}

// link is a connection that unary calls share.
type link struct {
	transport.Caller
	conn  transport.Conn
	mux   *transport.Mux // nil where the connection carries calls by itself
	users atomic.Int64
	used  atomic.Int64 // when the last user left, Unix nanoseconds
}

func newPool(t transport.Transport, idle time.Duration) *pool {
	p := &pool{transport: t, idle: idle, peers: map[string]*peer{}, links: map[*link]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// link gives the connection to addr, dialling it where there is none, and whether it was there. The caller releases it.
func (p *pool) link(ctx context.Context, addr string) (l *link, reused bool, err error) {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return nil, false, errPoolClosed
	}
	pr := p.peer(addr)
	if l := pr.link; l != nil && l.usable() {
		l.users.Add(1)
		p.mu.Unlock()
		return l, true, nil
	}
	d := pr.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		pr.dialing = d
		p.work.Go(func() { p.dial(addr, pr, d) })
	}
	p.mu.Unlock()
	select {
	case <-d.done:
	case <-ctx.Done():
		return nil, false, fmt.Errorf("%w: connecting to %s: %w", transport.ErrNotSent, addr, ctx.Err())
	}
	if d.err != nil {
		return nil, false, d.err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, open := p.links[d.link]; !open {
		return nil, false, errPoolClosed // closed, or swept because it ended at once
	}
	d.link.users.Add(1)
	return d.link, false, nil
}

var errPoolClosed = fmt.Errorf("%w: %w", transport.ErrNotSent, transport.ErrClosed)

func (p *pool) peer(addr string) *peer {
	pr := p.peers[addr]
	if pr == nil {
		if len(p.peers) == 0 && len(p.links) == 0 {
			p.work.Go(p.reap)
		}
		pr = new(peer)
		p.peers[addr] = pr
	}
	return pr
}

// dial makes pr's link. It runs on the pool's time, not on that of the call that came first.
func (p *pool) dial(addr string, pr *peer, d *dialing) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	defer cancel()
	conn, err := p.transport.Dial(ctx, addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(d.done)
	pr.dialing = nil
	switch {
	case err != nil && !transport.NotSent(err):
		d.err = fmt.Errorf("%w: %w", transport.ErrNotSent, err)
	case err != nil:
		d.err = err
	case p.ctx.Err() != nil:
		_ = conn.Close()
		d.err = errPoolClosed
	default:
		l := &link{conn: conn}
		if caller, ok := conn.(transport.Caller); ok {
			l.Caller = caller
		} else {
			l.mux = transport.NewCaller(conn)
			l.Caller = l.mux
		}
		l.used.Store(time.Now().UnixNano())
		d.link, pr.link = l, l
		p.links[l] = struct{}{}
	}
}

// usable reports whether a new call may go over the link.
func (l *link) usable() bool { return l.mux == nil || !l.mux.Draining() }

func (l *link) release() {
	l.used.Store(time.Now().UnixNano())
	l.users.Add(-1)
}

func (l *link) close() error {
	if l.mux != nil {
		return l.mux.Close()
	}
	return l.conn.Close()
}

// reap closes what nobody has used for a while, until the pool is closed or empty.
func (p *pool) reap() {
	tick := time.NewTicker(max(p.idle/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		if p.sweep(time.Now().Add(-p.idle)) {
			return
		}
	}
}

// sweep closes what was last used before the given time, and reports whether nothing is left.
func (p *pool) sweep(before time.Time) (empty bool) {
	var old []idleConn
	var links []*link
	p.mu.Lock()
	for l := range p.links {
		if l.users.Load() == 0 && (!l.usable() || l.used.Load() < before.UnixNano()) {
			links = append(links, l)
			delete(p.links, l)
		}
	}
	for addr, pr := range p.peers {
		kept := pr.streams[:0]
		for _, s := range pr.streams {
			if s.since.Before(before) {
				old = append(old, s)
			} else {
				kept = append(kept, s)
			}
		}
		pr.streams = kept
		if _, open := p.links[pr.link]; !open {
			pr.link = nil
		}
		if pr.link == nil && pr.dialing == nil && len(pr.streams) == 0 {
			delete(p.peers, addr)
		}
	}
	empty = len(p.peers) == 0 && len(p.links) == 0
	p.mu.Unlock()
	for _, s := range old {
		s.take()
		_ = s.conn.Close()
	}
	for _, l := range links {
		_ = l.close()
	}
	return empty
}

// conn gives a connection for a stream, which then owns it, and whether it was there.
func (p *pool) conn(ctx context.Context, addr string) (c transport.Conn, reused bool, err error) {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return nil, false, errPoolClosed
	}
	for pr := p.peers[addr]; pr != nil && len(pr.streams) > 0; {
		s := pr.streams[len(pr.streams)-1]
		pr.streams = pr.streams[:len(pr.streams)-1]
		p.mu.Unlock()
		if s.take() {
			return s.conn, true, nil
		}
		_ = s.conn.Close()
		p.mu.Lock()
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err = p.transport.Dial(ctx, addr)
	if err != nil && !transport.NotSent(err) {
		err = fmt.Errorf("%w: %w", transport.ErrNotSent, err)
	}
	return c, false, err
}

// put takes a connection back whose stream has ended on both sides.
func (p *pool) put(addr string, c transport.Conn) {
	p.mu.Lock()
	if p.ctx.Err() == nil {
		if pr := p.peer(addr); len(pr.streams) < idleStreams {
			pr.streams = append(pr.streams, p.keep(c))
			c = nil
		}
	}
	p.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

// close breaks all connections but those that streams own.
func (p *pool) close() error {
	p.mu.Lock()
	p.cancel()
	links, peers := p.links, p.peers
	p.links, p.peers = map[*link]struct{}{}, map[string]*peer{}
	p.mu.Unlock()
	var errs []error
	for l := range links {
		errs = append(errs, l.close())
	}
	for _, pr := range peers {
		for _, s := range pr.streams {
			errs = append(errs, s.conn.Close())
		}
	}
	p.work.Wait()
	return errors.Join(errs...)
}
