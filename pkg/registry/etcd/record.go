package etcd

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cb02dfca/micro/pkg/registry"
)

// record is the value of a key, as go-micro's registries write it: a service with one node.
type record struct {
	Name      string              `json:"name"`
	Version   string              `json:"version"`
	Metadata  map[string]string   `json:"metadata"`
	Endpoints []registry.Endpoint `json:"endpoints"`
	Nodes     []recordNode        `json:"nodes"`
}

type recordNode struct {
	ID       string            `json:"id"`
	Address  string            `json:"address"`
	Metadata map[string]string `json:"metadata"`
}

// servicePrefix is what the keys of a service's nodes begin with.
func servicePrefix(prefix, service string) string { return prefix + service + "/" }

// keyOf is where a node stands.
func keyOf(prefix, service, id string) string {
	return servicePrefix(prefix, service) + strings.ReplaceAll(id, "/", "-")
}

// encode validates n and gives its record. The error wraps registry.ErrInvalid.
func encode(n registry.Node) (string, error) {
	if err := registry.Validate(n); err != nil {
		return "", err
	}
	r := record{
		Name: n.Service, Version: n.Version, Metadata: map[string]string{}, Endpoints: n.Endpoints,
		Nodes: []recordNode{{ID: n.ID, Address: n.Address, Metadata: n.Metadata}},
	}
	if r.Endpoints == nil {
		r.Endpoints = []registry.Endpoint{}
	}
	if n.Metadata == nil {
		r.Nodes[0].Metadata = map[string]string{} // go-micro writes into the map that it reads
	}
	value, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("%w: %w", registry.ErrInvalid, err)
	}
	if len(value) > registry.MaxRecord {
		return "", fmt.Errorf("%w: the record of %s has %d bytes, limit %d", registry.ErrInvalid, n.ID, len(value), registry.MaxRecord)
	}
	return string(value), nil
}

// decode reads the record that stands under a key. The error wraps registry.ErrInvalid.
func decode(prefix, key string, value []byte) (registry.Node, error) {
	if len(value) > registry.MaxRecord {
		return registry.Node{}, fmt.Errorf("%w: the record has %d bytes, limit %d", registry.ErrInvalid, len(value), registry.MaxRecord)
	}
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return registry.Node{}, fmt.Errorf("%w: the record is not a service: %w", registry.ErrInvalid, err)
	}
	if len(r.Nodes) != 1 {
		return registry.Node{}, fmt.Errorf("%w: the record has %d nodes, want one", registry.ErrInvalid, len(r.Nodes))
	}
	n := registry.Node{
		ID: r.Nodes[0].ID, Service: r.Name, Version: r.Version, Address: r.Nodes[0].Address,
		Metadata: r.Nodes[0].Metadata, Endpoints: r.Endpoints,
	}
	if len(r.Metadata) > 0 {
		maps.Copy(r.Metadata, n.Metadata)
		n.Metadata = r.Metadata
	}
	if err := registry.Validate(n); err != nil {
		return registry.Node{}, err
	}
	if keyOf(prefix, n.Service, n.ID) != key {
		return registry.Node{}, fmt.Errorf("%w: node %s of %s stands under another key", registry.ErrInvalid, n.ID, n.Service)
	}
	return n, nil
}

// table is what stands below a prefix, by key.
type table struct {
	nodes map[string]registry.Node
	keys  map[string][]string // by node id, sorted: an id may stand below several services
}

func newTable() *table {
	return &table{nodes: map[string]registry.Node{}, keys: map[string][]string{}}
}

// put takes n in. A key has one id, whatever it holds.
func (t *table) put(key string, n registry.Node) {
	t.drop(key)
	t.nodes[key] = n
	keys := t.keys[n.ID]
	at, _ := slices.BinarySearch(keys, key)
	t.keys[n.ID] = slices.Insert(keys, at, key)
}

// drop takes what stands under a key away, and gives its id; empty where nothing does.
func (t *table) drop(key string) string {
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

// node gives the node with an id: of several, the one with the first key.
func (t *table) node(id string) (registry.Node, bool) {
	if keys := t.keys[id]; len(keys) > 0 {
		return t.nodes[keys[0]], true
	}
	return registry.Node{}, false
}

// all gives the nodes, one for each id, sorted; never nil.
func (t *table) all() []registry.Node {
	nodes := make([]registry.Node, 0, len(t.keys))
	for _, keys := range t.keys {
		nodes = append(nodes, t.nodes[keys[0]])
	}
	registry.Sort(nodes)
	return nodes
}
