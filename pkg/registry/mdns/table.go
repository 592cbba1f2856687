package mdns

import (
	"math/rand/v2"
	"time"

	hashimdns "github.com/hashicorp/mdns"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/wire"
)

// When a node is announced again after the first time (RFC 6762 section 8.3 asks for one second between; the early one
// is for a packet that was lost), and when its goodbye is repeated.
const (
	secondAnnouncement = 250 * time.Millisecond
	thirdAnnouncement  = time.Second
	secondGoodbye      = 10 * time.Millisecond
)

// own is a node that was registered here.
type own struct {
	rec    *wire.Record
	dnssd  *hashimdns.MDNSService // nil where DNS-SD cannot carry it
	lease  time.Duration          // zero: until Deregister
	lapses time.Time              // when lease is set
	sent   int                    // announcements since the last change
	due    time.Time              // of the next announcement; zero: none
	warned bool                   // that another announces the same instance
}

// goodbye is a node that was taken back, and has to be said once more.
type goodbye struct {
	rec *wire.Record
	due time.Time
}

// table is the nodes that were registered here, by id, and when there is something to send for them. It is under the
// registry's lock. Times are given, so that it needs no clock.
type table struct {
	nodes    map[string]*own
	goodbyes []goodbye
}

// put adds or renews a node. It reports whether others have to be told, and the record that it takes the place of
// under another name, if any.
func (t *table) put(rec *wire.Record, dnssd *hashimdns.MDNSService, lease time.Duration, now time.Time) (changed bool, moved *wire.Record) {
	o := t.nodes[rec.Node.ID]
	switch {
	case o == nil:
		changed = true
	case o.rec.Instance != rec.Instance:
		changed, moved = true, o.rec
	default:
		changed = !o.rec.Node.Equal(rec.Node)
	}
	if changed {
		o = &own{rec: rec, dnssd: dnssd, sent: 1, due: now.Add(secondAnnouncement)}
		t.nodes[rec.Node.ID] = o
	}
	o.lease, o.lapses = lease, now.Add(lease)
	return changed, moved
}

// remove takes a node away, and has its goodbye repeated.
func (t *table) remove(n registry.Node, now time.Time) *wire.Record {
	o := t.nodes[n.ID]
	if o == nil || o.rec.Node.Service != n.Service {
		return nil
	}
	delete(t.nodes, n.ID)
	t.leave(o.rec, now)
	return o.rec
}

// leave has a goodbye repeated.
func (t *table) leave(rec *wire.Record, now time.Time) {
	t.goodbyes = append(t.goodbyes, goodbye{rec: rec, due: now.Add(secondGoodbye)})
}

// lapsed takes away the nodes whose lease is over.
func (t *table) lapsed(now time.Time) (out []*wire.Record) {
	for _, o := range t.nodes {
		if o.lease > 0 && !now.Before(o.lapses) {
			out = append(out, t.remove(o.rec.Node, now))
		}
	}
	return out
}

// repeats gives the goodbyes to be said again now, but not of a node that has come back since.
func (t *table) repeats(now time.Time) (out []*wire.Record) {
	rest := t.goodbyes[:0]
	for _, g := range t.goodbyes {
		if now.Before(g.due) {
			rest = append(rest, g)
		} else if o := t.nodes[g.rec.Node.ID]; o == nil || o.rec.Instance != g.rec.Instance {
			out = append(out, g.rec)
		}
	}
	clear(t.goodbyes[len(rest):])
	t.goodbyes = rest
	return out
}

// announcements gives the nodes to be announced now: those that are new, to everyone, and those that have to be renewed.
// A third of the ttl goes by between renewals, so that two may be lost; without renew there are none.
func (t *table) announcements(now time.Time, renew bool, ttl func(*own) time.Duration) (fresh, renewed []*own) {
	for _, o := range t.nodes {
		if o.due.IsZero() || now.Before(o.due) {
			continue
		}
		o.sent++
		switch {
		case o.sent == 2:
			fresh = append(fresh, o)
			o.due = now.Add(thirdAnnouncement - secondAnnouncement)
			continue
		case o.sent == 3:
			fresh = append(fresh, o)
		default:
			renewed = append(renewed, o)
		}
		o.due = time.Time{}
		if renew {
			third := ttl(o) / 3
			o.due = now.Add(third - rand.N(third/10+1)) // not all at once
		}
	}
	return fresh, renewed
}

// next is when something has to be done; zero: never.
func (t *table) next() (next time.Time) {
	for _, o := range t.nodes {
		next = sooner(next, o.due)
		if o.lease > 0 {
			next = sooner(next, o.lapses)
		}
	}
	for _, g := range t.goodbyes {
		next = sooner(next, g.due)
	}
	return next
}

// sooner gives the earlier of two times, of which zero means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
