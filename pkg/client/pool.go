package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/transport"
)

// The limits of a pool.
const (
	dialTimeout = 5 * time.Second // over the transport's own, which is mostly shorter
	idleStreams = 16              // connections per address that wait for a next stream
	looks       = 8               // how often in its idle time a connection is looked at
	redial      = time.Second     // how long one more connection is not tried where it failed, and others serve
)

// pool keeps connections by the address that was dialled: those for unary calls, which share them, and those whose stream
// has ended.
type pool struct {
	transport transport.Transport
	idle      time.Duration
	lanes     int             // connections of an address for unary calls
	ctx       context.Context // ends with the pool
	cancel    context.CancelFunc
	work      sync.WaitGroup

	peers sync.Map // address -> *peer; read by every call, changed under mu alone

	mu      sync.Mutex
	known   int                // peers
	links   map[*link]struct{} // all that are open, drained ones among them
	reaping bool
}

// peer is what a pool has of one address. All but the links' pointers is guarded by the pool's lock.
type peer struct {
	links   []atomic.Pointer[link] // for each lane, as long as calls may find it
	lanes   []lane
	open    int // links that are in the pool, those that calls no longer find among them
	streams []idleConn
}

// lane is the dialling of one of a peer's connections.
type lane struct {
	dialing *dialing
	failed  time.Time // when it was last in vain
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
	timed timedCaller // the same, where it is one; else nil
	close func() error
	peer  *peer
	home  *atomic.Pointer[link] // where calls find it
	used  atomic.Bool           // since the reaper last looked
	quiet int                   // how often in a row the reaper found it unused; of the reaper
}

// timedCaller is what a connection of package transport/http offers beside: a call that began and ends at a time, as callctx.Now
// counts, in place of ending after the request's Timeout. The clock is not looked at where began will do.
type timedCaller interface {
	CallUntil(ctx context.Context, began, until int64, req, rsp *transport.Message) error
}

