// Package lease keeps nodes that have owners and lapse: what memory and the server of the HTTP registry are made of.
//
// A node belongs to the owner that registered it. Another owner gets ErrConflict until the node is deregistered,
// released with its owner, or lapsed. Leases run on the monotonic clock: a wall clock that is set moves none of them. A process that
// did not run for a while, because it was stopped, could hear no owner: what would have lapsed meanwhile gets its time again.
package lease

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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

// Journal makes what a table holds outlast the process. Its methods may be called concurrently.
type Journal[O comparable] interface {
	// Put returns when the lease is durable. It is shown to nobody before. After an error it is not to be.
	Put(e Entry[O]) error
	// Remove returns when it is durable that the nodes are gone; an error keeps them.
	Remove(ids ...string) error
	// Forget is for nodes that lapsed: it may take its time, and does not wait.
	Forget(ids ...string)
}

// Entry is a lease with its node, as a journal keeps it.
type Entry[O comparable] struct {
	Owner O
	Node  registry.Node
	TTL   time.Duration // in whole seconds, rounded up; 0: it does not lapse
}

// Table is a set of leased nodes. O tells owners apart. Its methods may be called concurrently.
type Table[O comparable] struct {
	hub     *hub.Hub
	limits  Limits
	journal Journal[O] // nil: none

	mu      sync.Mutex
	leases  map[string]*lease[O]      // by node id
	owned   map[O]map[string]struct{} // ids of each owner's nodes
	service map[string]int            // nodes of each service
	pending map[string]chan struct{}  // of ids that the journal is writing; closed when it has
	coming  map[string]int            // nodes of each service that the journal is writing
	arrive  int                       // and of all
	closed  bool
}

type lease[O comparable] struct {
	owner   O
	service string
	ttl     time.Duration
	expires time.Time // zero: it does not lapse
	timer   *time.Timer
	guest   bool // gives way to any owner, and is not in the journal
	late    bool // it lapsed while the journal wrote
}

// stalled is how late a lease's timer comes where the process did not run.
const stalled = time.Second

// New makes an empty table.
func New[O comparable](limits Limits) *Table[O] { return NewDurable[O](limits, nil, hub.New()) }

// NewDurable makes a table whose changes j takes before anybody sees them, over a hub that is empty. Restore puts what j had.
func NewDurable[O comparable](limits Limits, j Journal[O], h *hub.Hub) *Table[O] {
	return &Table[O]{hub: h, limits: limits, journal: j, leases: map[string]*lease[O]{}, owned: map[O]map[string]struct{}{},
		service: map[string]int{}, pending: map[string]chan struct{}{}, coming: map[string]int{}}
}

// Restore puts a node that the journal has, with the whole of its ttl.
func (t *Table[O]) Restore(e Entry[O]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hold(e.Node, &lease[O]{owner: e.Owner, service: e.Node.Service}, e.TTL)
	t.hub.Put(e.Node)
}

// Nodes is the table's set, to be read and watched, not to be changed.
func (t *Table[O]) Nodes() *hub.Hub { return t.hub }

// Register adds, changes or renews owner's node. The zero O is nobody, whose nodes anybody may take over, change and take away. A ttl of
// zero does not lapse. The error wraps ErrInvalid or
// ErrConflict, is a *FullError, or the journal's; after Close it is ErrClosed. A renewal is no matter of the journal's.
func (t *Table[O]) Register(owner O, n registry.Node, ttl time.Duration) error {
	if ttl < 0 {
		return fmt.Errorf("%w: ttl %v is negative", registry.ErrInvalid, ttl)
	}
	if t.Renew(owner, n, ttl) { // which most calls are for
		return nil
	}
	if _, err := Encode(n); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.await(n.ID)
	if t.closed {
		return registry.ErrClosed
	}
	l, held := t.leases[n.ID]
	var nobody O
	if held && l.owner != owner && l.owner != nobody && !l.guest && (l.expires.IsZero() || time.Now().Before(l.expires)) {
		return l.conflict(n.ID)
	}
	if held && l.owner == owner && whole(l.ttl) == whole(ttl) && t.same(n) {
		t.extend(n.ID, l, ttl) // somebody has just put it
		return nil
	}
	if err := t.room(n.Service, l); err != nil {
		return err
	}
	if t.journal != nil {
		if err := t.write(n, owner, ttl); err != nil {
			return err
		}
		l, held = t.leases[n.ID] // it may have gone
	}
	if held {
		t.drop(n.ID, l)
	}
	t.hold(n, &lease[O]{owner: owner, service: n.Service}, ttl)
	t.hub.Put(n)
	return nil
}

// Renew renews owner's node, and reports whether it has just that one, with that ttl. Where not, it does nothing.
func (t *Table[O]) Renew(owner O, n registry.Node, ttl time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.leases[n.ID]
	if t.closed || l == nil || l.owner != owner || l.guest || t.pending[n.ID] != nil || whole(l.ttl) != whole(ttl) || !t.same(n) {
		return false
	}
	t.extend(n.ID, l, ttl)
	return true
}

