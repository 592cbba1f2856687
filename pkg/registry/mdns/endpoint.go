package mdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/link"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/wire"
)

const (
	relist  = 15 * time.Second       // how often interfaces that came up are joined
	perNode = 300 * time.Millisecond // of ttl for each known node, so that renewals stay below ten a second
	burst   = 16                     // packets that are sent at once; receive buffers hold a few hundred
	breath  = time.Millisecond       // between bursts
)

// endpoint is the socket of port 5353: it hears questions and announcements, and sends announcements. It has two
// goroutines, one that reads and one that keeps the times.
type endpoint struct {
	r       *Registry
	conn    *link.Conn
	wake    chan struct{} // of one element: the times have changed
	stopped chan struct{} // closed by close
	kept    chan struct{} // closed when keep has ended
	rates   rates

	sending sync.RWMutex // held for writing when the last goodbyes are said: no announcement may come after them

	mu     sync.Mutex
	joined map[int]link.Interface // by index
}

// listen gives the endpoint, and opens it first if need be.
func (r *Registry) listen(ctx context.Context) (*endpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, registry.ErrClosed
	}
	if r.endpoint != nil {
		return r.endpoint, nil
	}
	n, err := r.guard.network(relook)
	if err != nil {
		return nil, err
	}
	all, err := r.guard.hears(n)
	if err != nil {
		return nil, err
	}
	conn, err := link.Listen(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: mdns: listen on port %d: %w", registry.ErrUnavailable, link.Port, err)
	}
	e := &endpoint{r: r, conn: conn, wake: make(chan struct{}, 1), stopped: make(chan struct{}), kept: make(chan struct{}), joined: map[int]link.Interface{}}
	if _, err := e.join(all); err != nil {
		_ = conn.Close()
		return nil, err
	}
	r.endpoint = e
	if r.opts.Scope == LAN && r.cache == nil {
		r.cache = newCache() // the number of nodes known sets the pace of renewals
	}
	r.work.Go(e.read)
	r.work.Go(e.keep)
	return e, nil
}

// join joins the group on the interfaces that are not joined yet, and leaves those that are gone. It gives the new
// ones. One that fails is logged; if there is none to send by, the error says of each why.
func (e *endpoint) join(all []link.Interface) (fresh []link.Interface, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := map[int]link.Interface{}
	var why []string
	for _, i := range all {
		if _, ok := e.joined[i.Index]; !ok {
			if err := e.conn.Join(&i); err != nil {
				why = append(why, fmt.Sprintf("%s: join the group: %v", i.Name, err))
				e.r.log.Debug("interface left out", "interface", i.Name, "error", err)
				continue
			}
			fresh = append(fresh, i)
		}
		now[i.Index] = i
	}
	for index, i := range e.joined {
		if _, ok := now[index]; !ok {
			_ = e.conn.Leave(&i) // it may be gone altogether
		}
	}
	e.joined = now
	if len(e.r.guard.sends(e.list())) == 0 {
		return nil, fmt.Errorf("%w: mdns: no interface to send by: %s", registry.ErrUnavailable, strings.Join(why, ", "))
	}
	return fresh, nil
}

func (e *endpoint) list() []link.Interface {
	out := make([]link.Interface, 0, len(e.joined))
	for _, i := range e.joined {
		out = append(out, i)
	}
	return out
}

// out gives the interfaces to send by.
func (e *endpoint) out() []link.Interface {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.r.guard.sends(e.list())
}

// on gives a joined interface.
func (e *endpoint) on(index int) (link.Interface, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, ok := e.joined[index]
	return i, ok
}

// nudge has the times looked at again.
func (e *endpoint) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// register puts a node into the table and announces it. Where no interface takes the announcement it is not registered.
func (e *endpoint) register(rec *wire.Record, lease time.Duration) error {
	e.sending.RLock()
	defer e.sending.RUnlock()
	r := e.r
	now := time.Now()
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return registry.ErrClosed
	}
	changed, moved := r.table.put(rec, r.dnssd(rec), lease, now)
	if moved != nil {
		r.table.leave(moved, now)
	}
	if changed {
		if r.cache != nil {
			r.cache.remove(rec.Instance) // here it is known better
		}
		r.hub.Put(rec.Node)
	}
	ttl := r.ttl(r.table.nodes[rec.Node.ID])
	r.mu.Unlock()
	e.nudge()
	if moved != nil {
		e.bid(moved)
	}
	if !changed {
		return nil
	}
	if err := e.announce(rec, ttl, e.out()); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.table.remove(rec.Node, now)
		r.forget(rec.Node)
		return err
	}
	return nil
}

