// Package record is a node as go-micro's registries write it: the JSON of a service with that one node. The registries on etcd,
// ZooKeeper and NATS have it in common, with go-micro's and with each other.
package record

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/cb02dfca/micro/pkg/registry"
)

// maxAll is how many bytes a record of several nodes may have.
const maxAll = 16 * registry.MaxRecord

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

// Encode validates n and gives its record. The error wraps registry.ErrInvalid.
func Encode(n registry.Node) (string, error) {
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

// Decode reads a record, and validates its node, whose metadata the service's adds to. The error wraps registry.ErrInvalid.
func Decode(value []byte) (registry.Node, error) {
	if len(value) > registry.MaxRecord {
		return registry.Node{}, fmt.Errorf("%w: the record has %d bytes, limit %d", registry.ErrInvalid, len(value), registry.MaxRecord)
	}
	r, err := parse(value)
	if err != nil {
		return registry.Node{}, err
	}
	if len(r.Nodes) != 1 {
		return registry.Node{}, fmt.Errorf("%w: the record has %d nodes, want one", registry.ErrInvalid, len(r.Nodes))
	}
	return r.node(0)
}

// DecodeAll reads a record of any number of nodes, as go-micro's processes tell of themselves, and gives those that are valid. The
// error is that of the first which is not, and wraps registry.ErrInvalid. The nodes share maps.
func DecodeAll(value []byte) (nodes []registry.Node, err error) {
	if len(value) > maxAll {
		return nil, fmt.Errorf("%w: the record has %d bytes, limit %d", registry.ErrInvalid, len(value), maxAll)
	}
	r, err := parse(value)
	if err != nil {
		return nil, err
	}
	for i := range r.Nodes {
		n, invalid := r.node(i)
		if invalid != nil {
			err = cmp.Or(err, invalid)
			continue
		}
		nodes = append(nodes, n)
	}
	return nodes, err
}

func parse(value []byte) (*record, error) {
	r := new(record)
	if err := json.Unmarshal(value, r); err != nil {
		return nil, fmt.Errorf("%w: the record is not a service: %w", registry.ErrInvalid, err)
	}
	return r, nil
}

// node gives one of the record's nodes.
func (r *record) node(i int) (registry.Node, error) {
	n := registry.Node{
		ID: r.Nodes[i].ID, Service: r.Name, Version: r.Version, Address: r.Nodes[i].Address,
		Metadata: r.Nodes[i].Metadata, Endpoints: r.Endpoints,
	}
	if len(r.Metadata) > 0 {
		n.Metadata = maps.Clone(r.Metadata)
		maps.Copy(n.Metadata, r.Nodes[i].Metadata)
	}
	if err := registry.Validate(n); err != nil {
		return registry.Node{}, err
	}
	return n, nil
}
