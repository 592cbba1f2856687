package gossip

import (
	"fmt"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	leases "github.com/cb02dfca/micro/pkg/registry/internal/lease"
	"github.com/cb02dfca/micro/pkg/status"
)

// lease is the life of an own node.
type lease struct{ timer *time.Timer } // nil: it does not lapse

// register makes n one of the own nodes, for a ttl.
func (t *table) register(n registry.Node, ttl time.Duration) error {
	now := time.Now()
	e, err := newEntry(n, now.UnixNano())
	if err != nil {
		return err
	}
	if ttl < 0 {
		return fmt.Errorf("%w: ttl %v is negative", registry.ErrInvalid, ttl)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return registry.ErrClosed
	}
	old, had := t.self.set[n.ID]
	if claims := t.claims[n.ID]; !had && len(claims) > 0 {
		return &leases.ConflictError{ID: n.ID, Service: claims[0].set[n.ID].node.Service}
	}
	if nodes, bytes := len(t.self.set), t.self.size+e.size-old.size; !had && nodes >= maxNodes || bytes > maxSet {
		return status.Wrap(&leases.FullError{What: fmt.Sprintf("a member has at most %d nodes and %d bytes of records", maxNodes, maxSet)},
			status.ResourceExhausted, "registry: gossip: this process has %d nodes with %d bytes of records", nodes, t.self.size)
	}
	t.lease(n.ID, ttl)
	if had && old.node.Equal(e.node) {
		return nil
	}
	if had {
		e.since = old.since
	}
	t.store(t.self, n.ID, &e)
	t.touch(n.ID)
	t.settle([]string{n.ID})
	return nil
}

// deregister takes an own node away.
func (t *table) deregister(n registry.Node) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return registry.ErrClosed
	}
	if e, mine := t.self.set[n.ID]; mine && e.node.Service == n.Service {
		t.drop(n.ID)
		t.settle([]string{n.ID})
		return nil
	}
	for _, m := range t.claims[n.ID] {
		if m != t.self && m.set[n.ID].node.Service == n.Service {
			return &leases.ConflictError{ID: n.ID, Service: n.Service}
		}
	}
	return nil
}

// lapse runs when a life is over, unless it was renewed or ended in the meantime.
func (t *table) lapse(id string, l *lease) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.own[id] == l {
		t.drop(id)
		t.settle([]string{id})
	}
}

// The rest is called with the lock held.

// lease begins the life of a node anew.
func (t *table) lease(id string, ttl time.Duration) {
	t.end(id)
	l := &lease{}
	t.own[id] = l
	if ttl > 0 {
		l.timer = time.AfterFunc(ttl, func() { t.lapse(id, l) })
	}
}

// end ends the life of a node, if it has one.
func (t *table) end(id string) {
	if l := t.own[id]; l != nil && l.timer != nil {
		l.timer.Stop()
	}
	delete(t.own, id)
}

// drop takes an own node out of the set; settle shows it.
func (t *table) drop(id string) {
	t.end(id)
	t.store(t.self, id, nil)
	t.touch(id)
}

// touch makes a version of the own set.
func (t *table) touch(id string) {
	t.self.version++
	t.touched[id] = struct{}{}
	t.announce.give()
}
