package zookeeper

import (
	"fmt"
	"strings"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// servicePath is where a service's nodes stand.
func servicePath(prefix, service string) string { return prefix + "/" + service }

// pathOf is where a node stands.
func pathOf(prefix, service, id string) string {
	return servicePath(prefix, service) + "/" + strings.ReplaceAll(id, "/", "-")
}

// decode reads the record that stands at a path. The error wraps registry.ErrInvalid.
func decode(prefix, at string, value []byte) (registry.Node, error) {
	n, err := record.Decode(value)
	if err != nil {
		return registry.Node{}, err
	}
	if pathOf(prefix, n.Service, n.ID) != at {
		return registry.Node{}, fmt.Errorf("%w: node %s of %s stands at another path", registry.ErrInvalid, n.ID, n.Service)
	}
	return n, nil
}