// announce sends a node's records unasked; a ttl of zero is its goodbye.
func (e *endpoint) announce(rec *wire.Record, ttl time.Duration, out []link.Interface) error {
	packet, err := wire.Response(0, nil, rec.Pointer(rec.Service, seconds(ttl)))
	if err != nil {
		return fmt.Errorf("%w: mdns: encode node %q: %w", registry.ErrInvalid, rec.Node.ID, err)
	}
	return e.r.multicast(e.conn, out, packet)
}

// bid says goodbye. It goes unheard where it cannot be sent: the records' ttl is over some time.
func (e *endpoint) bid(rec *wire.Record) {
	if err := e.announce(rec, 0, e.out()); err != nil {
		e.r.log.Debug("goodbye not sent", "node", rec.Node.ID, "error", err)
	}
	e.nudge()
}

// multicast sends a packet by each of the interfaces. Those that fail are logged; the error is of all of them.
func (r *Registry) multicast(conn *link.Conn, out []link.Interface, packet []byte) error {
	if len(out) == 0 {
		return fmt.Errorf("%w: mdns: no interface to send by is up", registry.ErrUnavailable)
	}
	var why []string
	for _, i := range out {
		if err := conn.Multicast(packet, &i); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return registry.ErrClosed
			}
			why = append(why, fmt.Sprintf("%s: %v", i.Name, err))
			r.log.Debug("multicast not sent", "interface", i.Name, "error", err)
		}
	}
	if len(why) == len(out) {
		return fmt.Errorf("%w: mdns: no interface takes multicast: %s", registry.ErrUnavailable, strings.Join(why, ", "))
	}
	return nil
}

// keep does what is due, until close.
func (e *endpoint) keep() {
	defer close(e.kept)
	timer := time.NewTimer(relist)
	defer timer.Stop()
	look := time.Now().Add(relist)
	for {
		now := time.Now()
		var fresh []link.Interface
		if !now.Before(look) {
			fresh, look = e.relist(), now.Add(relist)
		}
		next := sooner(e.work(now, fresh), look)
		timer.Reset(max(time.Until(next), 0))
		select {
		case <-e.stopped:
			return
		case <-e.wake:
		case <-timer.C:
		}
	}
}

// relist joins interfaces that have come up, and gives those that nodes have to be announced on.
func (e *endpoint) relist() []link.Interface {
	n, err := e.r.guard.network(0)
	if err != nil {
		return nil
	}
	all, err := e.r.guard.hears(n)
	if err != nil {
		all = nil
	}
	fresh, err := e.join(all)
	if err != nil {
		e.r.log.Debug("multicast is impossible now", "error", err)
	}
	return e.r.guard.sends(fresh)
}

// errand is what has to be sent.
type errand struct {
	rec *wire.Record
	ttl time.Duration // zero: its goodbye
	out []link.Interface
}

// work does what is due, and gives the time of what is next. On fresh interfaces every node is announced.
func (e *endpoint) work(now time.Time, fresh []link.Interface) time.Time {
	errands, stale, next := e.r.due(now, e.out(), fresh)
	pause := pauser{stop: e.stopped}
	for _, do := range errands {
		if err := e.announce(do.rec, do.ttl, do.out); err != nil {
			e.r.log.Debug("not announced", "node", do.rec.Node.ID, "error", err)
		}
		pause.sent()
	}
	for _, service := range stale {
		if _, err := e.r.ask(e.r.life, service); err != nil {
			e.r.log.Debug("not asked again", "service", service, "error", err)
		}
	}
	return next
}

// due takes what is due out of the table and the cache: what is to be sent, the services to ask for again, and when
// there is more.
func (r *Registry) due(now time.Time, out, fresh []link.Interface) (errands []errand, stale []string, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range r.table.lapsed(now) {
		r.forget(rec.Node)
		clear(r.queries) // those under way may have found it
		errands = append(errands, errand{rec: rec, out: out})
	}
	for _, rec := range r.table.repeats(now) {
		errands = append(errands, errand{rec: rec, out: out})
	}
	news, renewed := r.table.announcements(now, r.opts.Scope == LAN, r.ttl)
	for _, o := range news {
		errands = append(errands, errand{o.rec, r.ttl(o), out})
	}
	if lan := beyond(out); len(lan) > 0 {
		for _, o := range renewed {
			errands = append(errands, errand{o.rec, r.ttl(o), lan})
		}
	}
	if len(fresh) > 0 {
		for _, o := range r.table.nodes {
			errands = append(errands, errand{o.rec, r.ttl(o), fresh})
		}
	}
	stale = r.age(now)
	next = r.table.next()
	if r.cache != nil {
		next = sooner(next, r.cache.next(r.wanted))
	}
	r.planned = next
	return errands, stale, next
}

