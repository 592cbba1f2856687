package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/store"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	leases "github.com/cb02dfca/micro/pkg/registry/internal/lease"
)

// history is how many changes a server remembers, for watches that come back.
const history = 8192

// holder keeps the nodes of a server. Its methods may be called concurrently.
type holder interface {
	// Register adds, changes or renews a node. Deregister and Release take an owner's away, Evict whosever it is. Guest adds or changes
	// one that gives way to any owner.
	Register(ctx context.Context, o owner, n registry.Node, ttl time.Duration) error
	Guest(ctx context.Context, o owner, n registry.Node) error
	Deregister(ctx context.Context, o owner, service, id string) error
	Evict(ctx context.Context, service, id string) error
	Release(ctx context.Context, o owner) error
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

// table holds nodes in memory, and in a file where it has one.
type table struct {
	*leases.Table[owner]
	epoch string
	file  *store.Store // nil: none
}

func newHolder(o ServerOptions) (holder, error) {
	limits := leases.Limits{Nodes: o.MaxNodes, Service: o.MaxService}
	if o.Registry != nil {
		f, err := newFront(o)
		if err != nil {
			return nil, err // not a holder that holds a nil *front
		}
		return f, nil
	}
	if o.Data == "" {
		return &table{Table: leases.NewDurable[owner](limits, nil, hub.New().Remembering(history, 0)), epoch: random(epochBytes)}, nil
	}
	file, records, err := store.Open(store.Options{Dir: o.Data, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	t := &table{epoch: file.Epoch(), file: file}
	t.Table = leases.NewDurable[owner](limits, journal{file}, hub.New().Remembering(history, file.FirstRevision()))
	for _, r := range records {
		n, err := parseNode(r.Node)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("registry: %s: the record of %.100q: %w", file.Path(), r.ID, err), t.Close())
		}
		t.Restore(leases.Entry[owner]{Owner: r.Owner, Node: n, TTL: r.TTL})
	}
	if !file.Fresh() {
		o.Logger.Info("registry server has the nodes of before", "file", file.Path(), "nodes", len(records))
	}
	return t, nil
}

func (t *table) Register(_ context.Context, o owner, n registry.Node, ttl time.Duration) error {
	return t.Table.Register(o, n, ttl)
}

func (t *table) Guest(_ context.Context, o owner, n registry.Node) error { return t.Table.Guest(o, n) }

func (t *table) Deregister(_ context.Context, o owner, service, id string) error {
	return t.Table.Deregister(o, service, id)
}

func (t *table) Evict(_ context.Context, service, id string) error { return t.Table.Evict(service, id) }

func (t *table) Release(_ context.Context, o owner) error { return t.Table.Release(o) }

func (t *table) Epoch() string { return t.epoch }

func (t *table) Kept() bool { return t.file != nil && !t.file.Fresh() }

func (t *table) State() string {
	switch {
	case t.file == nil:
	case t.file.Err() != nil:
		return "failed"
	case t.file.Full() != nil:
		return "full"
	}
	return ""
}

func (t *table) Failed() <-chan struct{} {
	if t.file == nil {
		return nil
	}
	return t.file.Failed()
}

func (t *table) Err() error {
	if t.file == nil {
		return nil
	}
	return t.file.Err()
}

func (t *table) Close() error {
	t.Table.Close()
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

// journal writes a table's leases into a file.
type journal struct{ *store.Store }

func (j journal) Put(e leases.Entry[owner]) error {
	record, err := json.Marshal(e.Node)
	if err != nil { // it was validated
		return fmt.Errorf("%w: %w", registry.ErrInvalid, err)
	}
	return j.Store.Put(store.Record{ID: e.Node.ID, Owner: e.Owner, TTL: e.TTL, Node: record})
}

// A DamageError says what is wrong with a file of nodes: where, and what.
type DamageError = store.DamageError

// ErrLocked: another server has the folder of the nodes.
var ErrLocked = store.ErrLocked

// Salvage takes what can still be read of a damaged file in a server's folder for data into a new one. The damaged file
// stays, under the name that is given. The new one has another epoch, so that owners put their nodes again.
func Salvage(data string) (nodes int, kept string, err error) { return store.Salvage(data) }
