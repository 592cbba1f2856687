// Package lease keeps nodes that have owners and lapse: what memory and the server of the HTTP registry are made of.
//
// A node belongs to the owner that registered it. Another owner gets ErrConflict until the node is deregistered,
// released with its owner, or lapsed. Leases run on the monotonic clock: a wall clock that is set moves none of them.
package lease

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
)

// Limits bound a table. Zero: no limit.
type Limits struct {
	Nodes   int // of all services
	Service int // nodes of one service
}

// FullError is the error of a registration that a limit refuses.
type FullError struct{ What string }

// Error names the limit.
func (e *FullError) Error() string { return "registry: full: " + e.What }

// ConflictError is the error of who does not own a node. It is an ErrConflict.
type ConflictError struct {
	ID, Service string
	Left        time.Duration // until the node lapses; 0: it does not
}

// Error names the node.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s: %s of %s is held by another owner", registry.ErrConflict, e.ID, e.Service)
}

// Is makes the error an ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == registry.ErrConflict }

// Table is a set of leased nodes. O tells owners apart. Its methods may be called concurrently.
type Table[O comparable] struct {
	hub    *hub.Hub
	limits Limits

	mu      sync.Mutex
	leases  map[string]*lease[O]      // by node id
	owned   map[O]map[string]struct{} // ids of each owner's nodes
	service map[string]int            // nodes of each service
	closed  bool
}

type lease[O comparable] struct {
	owner   O
	service string
	expires time.Time // zero: it does not lapse
	timer   *time.Timer
}

// New makes an empty table.
func New[O comparable](limits Limits) *Table[O] {
	return &Table[O]{hub: hub.New(), limits: limits, leases: map[string]*lease[O]{}, owned: map[O]map[string]struct{}{}, service: map[string]int{}}
}

// Nodes is the table's set, to be read and watched, not to be changed.
func (t *Table[O]) Nodes() *hub.Hub { return t.hub }

// Register adds, changes or renews owner's node. A ttl of zero does not lapse. The error wraps ErrInvalid or
// ErrConflict, or is a *FullError; after Close it is ErrClosed.
func (t *Table[O]) Register(owner O, n registry.Node, ttl time.Duration) error {
	if _, err := Encode(n); err != nil {
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
	l, held := t.leases[n.ID]
	if held && l.expires.IsZero() || held && time.Now().Before(l.expires) {
		if l.owner != owner {
			return l.conflict(n.ID)
		}
	}
	if err := t.room(n.Service, l); err != nil {
		return err
	}
	if held {
		t.drop(n.ID, l)
	}
	t.hold(n, &lease[O]{owner: owner, service: n.Service}, ttl)
	t.hub.Put(n)
	return nil
}

// Deregister takes owner's node away. Of another owner's it wraps ErrConflict.
func (t *Table[O]) Deregister(owner O, service, id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return registry.ErrClosed
	}
	l, held := t.leases[id]
	switch {
	case !held || l.service != service:
		return nil
	case l.owner != owner:
		return l.conflict(id)
	}
	t.drop(id, l)
	t.hub.Remove(id)
	return nil
}

// Release takes all of an owner's nodes away.
func (t *Table[O]) Release(owner O) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.owned[owner] {
		t.drop(id, t.leases[id])
		t.hub.Remove(id)
	}
}

// Close stops the leases and ends the watches.
func (t *Table[O]) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for id, l := range t.leases {
		t.drop(id, l)
	}
	t.hub.Close()
}

// Encode validates n and gives its record. The error wraps registry.ErrInvalid, also where the record has more than
// registry.MaxRecord bytes.
func Encode(n registry.Node) ([]byte, error) {
	if err := registry.Validate(n); err != nil {
		return nil, err
	}
	record, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", registry.ErrInvalid, err)
	}
	if len(record) > registry.MaxRecord {
		return nil, fmt.Errorf("%w: the record of %s has %d bytes, limit %d", registry.ErrInvalid, n.ID, len(record), registry.MaxRecord)
	}
	return record, nil
}

func (l *lease[O]) conflict(id string) error {
	e := &ConflictError{ID: id, Service: l.service}
	if !l.expires.IsZero() {
		e.Left = time.Until(l.expires)
	}
	return e
}

// room tells whether a limit refuses one more node of service, where old, if any, makes place for it.
func (t *Table[O]) room(service string, old *lease[O]) error {
	all, same := len(t.leases), t.service[service]
	if old != nil {
		all--
		if old.service == service {
			same--
		}
	}
	switch {
	case t.limits.Nodes > 0 && all >= t.limits.Nodes:
		return &FullError{What: fmt.Sprintf("%d nodes", t.limits.Nodes)}
	case t.limits.Service > 0 && same >= t.limits.Service:
		return &FullError{What: fmt.Sprintf("%d nodes of %s", t.limits.Service, service)}
	}
	return nil
}

func (t *Table[O]) hold(n registry.Node, l *lease[O], ttl time.Duration) {
	t.leases[n.ID] = l
	if t.owned[l.owner] == nil {
		t.owned[l.owner] = map[string]struct{}{}
	}
	t.owned[l.owner][n.ID] = struct{}{}
	t.service[n.Service]++
	if ttl > 0 {
		l.expires = time.Now().Add(ttl)
		id := n.ID
		l.timer = time.AfterFunc(ttl, func() { t.lapse(id, l) })
	}
}

func (t *Table[O]) drop(id string, l *lease[O]) {
	if l.timer != nil {
		l.timer.Stop()
	}
	delete(t.leases, id)
	if delete(t.owned[l.owner], id); len(t.owned[l.owner]) == 0 {
		delete(t.owned, l.owner)
	}
	if t.service[l.service]--; t.service[l.service] == 0 {
		delete(t.service, l.service)
	}
}

// lapse runs when l is over, unless l was renewed or dropped in the meantime.
func (t *Table[O]) lapse(id string, l *lease[O]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.leases[id] == l {
		t.drop(id, l)
		t.hub.Remove(id)
	}
}
