// Package registry is service discovery: who runs which service, and where.
//
// The backends stand in the folders below. All pass the suite of package registrytest.
package registry

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/cb02dfca/micro/internal/opener"
)

// Node is one running copy of a service.
//
// A node that a registry hands out is shared: its maps and slices are read, never changed.
type Node struct {
	// ID names the copy, and is unique among all nodes of all services: "greeter-7f3a91c2". It may hold '/'.
	ID string `json:"id"`
	// Service is the name that callers ask for.
	Service string `json:"service"`
	// Version is the service's version; nodes of several versions stand side by side.
	Version string `json:"version,omitempty"`
	// Address is host:port, or what else the node's transport dials.
	Address string `json:"address"`
	// Metadata are labels: "protocol", "zone". The keys in MetaKeys have a meaning to the framework.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Endpoints is what the node serves. It is nil where the backend cannot carry them, or left them out for their
	// size: ask the node itself.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// Metadata keys that the framework gives a meaning to.
const (
	MetaProtocol  = "protocol"  // "mucp": HTTP as go-micro speaks it; "grpc"
	MetaTransport = "transport" // the transport's scheme: "http", "nats"
	MetaUpgrade   = "upgrade"   // "micro": the node takes the Upgrade to frames
	MetaBroker    = "broker"    // "http": a subscriber of the HTTP broker, whose topic is under MetaTopic
	MetaTopic     = "topic"     // the topic that a subscriber's node takes
	MetaStarted   = "started"   // when the node started, RFC 3339
	MetaHidden    = "hidden"    // "true": listings leave the node out unless asked

	// MetaRegistered is in the copies of a node that stands in several registries by package multi, which takes it off again: since when it
	// stands in them as it does, RFC 3339.
	MetaRegistered = "registered"

	// MetaIdempotent names the node's idempotent endpoints, comma-separated. It stands in the metadata, which every
	// backend carries, so that a client knows before a call fails whether it may be sent again.
	MetaIdempotent = "idempotent"
)

// BrokerService is the name under which the HTTP broker's subscribers stand in a registry, as go-micro's do.
const BrokerService = "micro.http.broker"

// BrokerServiceV1 is the same in go-micro v1. A subscriber of ours stands under it, too, for v1's publishers, by a record that has MetaHidden,
// since it says nothing that the record under BrokerService does not.
const BrokerServiceV1 = "go.micro.http.broker"

// Endpoint is one thing that a node serves.
type Endpoint struct {
	Name     string            `json:"name"` // "Say.Hello"
	Request  *Value            `json:"request,omitempty"`
	Response *Value            `json:"response,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"` // "stream": "true" for streams
}

// Value is a type as go-micro's registry records describe it: a name, a type, and the fields below.
type Value struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	Values []*Value `json:"values"`
}

// Equal reports whether two nodes are the same in every field.
func (n Node) Equal(m Node) bool {
	return n.ID == m.ID && n.Service == m.Service && n.Version == m.Version && n.Address == m.Address &&
		maps.Equal(n.Metadata, m.Metadata) && slices.EqualFunc(n.Endpoints, m.Endpoints, equalEndpoint)
}

func equalEndpoint(a, b Endpoint) bool {
	return a.Name == b.Name && maps.Equal(a.Metadata, b.Metadata) && equalValue(a.Request, b.Request) && equalValue(a.Response, b.Response)
}

func equalValue(a, b *Value) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && a.Type == b.Type && slices.EqualFunc(a.Values, b.Values, equalValue)
}

// Clone gives a copy of n that shares no map and no slice with it; values of endpoints, which nobody changes, are shared.
func (n Node) Clone() Node {
	n.Metadata = maps.Clone(n.Metadata)
	n.Endpoints = slices.Clone(n.Endpoints)
	for i := range n.Endpoints {
		n.Endpoints[i].Metadata = maps.Clone(n.Endpoints[i].Metadata)
	}
	return n
}

// Sort orders nodes by service, then id: the order in which every Finder gives them.
func Sort(nodes []Node) {
	// Not slices.SortFunc: made for a struct of this size it weighs 20 KB in every service's binary.
	sort.Slice(nodes, func(i, j int) bool {
		a, b := &nodes[i], &nodes[j]
		if a.Service != b.Service {
			return a.Service < b.Service
		}
		return a.ID < b.ID
	})
}

// Errors of registries, to be asked for with [errors.Is].
var (
	// ErrNotFound: no node of the service is known.
	ErrNotFound = errors.New("registry: service not found")
	// ErrInvalid: the node cannot be announced; the error says which field and why.
	ErrInvalid = errors.New("registry: invalid node")
	// ErrUnavailable: the registry itself cannot be reached. What was known before may still be used.
	ErrUnavailable = errors.New("registry: unavailable")
	// ErrConflict: another live owner holds the node's id.
	ErrConflict = errors.New("registry: node id is taken")
	// ErrClosed: the registry was closed.
	ErrClosed = errors.New("registry: closed")
)

// Registrar announces nodes.
type Registrar interface {
	// Register announces n, or renews it, or changes what is known of it. It lapses after ttl unless it is registered
	// again; a ttl of zero holds until Deregister or Close. n is copied. The error wraps ErrInvalid, ErrConflict,
	// ErrUnavailable, ErrClosed or ctx's own; a server that refuses for another reason, as without its token, has an error
	// that its backend tells of.
	Register(ctx context.Context, n Node, ttl time.Duration) error
	// Deregister takes the node with n's service and id away. To remove what is not there is no error.
	Deregister(ctx context.Context, n Node) error
}

// Finder finds nodes.
type Finder interface {
	// Get gives the nodes of a service, sorted by id; ErrNotFound where there is none.
	Get(ctx context.Context, service string) ([]Node, error)
	// List gives the nodes of all services as the registry holds them, sorted as by Sort; it dials no node. None is
	// an empty list, and no error.
	List(ctx context.Context) ([]Node, error)
	// Watch yields the whole set of a service's nodes: first as it is now, empty where there is none, and then after
	// each change. The empty name watches all services. Sets may be skipped where changes come faster than they are
	// read; the last one never is. An error does not end the watch: the set is not known for a while, and the next
	// good set follows. The watch ends, without an error, with ctx, with the loop, or with Close. A set that is yielded
	// may be shared with other watches, and is only read. [WatchChanges] is cheaper where sets are large.
	Watch(ctx context.Context, service string) iter.Seq2[[]Node, error]
}

// Registry is both, and is closed by whoever opened it. Close withdraws the nodes that were registered through it,
// ends its watches, and is safe to call twice. All methods may be called concurrently.
type Registry interface {
	Registrar
	Finder
	io.Closer
}

// Opener opens a registry by URL.
type Opener = opener.Func[Registry]

// Openers maps URL schemes to registries.
type Openers = opener.Set[Registry]

// Hoster is what a Registry offers whose nodes are found from other machines: Host is the address of this machine under
// which they reach it, and so what a service binds by default. Without it, and where ok is false, that is loopback.
type Hoster interface {
	Host() (host string, ok bool)
}

// Evictor is what a Registry offers that can take away a node of another owner, for operators. An owner that still runs may put it again. The
// error wraps ErrConflict where the registry leaves that to the owner.
type Evictor interface {
	Evict(ctx context.Context, service, id string) error
}

// Placer is what a Registry offers that can register a node for nobody: it stays for its ttl, when the Registry is closed too, and gives way
// to whoever registers its id.
type Placer interface {
	Place(ctx context.Context, n Node, ttl time.Duration) error
}
