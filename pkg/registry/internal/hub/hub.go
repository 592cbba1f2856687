// Package hub holds a set of nodes in memory and tells watchers of its changes. It is the part of a registry that most
// backends share: memory and local put what they find into it, and their Get, List and Watch read it.
//
//	h := hub.New()              // the set is known, and empty
//	h := hub.NewPending()       // the set is not known yet: watches wait for the first Replace or Fail
//
//	h.Put(node)                 // adds or changes one node, by its id; reports whether anything changed
//	h.Remove(id)                // takes one away; reports whether it was there
//	h.Apply(nodes, ids)         // several of both as one change
//	h.Replace(nodes)            // the whole set as a poll found it; wakes only watchers of services that changed
//	h.Fail(err)                 // the set is not known now: each watch yields err once, and goes on with the next Replace
//
//	h.Get(service)              // sorted by id; ErrNotFound
//	h.List()                    // sorted by service and id
//	h.Lookup(id)                // one node
//	h.Watch(ctx, service)       // as registry.Finder says; a slow reader misses sets, and holds up nobody
//	h.Snapshot(service)         // as Get or List, with the number of changes that led to it
//	h.Subscribe(service)        // a channel that tells of changes, for a caller with a select statement of its own
//	h.Close()                   // ends the watches
//
// A hub keeps one node for each id. It copies the nodes that it takes; those it gives share their maps and are only read,
// in a slice of the caller's own. It knows nothing of leases and starts no goroutine. All methods may be called
// concurrently.
package hub

import (
	"context"
	"fmt"
	"iter"
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
	err      error                               // of Fail, until Replace
	service  map[string]string                   // node id to service
	nodes    map[string]map[string]registry.Node // service to id to node
	sorted   map[string][]registry.Node          // service to its nodes in order; made when asked for, never changed
	all      []registry.Node                     // as sorted, for all services
	watchers map[string]map[*watcher]struct{}    // service, or "" for all
	revision uint64
	closed   bool
}

// watcher is one running watch. Its fields are under the hub's lock.
type watcher struct {
	wake   chan struct{} // of one element: there is something to look at
	dirty  bool          // the set changed since it was last taken
	failed bool          // the hub's error was taken
}

// New makes a hub whose set is known and empty.
func New() *Hub {
	h := NewPending()
	h.known = true
	return h
}

// NewPending makes a hub whose set is not known: watches yield nothing before the first Put, Replace or Fail.
func NewPending() *Hub {
	return &Hub{
		done:     make(chan struct{}),
		service:  map[string]string{},
		nodes:    map[string]map[string]registry.Node{},
		sorted:   map[string][]registry.Node{},
		watchers: map[string]map[*watcher]struct{}{},
	}
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
	return h.put(n)
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
		if _, ok := h.service[id]; ok {
			h.drop(id)
		}
	}
	for _, n := range put {
		h.put(n)
	}
}

// Remove takes the node with that id away, and reports whether it was there.
func (h *Hub) Remove(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.service[id]; !ok || h.closed {
		return false
	}
	h.drop(id)
	return true
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
	for _, n := range nodes {
		if _, twice := seen[n.ID]; twice {
			continue
		}
		seen[n.ID] = struct{}{}
		h.put(n)
	}
	for _, id := range slices.Collect(maps.Keys(h.service)) {
		if _, ok := seen[id]; !ok {
			h.drop(id)
		}
	}
	h.learn()
	h.mend()
}

// Fail says that the set is not known for now, though Get and List go on giving the last one. Each watch yields err
// once; it goes on with the next Replace. A second Fail in a row wakes nobody who saw the first.
func (h *Hub) Fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || err == nil {
		return
	}
	h.err = err
	for _, ws := range h.watchers {
		for w := range ws {
			if !w.failed {
				w.signal()
			}
		}
	}
}

// Get gives the nodes of a service by id, and an error that wraps ErrNotFound where there is none.
func (h *Hub) Get(service string) ([]registry.Node, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.nodes[service]) == 0 {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	return slices.Clone(h.snapshot(service)), nil
}

// List gives all nodes, in the order of registry.Sort; never nil.
func (h *Hub) List() []registry.Node {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]registry.Node{}, h.snapshot("")...)
}

