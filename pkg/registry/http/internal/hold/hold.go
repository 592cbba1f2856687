// Package hold keeps the nodes of a registry server: in memory, in a file too, or in another registry.
package hold

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/store"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	leases "github.com/cb02dfca/micro/pkg/registry/internal/lease"
)

// history is how many changes a server remembers, for watches that come back.
const history = 8192

// Owner is who holds a node: the hash of a lease's secret; zero for nobody.
type Owner [sha256.Size]byte

// Options of New, as the server's say.
type Options struct {
	Data         string
	Registry     registry.Registry
	RegistryName string
	MaxNodes     int
	MaxService   int
	Logger       *slog.Logger
}

// Holder keeps the nodes of a server. Its methods may be called concurrently.
type Holder interface {
	// Register adds, changes or renews a node. Deregister and Release take an owner's away, Evict whosever it is. Guest adds or changes
	// one that gives way to any owner. An empty service stands for that of the node.
	Register(ctx context.Context, o Owner, n registry.Node, ttl time.Duration) error
	Guest(ctx context.Context, o Owner, n registry.Node) error
	Deregister(ctx context.Context, o Owner, service, id string) error
	Evict(ctx context.Context, service, id string) error
	Release(ctx context.Context, o Owner) error
	// Nodes is the set, to be read.
	Nodes() *hub.Hub
	// Epoch names the set's life. Kept reports whether the set was there before the server.
	Epoch() string
	Kept() bool
	// State is empty where all is well, else a word for Health. Err tells why, once Failed is closed: nothing will be well again.
	State() string
	Failed() <-chan struct{}
	Err() error
	Close() error
}

type leased = leases.Table[Owner]

// Table is a Holder in memory, and with a file where it has one. It can renew a node without more ado.
type Table struct {
	*leased
	epoch string
	file  *store.Store // nil: none
}

// New opens what o names.
func New(o Options) (Holder, error) {
	limits := leases.Limits{Nodes: o.MaxNodes, Service: o.MaxService}
	if o.Registry != nil {
		f, err := newFront(o)
		if err != nil {
			return nil, err // not a Holder that holds a nil *front
		}
		return f, nil
	}
	if o.Data == "" {
		return &Table{leased: leases.NewDurable[Owner](limits, nil, hub.New().Remembering(history, 0)), epoch: wire.Random(wire.EpochBytes)}, nil
	}
	file, records, err := store.Open(store.Options{Dir: o.Data, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	t := &Table{epoch: file.Epoch(), file: file}
	t.leased = leases.NewDurable[Owner](limits, journal{file}, hub.New().Remembering(history, file.FirstRevision()))
	for _, r := range records {
		n, err := wire.ParseNode(r.Node)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("registry: %s: the record of %.100q: %w", file.Path(), r.ID, err), t.Close())
		}
		t.Restore(leases.Entry[Owner]{Owner: r.Owner, Node: n, TTL: r.TTL})
	}
	if !file.Fresh() {
		o.Logger.Info("registry server has the nodes of before", "file", file.Path(), "nodes", len(records))
	}
	return t, nil
}

// Register is of Holder.
func (t *Table) Register(_ context.Context, o Owner, n registry.Node, ttl time.Duration) error {
	return t.leased.Register(o, n, ttl)
}

// Guest is of Holder.
func (t *Table) Guest(_ context.Context, o Owner, n registry.Node) error { return t.leased.Guest(o, n) }

// Deregister is of Holder.
func (t *Table) Deregister(_ context.Context, o Owner, service, id string) error {
	return t.leased.Deregister(o, t.service(service, id), id)
}

// Evict is of Holder.
func (t *Table) Evict(_ context.Context, service, id string) error {
	return t.leased.Evict(t.service(service, id), id)
}

// service gives that of a node, if it is not named.
func (t *Table) service(name, id string) string {
	if n, ok := t.Nodes().Lookup(id); ok && name == "" {
		return n.Service
	}
	return name
}

// Release is of Holder.
func (t *Table) Release(_ context.Context, o Owner) error { return t.leased.Release(o) }

// Store is the file of the nodes; nil: none.
func (t *Table) Store() *store.Store { return t.file }

// Epoch is of Holder.
func (t *Table) Epoch() string { return t.epoch }

// Kept is of Holder.
func (t *Table) Kept() bool { return t.file != nil && !t.file.Fresh() }

// State is of Holder.
func (t *Table) State() string {
	switch {
	case t.file == nil:
	case t.file.Err() != nil:
		return "failed"
	case t.file.Full() != nil:
		return "full"
	}
	return ""
}

// Failed is of Holder.
func (t *Table) Failed() <-chan struct{} {
	if t.file == nil {
		return nil
	}
	return t.file.Failed()
}

// Err is of Holder.
func (t *Table) Err() error {
	if t.file == nil {
		return nil
	}
	return t.file.Err()
}

// Close is of Holder.
func (t *Table) Close() error {
	t.leased.Close()
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

// journal writes a table's leases into a file.
type journal struct{ *store.Store }

func (j journal) Put(e leases.Entry[Owner]) error {
	record, err := json.Marshal(e.Node)
	if err != nil { // it was validated
		return fmt.Errorf("%w: %w", registry.ErrInvalid, err)
	}
	return j.Store.Put(store.Record{ID: e.Node.ID, Owner: e.Owner, TTL: e.TTL, Node: record})
}