// Guest adds or changes a node that does not lapse, is in no journal, and gives way to any owner. The error is as of Register.
func (t *Table[O]) Guest(owner O, n registry.Node) error {
	if _, err := Encode(n); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l, held := t.leases[n.ID]
	switch {
	case t.closed:
		return registry.ErrClosed
	case t.pending[n.ID] != nil, held && l.owner != owner:
		return &ConflictError{ID: n.ID, Service: n.Service}
	}
	if err := t.room(n.Service, l); err != nil {
		return err
	}
	if held {
		t.drop(n.ID, l)
	}
	t.hold(n, &lease[O]{owner: owner, service: n.Service, guest: true}, 0)
	t.hub.Put(n)
	return nil
}

// Deregister takes owner's node away. Of another owner's it wraps ErrConflict.
func (t *Table[O]) Deregister(owner O, service, id string) error {
	var nobody O
	return t.remove(service, id, func(l *lease[O]) bool { return l.owner == owner || l.owner == nobody })
}

// Evict takes a node away, whoever owns it.
func (t *Table[O]) Evict(service, id string) error {
	return t.remove(service, id, func(*lease[O]) bool { return true })
}

func (t *Table[O]) remove(service, id string, may func(*lease[O]) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.await(id)
	if t.closed {
		return registry.ErrClosed
	}
	l, held := t.leases[id]
	switch {
	case !held || l.service != service:
		return nil
	case !may(l):
		return l.conflict(id)
	}
	return t.take([]string{id})
}

// Release takes all of an owner's nodes away.
func (t *Table[O]) Release(owner O) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for again := true; again; { // what is awaited unlocks, and may change what the owner has
		again = false
		for id := range t.owned[owner] {
			if t.pending[id] != nil {
				t.await(id)
				again = true
				break
			}
		}
	}
	return t.take(slices.Collect(maps.Keys(t.owned[owner])))
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
	all, same := len(t.leases)+t.arrive, t.service[service]+t.coming[service]
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
	l.ttl = ttl
	if t.owned[l.owner] == nil {
		t.owned[l.owner] = map[string]struct{}{}
	}
	t.owned[l.owner][n.ID] = struct{}{}
	t.service[n.Service]++
	t.extend(n.ID, l, ttl)
}

// extend has l's time begin anew.
func (t *Table[O]) extend(id string, l *lease[O], ttl time.Duration) {
	l.ttl, l.late = ttl, false
	if ttl == 0 {
		return // so it was before
	}
	l.expires = time.Now().Add(ttl)
	if l.timer == nil || !l.timer.Stop() {
		l.timer = time.AfterFunc(ttl, func() { t.lapse(id, l) })
		return
	}
	l.timer.Reset(ttl)
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
	late := time.Since(l.expires)
	switch {
	case t.leases[id] != l || late < 0:
	case late > stalled:
		t.extend(id, l, l.ttl)
	case t.pending[id] != nil:
		l.late = true
	default:
		t.over(id, l)
	}
}

func (t *Table[O]) over(id string, l *lease[O]) {
	if t.journal != nil && !l.guest {
		t.journal.Forget(id)
	}
	t.drop(id, l)
	t.hub.Remove(id)
}

// await waits until the journal does not write an id. It unlocks meanwhile.
func (t *Table[O]) await(id string) {
	for t.pending[id] != nil {
		written := t.pending[id]
		t.mu.Unlock()
		<-written
		t.mu.Lock()
	}
}

// begin says that the journal writes ids, and end that it has. In between the lock is free.
func (t *Table[O]) begin(ids ...string) (end func()) {
	written := make(chan struct{})
	for _, id := range ids {
		t.pending[id] = written
	}
	return func() {
		close(written)
		for _, id := range ids {
			delete(t.pending, id)
			if l := t.leases[id]; l != nil && l.late {
				t.over(id, l)
			}
		}
	}
}

// write has the journal take a node. It unlocks meanwhile.
func (t *Table[O]) write(n registry.Node, owner O, ttl time.Duration) error {
	end := t.begin(n.ID)
	t.arrive++
	t.coming[n.Service]++
	t.mu.Unlock()
	err := t.journal.Put(Entry[O]{Owner: owner, Node: n, TTL: whole(ttl)})
	t.mu.Lock()
	t.arrive--
	if t.coming[n.Service]--; t.coming[n.Service] == 0 {
		delete(t.coming, n.Service)
	}
	if l := t.leases[n.ID]; err == nil && l != nil {
		l.late = false // its place is taken
	}
	end()
	if err == nil && t.closed {
		return registry.ErrClosed
	}
	return err
}

// take takes nodes away, for which nobody waits.
func (t *Table[O]) take(ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	if t.journal != nil {
		kept := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return t.leases[id].guest })
		end := t.begin(ids...)
		t.mu.Unlock()
		var err error
		if len(kept) > 0 {
			err = t.journal.Remove(kept...)
		}
		t.mu.Lock()
		end()
		if err != nil {
			return err
		}
	}
	for _, id := range ids {
		if l := t.leases[id]; l != nil {
			t.drop(id, l)
			t.hub.Remove(id)
		}
	}
	return nil
}

// same reports whether the table has just this node.
func (t *Table[O]) same(n registry.Node) bool {
	old, ok := t.hub.Lookup(n.ID)
	return ok && old.Equal(n)
}

// whole gives a ttl in whole seconds: a client that asks for what is left of a while asks for a little less each time.
func whole(ttl time.Duration) time.Duration {
	return (ttl + time.Second - 1) / time.Second * time.Second
}
