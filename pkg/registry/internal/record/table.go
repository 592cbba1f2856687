package record

import (
	"slices"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Table is what stands below a prefix, by key. It is not for concurrent use.
type Table struct {
	nodes map[string]registry.Node
	keys  map[string][]string // by node id, sorted: an id may stand below several services
}

// NewTable gives an empty one.
func NewTable() *Table {
	return &Table{nodes: map[string]registry.Node{}, keys: map[string][]string{}}
}

// Put takes n in. A key has one id, whatever it holds.
func (t *Table) Put(key string, n registry.Node) {
	t.Drop(key)
	t.nodes[key] = n
	keys := t.keys[n.ID]
	at, _ := slices.BinarySearch(keys, key)
	t.keys[n.ID] = slices.Insert(keys, at, key)
}

// Drop takes what stands under a key away, and gives its id; empty where nothing does.
func (t *Table) Drop(key string) string {
	n, ok := t.nodes[key]
	if !ok {
		return ""
	}
	delete(t.nodes, key)
	left := slices.DeleteFunc(t.keys[n.ID], func(k string) bool { return k == key })
	if t.keys[n.ID] = left; len(left) == 0 {
		delete(t.keys, n.ID)
	}
	return n.ID
}

// At gives the node that stands under a key.
func (t *Table) At(key string) (registry.Node, bool) {
	n, ok := t.nodes[key]
	return n, ok
}

// Node gives the node with an id: of several, the one with the first key.
func (t *Table) Node(id string) (registry.Node, bool) {
	if keys := t.keys[id]; len(keys) > 0 {
		return t.nodes[keys[0]], true
	}
	return registry.Node{}, false
}

// All gives the nodes, one for each id, sorted; never nil.
func (t *Table) All() []registry.Node {
	nodes := make([]registry.Node, 0, len(t.keys))
	for _, keys := range t.keys {
		nodes = append(nodes, t.nodes[keys[0]])
	}
	registry.Sort(nodes)
	return nodes
}

// Changes gives what the nodes with some ids are now, of which each may be named several times: those that are here, and the ids
// of those that are not. Empty ones are left out.
func (t *Table) Changes(ids []string) (put []registry.Node, gone []string) {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		switch n, ok := t.Node(id); {
		case ok:
			put = append(put, n)
		case id != "":
			gone = append(gone, id)
		}
	}
	return put, gone
}
