// Package hub holds a set of nodes in memory and tells watchers of its changes. It is the part of a registry that most
// backends share: memory and local put what they find into it, and their Get, List and Watch read it.
//
//	h := hub.New()              // the set is known, and empty
//	h := hub.NewPending()       // the set is not known yet: watches wait for the first Put, Apply, Replace or Fail
//
//	h.Put(node)                 // adds or changes one node, by its id; reports whether anything changed
//	h.Remove(id)                // takes one away; reports whether it was there
//	h.Apply(nodes, ids)         // several of both as one change
//	h.Replace(nodes)            // the whole set as a poll found it; wakes only watchers of services that changed
//	h.Fail(err)                 // the set is not known now: each watch yields err once, and goes on with the next Replace
//	h.Mend()                    // the set is known again, as it stands: what Replace does of Fail, without a set
//
//	h.Get(service)              // sorted by id; ErrNotFound
//	h.List()                    // sorted by service and id
//	h.Lookup(id)                // one node
//	h.Watch(ctx, service)       // as registry.Finder says; a slow reader misses sets, and holds up nobody
//	h.WatchChanges(ctx, service) // as registry.ChangeWatcher says
//	h.Snapshot(service)         // as Get or List, with the number of changes that led to it
//	h.Follow(service)           // a Reader: a watch for a caller with a select statement of its own
//	h.Resume(service, revision) // the same for who has the set of a revision, where h.Remembering(n) knows what came after it
//	h.Since(service, revision)  // what came after a revision, for who wants no watch
//	h.Close()                   // ends the watches
//
// A hub keeps one node for each id. It copies the nodes that it takes, unless it is Sharing; those it gives share their maps and are only read.
// It knows nothing of leases and starts no goroutine. All methods may be called concurrently.
//
// # Cost
//
// A change costs what changed, and a word to each watcher of the service; a watch of changes reads it at the same cost,
// from a log that all watches share. A whole set is made when it is asked for, from the last one and the log, and all
// watches of it get the same slice.
package hub

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Hub is a watched set of nodes. Use New or NewPending.
type Hub struct {
	done chan struct{} // closed by Close

	mu       sync.Mutex
	known    bool
	err      error                     // of Fail, until Replace or Mend
	nodes    map[string]*registry.Node // by id; a node is not changed
	views    map[string]*view          // by service, and "" for all: those with nodes or readers
	revision uint64
	closed   bool
	sharing  bool

	past     []event // the last changes, a ring of at most remember
	next     int     // the place of the next one, where the ring is full
	remember int
}

// event is a change of the past.
type event struct {
	revision uint64
	key
}

// New makes a hub whose set is known and empty.
func New() *Hub {
	h := NewPending()
	h.known = true
	return h
}

// NewPending makes a hub whose set is not known: watches yield nothing before the first Put, Apply, Replace or Fail.
func NewPending() *Hub {
	return &Hub{done: make(chan struct{}), nodes: map[string]*registry.Node{}, views: map[string]*view{}}
}

// Sharing makes the hub, before it is used, keep the nodes that it is given instead of copies: nobody may change them any
// more.
func (h *Hub) Sharing() *Hub {
	h.sharing = true
	return h
}

// Remembering makes the hub, before it is used, keep the names of its last n changes for Resume, and count revisions from first.
func (h *Hub) Remembering(n int, first uint64) *Hub {
	h.remember, h.revision = n, first
	return h
}

// Put adds n, or changes the node with its id, and reports whether anything changed. A node that comes back under
// another service leaves the first. Put makes the set of a pending hub known; it does not end a Fail.
func (h *Hub) Put(n registry.Node) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.learn()
	return h.put(&n)
}

// Apply does several Puts and Removes as one change.
func (h *Hub) Apply(put []registry.Node, gone []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.learn()
	for _, id := range gone {
		h.drop(id)
	}
	for i := range put {
		h.put(&put[i])
	}
}

// Remove takes the node with that id away, and reports whether it was there.
func (h *Hub) Remove(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.closed && h.drop(id)
}

// Replace makes nodes the whole set, and ends a Fail. Where an id stands twice the first one holds. Only watchers of
// services that changed are woken, and those that saw the failure.
func (h *Hub) Replace(nodes []registry.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	seen := make(map[string]struct{}, len(nodes))
	for i := range nodes {
		if _, twice := seen[nodes[i].ID]; twice {
			continue
		}
		seen[nodes[i].ID] = struct{}{}
		h.put(&nodes[i])
	}
	for id := range h.nodes {
		if _, ok := seen[id]; !ok {
			h.drop(id)
		}
	}
	h.learn()
	h.mend()
}

// Fail says that the set is not known for now, though Get and List go on giving the last one. Each watch yields err
// once; it goes on with the next Replace or Mend. A second Fail in a row wakes nobody who saw the first.
func (h *Hub) Fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || err == nil {
		return
	}
	h.err = err
	for _, v := range h.views {
		for r := range v.readers {
			if !r.failed {
				r.signal()
			}
		}
	}
}

// Mend ends a Fail: the set is known again, and is as the changes made it.
func (h *Hub) Mend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.learn()
		h.mend()
	}
}