// Snapshot gives the nodes of a service, or of all for the empty name, and the hub's revision, which grows with each
// change of any node.
func (h *Hub) Snapshot(service string) ([]registry.Node, uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]registry.Node{}, h.snapshot(service)...), h.revision
}

// Revision grows with each change of any node.
func (h *Hub) Revision() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.revision
}

// Len is how many nodes there are.
func (h *Hub) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.service)
}

// Lookup gives the node with that id.
func (h *Hub) Lookup(id string) (registry.Node, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, ok := h.nodes[h.service[id]][id]
	return n, ok
}

// Watch does what registry.Finder says of it: the present set, then each change, the last one always. It ends with ctx,
// the loop or Close.
func (h *Hub) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return func(yield func([]registry.Node, error) bool) {
		w := &watcher{wake: make(chan struct{}, 1), dirty: true}
		h.join(service, w)
		defer h.leave(service, w)
		for {
			select {
			case <-ctx.Done():
				return
			case <-h.done:
				return
			case <-w.wake:
			}
			if ctx.Err() != nil { // both were ready
				return
			}
			if nodes, ok, err := h.take(service, w); ok && !yield(nodes, err) {
				return
			}
		}
	}
}

// Subscribe gives a channel that has an element whenever the nodes of a service, or of all, may have changed since the
// last element was taken; it has one at once. The channel is never closed. stop ends the subscription.
func (h *Hub) Subscribe(service string) (changes <-chan struct{}, stop func()) {
	w := &watcher{wake: make(chan struct{}, 1), dirty: true}
	h.join(service, w)
	return w.wake, func() { h.leave(service, w) }
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

func (h *Hub) join(service string, w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers[service] == nil {
		h.watchers[service] = map[*watcher]struct{}{}
	}
	h.watchers[service][w] = struct{}{}
	w.signal()
}

func (h *Hub) leave(service string, w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers[service], w)
	if len(h.watchers[service]) == 0 {
		delete(h.watchers, service)
	}
}

// take gives what w has to yield now, if anything.
func (h *Hub) take(service string, w *watcher) (nodes []registry.Node, ok bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, false, nil
	case h.err != nil:
		first := !w.failed
		w.failed = true
		return nil, first, h.err
	case h.known && (w.dirty || w.failed):
		w.dirty, w.failed = false, false
		return append([]registry.Node{}, h.snapshot(service)...), true, nil
	}
	return nil, false, nil
}

// The rest is called with the lock held.

func (h *Hub) put(n registry.Node) bool {
	service, ok := h.service[n.ID]
	switch {
	case ok && service == n.Service && h.nodes[service][n.ID].Equal(n):
		return false
	case ok && service != n.Service:
		h.drop(n.ID)
	}
	h.add(n)
	return true
}

func (h *Hub) add(n registry.Node) {
	if h.nodes[n.Service] == nil {
		h.nodes[n.Service] = map[string]registry.Node{}
	}
	h.service[n.ID] = n.Service
	h.nodes[n.Service][n.ID] = n.Clone()
	h.changed(n.Service)
}

func (h *Hub) drop(id string) {
	service := h.service[id]
	delete(h.service, id)
	delete(h.nodes[service], id)
	if len(h.nodes[service]) == 0 {
		delete(h.nodes, service)
	}
	h.changed(service)
}

func (h *Hub) changed(service string) {
	h.revision++
	h.all = nil
	delete(h.sorted, service)
	for _, name := range []string{service, ""} {
		for w := range h.watchers[name] {
			w.dirty = true
			w.signal()
		}
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
	for _, ws := range h.watchers {
		for w := range ws {
			w.signal()
		}
	}
}

func (h *Hub) snapshot(service string) []registry.Node {
	if service == "" {
		if h.all == nil {
			h.all = make([]registry.Node, 0, len(h.service))
			for _, nodes := range h.nodes {
				h.all = slices.AppendSeq(h.all, maps.Values(nodes))
			}
			registry.Sort(h.all)
		}
		return h.all
	}
	nodes, ok := h.sorted[service]
	if !ok && len(h.nodes[service]) > 0 {
		nodes = slices.Collect(maps.Values(h.nodes[service]))
		registry.Sort(nodes)
		h.sorted[service] = nodes
	}
	return nodes
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
