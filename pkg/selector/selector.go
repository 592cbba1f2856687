// Package selector is load balancing: it takes one of a service's nodes for a call.
//
// [New] keeps the sets of nodes that a registry's Watch yields, and goes on with the last one while the registry is
// away. A [Strategy] chooses; [Filter]s narrow the choice by version, label or endpoint.
package selector

import (
	"context"
	"errors"
	"io"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Errors of selection, to be asked for with [errors.Is].
var (
	// ErrNotFound: the registry knows no node of the service.
	ErrNotFound = errors.New("selector: service not found")
	// ErrNoneMatch: the service has nodes, but the filters leave none.
	ErrNoneMatch = errors.New("selector: no node matches")
	// ErrExhausted: each node that matches is in Query.Avoid.
	ErrExhausted = errors.New("selector: every node was tried")
	// ErrUnavailable: the registry cannot be reached, and nothing is known from before.
	ErrUnavailable = errors.New("selector: registry unavailable")
	// ErrClosed: the selector was closed.
	ErrClosed = errors.New("selector: closed")
)

// Query says what a call wants of its node.
type Query struct {
	// Service is the service's name.
	Service string
	// Key is what ConsistentHash hashes; other strategies ignore it.
	Key string
	// Node is the id of the only node that will do; empty: any. It finds among many at once, where the filter ID would
	// have to look at each.
	Node string
	// Filters must all hold for the node. They are asked about nodes as they are drawn: about k times where one node in k
	// matches.
	Filters []Filter
	// Avoid are ids of nodes that this call has tried in vain.
	Avoid []string
}

// Selector takes nodes for calls. Its methods may be called concurrently.
type Selector interface {
	// Select takes a node. The caller reports the outcome through done exactly once, when the call has ended: nil, or
	// the error of the transport or of the node. Without done the node counts as busy for ever. A node whose port cannot be
	// reached, that answers as another service (status.Misdirected) or that turns calls away (status.Unavailable) counts as
	// failing; one that answers anything else does not, nor does one whose caller gave up or ran out of time. The first Select of a
	// service waits until the registry has answered once, or until ctx ends.
	Select(ctx context.Context, q Query) (n registry.Node, done func(error), err error)
	io.Closer
}

// Filter reports whether a call may go to n. It must not change n.
type Filter func(n registry.Node) bool

// Version keeps nodes of one version.
func Version(v string) Filter {
	return func(n registry.Node) bool { return n.Version == v }
}

// Label keeps nodes whose metadata has key with that value.
func Label(key, value string) Filter {
	return func(n registry.Node) bool { return n.Metadata[key] == value && value != "" }
}

// Endpoint keeps nodes that serve the endpoint. A node whose record carries no endpoints is kept: it may serve it.
func Endpoint(name string) Filter {
	return func(n registry.Node) bool {
		for _, e := range n.Endpoints {
			if e.Name == name {
				return true
			}
		}
		return len(n.Endpoints) == 0
	}
}

// ID keeps the node with that id.
func ID(id string) Filter {
	return func(n registry.Node) bool { return n.ID == id }
}