// beyond leaves loopback out: on this machine those who watch ask again before a ttl is over, and where nobody watches
// nothing is sent.
func beyond(all []link.Interface) (out []link.Interface) {
	for _, i := range all {
		if !i.Loopback() {
			out = append(out, i)
		}
	}
	return out
}

// age drops nodes whose time is over, and gives the services to ask for again. It is called with the lock held.
func (r *Registry) age(now time.Time) (ask []string) {
	if r.cache == nil {
		return nil
	}
	for _, n := range r.cache.expire(now) {
		r.forget(n)
	}
	stale := r.cache.stale(now, r.wanted)
	if len(stale) > 3 && r.watched[""] != nil {
		return []string{""}
	}
	for service := range stale {
		ask = append(ask, service)
	}
	return ask
}

// ttl is what a node's records are sent with. It is called with the lock held.
func (r *Registry) ttl(o *own) time.Duration {
	known := len(r.table.nodes)
	if r.cache != nil {
		known += len(r.cache.nodes)
	}
	ttl := min(max(r.opts.TTL, time.Duration(known)*perNode), maxTTL)
	if o.lease > 0 {
		ttl = min(ttl, max(o.lease, minTTL))
	}
	return ttl
}

// seconds rounds up: a short ttl must not become a goodbye.
func seconds(ttl time.Duration) uint32 { return uint32((ttl + time.Second - 1) / time.Second) }

// close takes every node back, twice, and ends the goroutines. Quietly, nobody is told.
func (e *endpoint) close(quietly bool) {
	close(e.stopped)
	<-e.kept
	e.sending.Lock()
	defer e.sending.Unlock()
	if !quietly {
		recs := e.r.leaving()
		for round := range 2 {
			if round > 0 && len(recs) > 0 {
				time.Sleep(secondGoodbye)
			}
			var pause pauser
			for _, rec := range recs {
				e.bid(rec)
				pause.sent()
			}
		}
	}
	_ = e.conn.Close()
}

// leaving empties the table, and gives the nodes to say goodbye for.
func (r *Registry) leaving() (recs []*wire.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.table.nodes {
		recs = append(recs, o.rec)
	}
	for _, g := range r.table.goodbyes {
		recs = append(recs, g.rec)
	}
	clear(r.table.nodes)
	return recs
}

// pauser keeps many packets from running over a receiver's buffer.
type pauser struct {
	stop  <-chan struct{} // ends a pause early; may be nil
	count int
}

func (p *pauser) sent() {
	if p.count++; p.count%burst == 0 {
		select {
		case <-time.After(breath):
		case <-p.stop:
		}
	}
}

// read reads packets until close.
func (e *endpoint) read() {
	parser := wire.NewParser(e.r.domain)
	buf := make([]byte, wire.MaxPacket+1)
	for {
		p, err := e.conn.Read(buf)
		if err != nil {
			select {
			case <-e.stopped:
				return
			case <-time.After(breath): // an error that stays must not take a processor
				continue
			}
		}
		e.handle(p, parser, time.Now())
	}
}

// handle acts on one packet.
func (e *endpoint) handle(p link.Packet, parser *wire.Parser, now time.Time) {
	r := e.r
	if len(p.Data) > wire.MaxPacket || p.To.IsValid() && p.To != link.Group() {
		return
	}
	response, ok := kind(p.Data)
	if !ok || response && (p.From.Port() != link.Port || !r.listens()) {
		return // most of what is heard in a crowd: announcements that nobody here waits for
	}
	from, ok := r.guard.admit(p)
	if !ok || !response && !from.local() && !e.rates.allow(from, now) {
		return
	}
	m, err := parser.Parse(p.Data)
	if err != nil {
		r.log.Debug("packet refused", "from", p.From, "bytes", len(p.Data), "error", err)
		return
	}
	if m.Response {
		r.learn(p, from, m, now)
		return
	}
	e.respond(p, from, m)
}

// kind reads no more of a packet than whether it is a response.
func kind(packet []byte) (response, ok bool) {
	if len(packet) < 12 { // the header of RFC 1035 section 4.1.1
		return false, false
	}
	return packet[2]&0x80 != 0, true
}

// listens reports whether announcements of others are of use.
func (r *Registry) listens() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cache != nil
}
