package etcd

import (
	"fmt"
	"strings"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// servicePrefix is what the keys of a service's nodes begin with.
func servicePrefix(prefix, service string) string { return prefix + service + "/" }

// keyOf is where a node stands.
func keyOf(prefix, service, id string) string {
	return servicePrefix(prefix, service) + strings.ReplaceAll(id, "/", "-")
}

// decode reads the record that stands under a key. The error wraps registry.ErrInvalid.
func decode(prefix, key string, value []byte) (registry.Node, error) {
	n, err := record.Decode(value)
	if err != nil {
		return registry.Node{}, err
	}
	if keyOf(prefix, n.Service, n.ID) != key {
		return registry.Node{}, fmt.Errorf("%w: node %s of %s stands under another key", registry.ErrInvalid, n.ID, n.Service)
	}
	return n, nil
}
