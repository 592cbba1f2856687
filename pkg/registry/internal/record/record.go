// Package record is a node as go-micro's registries write it: the JSON of a service with that one node. The registries on etcd,
// ZooKeeper and NATS have it in common, with go-micro's and with each other.
package record

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/cb02dfca/micro/pkg/registry"
)

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
	return n, nil
}
