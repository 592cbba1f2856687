package mdns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/link"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/wire"
)

const (
	joinable   = 5 * time.Millisecond // how old a question without an answer may be that another caller shares
	maxQueries = 64                   // under way at once; beyond it callers share what there is
	maxNames   = 256                  // services that are asked for by name after a listing
	maxAnswer  = 65535                // bytes: go-micro answers a question with all endpoints in one packet
	badReads   = 100                  // errors of one socket before it is given up
)

// query is one question to the network, on a socket of its own: answers come to it alone, and it can be told from an
// empty socket that all have been read. While someone watches it runs until no more answers are expected, also when who
// asked has gone on with the first one.
type query struct {
	r       *Registry
	service string // empty: all
	conn    *link.Conn
	out     []link.Interface
	pace    pace
	parser  *wire.Parser

	first chan struct{}   // closed when there is an answer to go on with, or done
	done  chan struct{}   // closed at the end
	names map[string]bool // services listed; true: asked for twice

	mu    sync.Mutex
	found *cache
}

// ask starts a question for a service, or for all with the empty name, or joins one that was just started.
func (r *Registry) ask(ctx context.Context, service string) (*query, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, registry.ErrClosed
	}
	if q := r.queries[service]; q != nil && (q.young() || r.running >= maxQueries) {
		return q, nil
	}
	q, err := r.newQuery(ctx, service)
	if err != nil {
		return nil, err
	}
	if err := q.send(q.questions()...); err != nil {
		_ = q.conn.Close()
		return nil, err
	}
	r.queries[service] = q
	r.running++
	r.work.Go(q.run)
	return q, nil
}

func (r *Registry) newQuery(ctx context.Context, service string) (*query, error) {
	n, err := r.guard.network(relook)
	if err != nil {
		return nil, err
	}
	all, err := r.guard.hears(n)
	if err != nil {
		return nil, err
	}
	q := &query{
		r: r, service: service, out: r.guard.sends(all), parser: wire.NewParser(r.domain),
		first: make(chan struct{}), done: make(chan struct{}), names: map[string]bool{}, found: newCache(),
	}
	from := netip.IPv4Unspecified()
	if r.opts.Scope == Host { // not to be reached from elsewhere
		from = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if q.conn, err = link.Ask(ctx, from); err != nil {
		return nil, fmt.Errorf("%w: mdns: open a socket: %w", registry.ErrUnavailable, err)
	}
	q.pace = pace{start: time.Now(), empty: maxWait}
	if service == "" && r.opts.Scope == Host {
		q.pace.empty = emptyList
	}
	return q, nil
}

// young reports whether another caller may share the question: it was just asked, and nobody has gone on with it.
func (q *query) young() bool {
	select {
	case <-q.first:
		return false
	default:
		return time.Since(q.pace.start) < joinable
	}
}

// questions gives the names to ask for. For all nodes there are two in one packet: our own nodes answer the first with
// all that they are, go-micro's the second with their services' names.
func (q *query) questions() []string {
	if q.service == "" {
		return []string{wire.NodesName(q.r.domain), wire.ServicesName(q.r.domain)}
	}
	return []string{wire.ServiceName(q.service, q.r.domain)}
}

// send asks on every interface. It fails only where none takes the question.
func (q *query) send(names ...string) error {
	packet, err := wire.Query(uint16(rand.Uint32()), names...)
	if err != nil {
		return fmt.Errorf("mdns: question for %s: %w", names[0], err)
	}
	return q.r.multicast(q.conn, q.out, packet)
}

func (q *query) run() {
	defer q.end()
	// A read fails when the registry is closed.
	stop := context.AfterFunc(q.r.life, func() { _ = q.conn.Close() })
	defer stop()
	buf := make([]byte, maxAnswer+1)
	for bad := 0; bad < badReads; {
		now := time.Now()
		_ = q.conn.SetReadDeadline(now.Add(tick))
		p, err := q.conn.Read(buf)
		now = time.Now()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if q.ticked(now) {
				return
			}
		case err != nil:
			if q.r.life.Err() != nil {
				return
			}
			bad++
		case q.take(p, now):
			q.pace.news(now)
		}
		if q.pace.late(now) {
			return
		}
	}
}

// end closes what waits for the question.
func (q *query) end() {
	_ = q.conn.Close()
	q.settle()
	close(q.done)
	r := q.r
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running--
	if r.queries[q.service] == q {
		delete(r.queries, q.service)
	}
}

// settle lets those go on who wait for the first answer.
func (q *query) settle() {
	select {
	case <-q.first:
	default:
		close(q.first)
	}
}

// ticked acts after an empty read, and reports whether the question is over.
func (q *query) ticked(now time.Time) bool {
	switch q.pace.ticked(now) {
	case resend:
		_ = q.send(q.questions()...)
	case settled:
		q.settle()
		return q.service != "" && !q.r.listens() // nobody is there for the rest
	case over:
		return !q.chase(now)
	}
	return false
}

// take reads a packet, and reports whether it said something new.
func (q *query) take(p link.Packet, now time.Time) bool {
	from, ok := q.r.guard.admit(p)
	if !ok || p.From.Port() != link.Port || len(p.Data) > maxAnswer { // RFC 6762 section 11: responses come from 5353
		return false
	}
	m, err := q.parser.Parse(p.Data)
	if err != nil || !m.Response {
		return false
	}
	news := false
	for _, f := range m.Found {
		if q.r.guard.believes(p, from, f) {
			news = q.apply(f, from, now) || news
		}
	}
	q.r.learn(p, from, m, now)
	for _, name := range m.Services {
		if _, known := q.names[name]; !known && q.service == "" && len(q.names) < maxNames {
			q.names[name] = false
			_ = q.send(wire.ServiceName(name, q.r.domain))
			news = true
		}
	}
	return news
}

// apply takes in one node, and reports whether it is news to who asked.
func (q *query) apply(f wire.Found, from source, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.found.apply(f, from, now) && (q.service == "" || q.service == f.Node.Service)
}

// chase asks once more for services that were listed and have not answered, and reports whether there were any.
func (q *query) chase(now time.Time) bool {
	if now.Sub(q.pace.start) >= maxWait {
		return false
	}
	q.mu.Lock()
	have := map[string]bool{}
	for _, n := range q.found.live("", now) {
		have[n.Service] = true
	}
	q.mu.Unlock()
	asked := false
	for name, twice := range q.names {
		if !twice && !have[name] {
			q.names[name] = true
			_ = q.send(wire.ServiceName(name, q.r.domain))
			asked = true
		}
	}
	if asked {
		q.pace.quiet = 0
	}
	return asked
}

// nodes gives what was found so far.
func (q *query) nodes() []registry.Node {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.found.live(q.service, time.Now())
}