func newPool(t transport.Transport, idle time.Duration, lanes int) *pool {
	p := &pool{transport: t, idle: idle, lanes: lanes, links: map[*link]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// place is where a record's calls go: to one of a peer's connections. It remembers the last peer, since most calls go to
// the same again.
type place struct {
	lane uint32
	node *registry.Node // whose peer it is, where that is known without a look at its record
	addr string
	peer *peer
}

// again gives the connection to the node that the last call went to, where there is one and n is it: a node of a Balancer, which
// stays as it is.
func (at *place) again(n *registry.Node) *link {
	if at.node != n {
		return nil
	}
	return at.peer.ready(at.lane)
}

// ready gives the connection to addr that is for at's lane, and nil where there is none that takes calls. It takes no lock.
func (p *pool) ready(addr string, at *place) *link {
	if at.peer != nil && at.addr == addr {
		if l := at.peer.ready(at.lane); l != nil {
			return l
		}
	}
	v, ok := p.peers.Load(addr) // also where the pool has forgotten the peer meanwhile
	if !ok {
		return nil
	}
	at.addr, at.peer = addr, v.(*peer)
	return at.peer.ready(at.lane)
}

func (pr *peer) ready(lane uint32) *link {
	links := pr.links
	if len(links) > 1 {
		links = links[lane%uint32(len(links)):]
	}
	if l := links[0].Load(); l != nil && l.Usable() {
		l.touch()
		return l
	}
	return nil
}

// touch notes that a call takes the link. Loading first keeps the line shared among the cores.
func (l *link) touch() {
	if !l.used.Load() {
		l.used.Store(true)
	}
}

// link gives a connection to addr, and whether it was there: that of the lane, dialled where there is none. While it is
// being dialled calls go over another lane's, if there is one.
func (p *pool) link(ctx context.Context, addr string, lane uint32) (l *link, reused bool, err error) {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return nil, false, errPoolClosed
	}
	pr := p.peer(addr)
	at := int(lane % uint32(len(pr.links)))
	l = pr.usable(at)
	if l != nil && l.home == &pr.links[at] {
		p.mu.Unlock()
		return l, true, nil
	}
	d := pr.lanes[at].dialing
	if d == nil && (l == nil || time.Since(pr.lanes[at].failed) > redial) {
		d = &dialing{done: make(chan struct{})}
		pr.lanes[at].dialing = d
		p.work.Go(func() { p.dial(addr, pr, at, d) })
	}
	p.mu.Unlock()
	if l != nil {
		return l, true, nil
	}
	select {
	case <-d.done:
	case <-ctx.Done():
		return nil, false, fmt.Errorf("%w: connecting to %s: %w", transport.ErrNotSent, addr, ctx.Err())
	}
	return d.link, false, d.err
}

// usable gives a link that takes calls, if there is one: that of the lane before others.
func (pr *peer) usable(lane int) *link {
	for i := range pr.links {
		if l := pr.links[(lane+i)%len(pr.links)].Load(); l != nil && l.Usable() {
			l.touch()
			return l
		}
	}
	return nil
}

var errPoolClosed = fmt.Errorf("%w: %w", transport.ErrNotSent, transport.ErrClosed)

// peer gives what there is of addr, and makes it where there is nothing. The caller holds the lock.
func (p *pool) peer(addr string) *peer {
	if v, ok := p.peers.Load(addr); ok {
		return v.(*peer)
	}
	pr := &peer{links: make([]atomic.Pointer[link], p.lanes), lanes: make([]lane, p.lanes)}
	p.peers.Store(addr, pr)
	p.known++
	if !p.reaping {
		p.reaping = true
		p.work.Go(p.reap)
	}
	return pr
}

// dial makes a link. It runs on the pool's time, not on that of the call that came first.
func (p *pool) dial(addr string, pr *peer, at int, d *dialing) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	defer cancel()
	conn, err := p.transport.Dial(ctx, addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(d.done)
	pr.lanes[at].dialing = nil
	if err != nil {
		pr.lanes[at].failed = time.Now()
	}
	switch {
	case err != nil && !transport.NotSent(err):
		d.err = fmt.Errorf("%w: %w", transport.ErrNotSent, err)
	case err != nil:
		d.err = err
	case p.ctx.Err() != nil:
		_ = conn.Close()
		d.err = errPoolClosed
	default:
		l := &link{peer: pr, home: &pr.links[at]}
		l.used.Store(true)
		if caller, ok := conn.(transport.Caller); ok {
			l.Caller, l.close = caller, conn.Close
			l.timed, _ = conn.(timedCaller)
		} else {
			mux := transport.NewCaller(conn)
			l.Caller, l.close = mux, mux.Close
		}
		d.link = l
		pr.open++
		p.links[l] = struct{}{}
		l.home.Store(l)
	}
}

// reap closes what nobody has used for a while, until the pool is closed or empty.
func (p *pool) reap() {
	tick := time.NewTicker(max(p.idle/looks, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		p.sweepStreams(time.Now().Add(-p.idle))
		p.sweepLinks()
		if p.sweepPeers() {
			return
		}
	}
}

// sweepLinks closes the links that have ended, and those without a call in the last looks. Such a one is hidden from calls
// first, and closed at the next look, so that no call has found it a moment ago.
func (p *pool) sweepLinks() {
	p.mu.Lock()
	links := slices.Collect(maps.Keys(p.links))
	p.mu.Unlock()
	for _, l := range links {
		switch {
		case !l.Usable():
			l.home.CompareAndSwap(l, nil)
		case l.used.Swap(false):
			l.quiet = 0
			l.home.CompareAndSwap(nil, l) // where it was hidden
			continue
		default:
			if l.quiet++; l.quiet <= looks {
				if l.quiet == looks {
					l.home.CompareAndSwap(l, nil)
				}
				continue
			}
		}
		if l.CloseIdle() {
			p.mu.Lock()
			delete(p.links, l)
			l.peer.open--
			p.mu.Unlock()
		} else if l.Usable() { // with a call of long standing
			l.quiet = 0
			l.home.CompareAndSwap(nil, l)
		}
	}
}

// sweepStreams closes the connections that have waited for a stream since before the given time.
func (p *pool) sweepStreams(before time.Time) {
	var old []idleConn
	p.mu.Lock()
	for _, v := range p.peers.Range {
		pr := v.(*peer)
		pr.streams = slices.DeleteFunc(pr.streams, func(s idleConn) bool {
			if s.since.Before(before) {
				old = append(old, s)
				return true
			}
			return false
		})
	}
	p.mu.Unlock()
	for _, s := range old {
		s.take()
		_ = s.conn.Close()
	}
}

// sweepPeers forgets the addresses that nothing is left of, and reports whether none remains.
func (p *pool) sweepPeers() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr, v := range p.peers.Range {
		pr := v.(*peer)
		busy := slices.ContainsFunc(pr.lanes, func(l lane) bool { return l.dialing != nil })
		if pr.open == 0 && !busy && len(pr.streams) == 0 {
			p.peers.Delete(addr)
			p.known--
		}
	}
	p.reaping = p.known > 0
	return !p.reaping
}

// conn gives a connection for a stream, which then owns it, and whether it was there.
func (p *pool) conn(ctx context.Context, addr string) (c transport.Conn, reused bool, err error) {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return nil, false, errPoolClosed
	}
	v, _ := p.peers.Load(addr)
	for pr, _ := v.(*peer); pr != nil && len(pr.streams) > 0; {
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
	links := slices.Collect(maps.Keys(p.links))
	var streams []idleConn
	for _, v := range p.peers.Range {
		pr := v.(*peer)
		streams = append(streams, pr.streams...)
		pr.streams = nil
	}
	p.mu.Unlock()
	var errs []error
	for _, l := range links {
		errs = append(errs, l.close())
	}
	for _, s := range streams {
		errs = append(errs, s.conn.Close())
	}
	p.work.Wait()
	return errors.Join(errs...)
}