// Get gives the nodes of a service by id, and an error that wraps ErrNotFound where there is none.
func (h *Hub) Get(service string) ([]registry.Node, error) {
	nodes, _ := h.shared(service)
	if service == "" || len(nodes) == 0 {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	return slices.Clone(nodes), nil
}

// List gives all nodes, in the order of registry.Sort; never nil.
func (h *Hub) List() []registry.Node {
	nodes, _ := h.shared("")
	return append([]registry.Node{}, nodes...)
}

// Snapshot gives the nodes of a service, or of all for the empty name, and the hub's revision, which grows with each
// change of any node. The slice is shared, and only read.
func (h *Hub) Snapshot(service string) ([]registry.Node, uint64) { return h.shared(service) }

func (h *Hub) shared(service string) ([]registry.Node, uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.views[service]
	if v == nil {
		return []registry.Node{}, h.revision
	}
	return v.snapshot(h), h.revision
}

// Since gives what changed after a revision, with the hub's revision: what Resume gives, without a watch, and also while a Fail lasts. It gives
// false where the hub does not remember that revision.
func (h *Hub) Since(service string, since uint64) (c registry.Change, revision uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	keys, ok := h.after(service, since)
	if !ok {
		return c, 0, false
	}
	return (&view{service: service}).told(h, keys), h.revision, true
}

// Revision grows with each change of any node.
func (h *Hub) Revision() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.revision
}

// Known reports whether the set is known, or was once.
func (h *Hub) Known() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known
}

// Len is how many nodes there are.
func (h *Hub) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.nodes)
}

// Lookup gives the node with that id.
func (h *Hub) Lookup(id string) (registry.Node, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.nodes[id]; n != nil {
		return *n, true
	}
	return registry.Node{}, false
}

// Close ends the watches. What comes after it changes nothing.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		close(h.done)
	}
}

// The rest is called with the lock held.

func (h *Hub) put(n *registry.Node) bool {
	old := h.nodes[n.ID]
	switch {
	case old != nil && old.Equal(*n):
		return false
	case old != nil && old.Service != n.Service:
		h.drop(n.ID)
	}
	own := *n
	if !h.sharing {
		own = n.Clone()
	}
	h.nodes[own.ID] = &own
	h.view(own.Service).ids[own.ID] = struct{}{}
	h.changed(own.Service, own.ID)
	return true
}

func (h *Hub) drop(id string) bool {
	n := h.nodes[id]
	if n == nil {
		return false
	}
	delete(h.nodes, id)
	delete(h.views[n.Service].ids, id)
	h.changed(n.Service, id)
	return true
}

// changed notes that a node of a service came, went or is another now.
func (h *Hub) changed(service, id string) {
	h.revision++
	h.note(event{h.revision, key{service, id}})
	for _, name := range [...]string{service, ""} {
		v := h.view(name)
		v.note(key{service, id}, h.size(v))
		h.prune(v)
	}
}

// note keeps the name of a change.
func (h *Hub) note(e event) {
	switch {
	case h.remember == 0:
	case len(h.past) < h.remember:
		h.past = append(h.past, e)
	default:
		h.past[h.next] = e
		h.next = (h.next + 1) % len(h.past)
	}
}

// after gives what changed of a service, or of all, after a revision, in order and each once; false where that is not known.
func (h *Hub) after(service string, revision uint64) ([]key, bool) {
	oldest := h.revision // before the first that is known
	if len(h.past) > 0 {
		oldest = h.past[h.next].revision - 1 // next is 0 where the ring is not full
	}
	if revision < oldest || revision > h.revision {
		return nil, false
	}
	keys := []key{}
	for i := len(h.past) - int(h.revision-revision); i < len(h.past); i++ { // each revision has one
		if e := h.past[(h.next+i)%len(h.past)]; service == "" || e.service == service {
			keys = append(keys, e.key)
		}
	}
	return sorted(keys), true
}

// view gives the view of a service, or of all.
func (h *Hub) view(service string) *view {
	v := h.views[service]
	if v == nil {
		v = &view{service: service, ids: map[string]struct{}{}}
		h.views[service] = v
	}
	return v
}

// size is how many nodes a view has.
func (h *Hub) size(v *view) int {
	if v.service == "" {
		return len(h.nodes)
	}
	return len(v.ids)
}

// prune forgets a view that has neither nodes nor readers.
func (h *Hub) prune(v *view) {
	if h.size(v) == 0 && len(v.readers) == 0 {
		delete(h.views, v.service)
	}
}

func (h *Hub) learn() {
	if h.known {
		return
	}
	h.known = true
	h.wakeAll()
}

func (h *Hub) mend() {
	if h.err == nil {
		return
	}
	h.err = nil
	h.wakeAll()
}

func (h *Hub) wakeAll() {
	for _, v := range h.views {
		for r := range v.readers {
			r.signal()
		}
	}
}

// all gives the ids of a view's nodes, in no order.
func (h *Hub) all(v *view) []string {
	if v.service == "" {
		return slices.Collect(maps.Keys(h.nodes))
	}
	return slices.Collect(maps.Keys(v.ids))
}
