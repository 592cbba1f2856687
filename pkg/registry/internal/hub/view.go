package hub

import (
	"slices"
	"sort"

	"github.com/cb02dfca/micro/pkg/registry"
)

// view is the nodes of a service, or of all, in order, with the changes that led to them. It is under the hub's lock.
type view struct {
	service string
	ids     map[string]struct{} // of the service's nodes; not kept for all
	readers map[*Reader]struct{}

	// log names what changed, oldest first, and begin is the number of changes before its first. It is kept while
	// somebody may read it, and is cut where reading it would be no cheaper than the whole set.
	log   []key
	begin uint64

	sorted []registry.Node // as of the change number at; shared, so never changed; nil before it is asked for
	at     uint64
}

// key names a node in the order of registry.Sort.
type key struct{ service, id string }

func (k key) before(l key) bool {
	return k.service < l.service || k.service == l.service && k.id < l.id
}

func keyOf(n *registry.Node) key { return key{n.Service, n.ID} }

// end is the number of changes so far.
func (v *view) end() uint64 { return v.begin + uint64(len(v.log)) }

// note takes in that a node changed, in a view of so many.
func (v *view) note(k key, size int) {
	switch {
	case len(v.readers) == 0 && v.sorted == nil:
		v.begin++
		return
	case len(v.log) >= 64+size/4:
		half := len(v.log) / 2
		v.begin += uint64(half)
		v.log = slices.Delete(v.log, 0, half) // which clears what it leaves
		if v.at < v.begin {
			v.sorted = nil
		}
	}
	v.log = append(v.log, k)
	for r := range v.readers {
		r.signal()
	}
}

// since gives what changed after the change number at, in order and each once; false where that is not known.
func (v *view) since(at uint64) ([]key, bool) {
	if at < v.begin {
		return nil, false
	}
	return sorted(slices.Clone(v.log[at-v.begin:])), true
}

// sorted sorts keys where they are, and leaves each once.
func sorted(keys []key) []key {
	if len(keys) > 1 {
		sort.Slice(keys, func(i, j int) bool { return keys[i].before(keys[j]) })
		keys = slices.Compact(keys)
	}
	return keys
}

// at gives the node that stands under a key, nil where none does.
func (h *Hub) at(k key) *registry.Node {
	if n := h.nodes[k.id]; n != nil && n.Service == k.service {
		return n
	}
	return nil
}

// change gives what is new after the change number at.
func (v *view) change(h *Hub, at uint64) registry.Change {
	keys, ok := v.since(at)
	if !ok {
		return registry.Change{Reset: true, Put: v.snapshot(h)}
	}
	return v.told(h, keys)
}

// told gives what became of nodes that changed.
func (v *view) told(h *Hub, keys []key) registry.Change {
	var c registry.Change
	for _, k := range keys {
		switch n := h.at(k); {
		case n != nil:
			c.Put = append(c.Put, *n)
		case v.service != "" || h.nodes[k.id] == nil: // else it went over to another service, which is in keys as well
			c.Gone = append(c.Gone, k.id)
		}
	}
	if v.service == "" { // an id may have been of two services
		slices.Sort(c.Gone)
		c.Gone = slices.Compact(c.Gone)
	}
	return c
}

// snapshot gives the whole set, never nil.
func (v *view) snapshot(h *Hub) []registry.Node {
	if v.sorted != nil && v.at == v.end() {
		return v.sorted
	}
	keys, ok := v.since(v.at)
	if v.sorted == nil || !ok {
		v.sorted = v.collect(h)
	} else {
		v.sorted = v.merge(h, keys)
	}
	v.at = v.end()
	return v.sorted
}

// collect makes the set from nothing.
func (v *view) collect(h *Hub) []registry.Node {
	nodes := make([]registry.Node, 0, h.size(v))
	for _, id := range h.all(v) {
		nodes = append(nodes, *h.nodes[id])
	}
	registry.Sort(nodes)
	return nodes
}

// merge makes the set from the last one.
func (v *view) merge(h *Hub, changed []key) []registry.Node {
	old, nodes := v.sorted, make([]registry.Node, 0, h.size(v))
	for _, k := range changed {
		i := sort.Search(len(old), func(i int) bool { return !keyOf(&old[i]).before(k) })
		nodes = append(nodes, old[:i]...)
		if i < len(old) && keyOf(&old[i]) == k {
			i++
		}
		old = old[i:]
		if n := h.at(k); n != nil {
			nodes = append(nodes, *n)
		}
	}
	return append(nodes, old...)
}
