// Package memory is a registry inside one process: for tests, and for programs whose services share a process.
//
// [New] makes a registry. All who use it see the same nodes. Where several services of a process are to own their nodes,
// as processes would, each takes a [Registry.View]: closing a view withdraws what was registered through it, and an id
// that one view holds is refused to the others.
package memory

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/lease"
)

// Registry is a view of a set of nodes. It starts no goroutine.
type Registry struct {
	table  *table
	life   context.Context // ends with Close
	end    context.CancelFunc
	closed sync.Once
}

// table is what the views of one set share. The last view to be closed closes it.
type table struct {
	*lease.Table[*Registry]

	mu    sync.Mutex
	views int
}

var (
	_ registry.Registry      = (*Registry)(nil)
	_ registry.ChangeWatcher = (*Registry)(nil)
)

// New makes an empty registry.
func New() *Registry {
	return newView(&table{Table: lease.New[*Registry](lease.Limits{})})
}

// Open makes an empty registry for a URL such as "memory://"; it has no host and takes no parameter. Two Opens share
// nothing.
func Open(_ context.Context, u *url.URL) (registry.Registry, error) {
	if _, err := opener.Params(u); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if u.Host != "" || u.Path != "" || u.Opaque != "" {
		return nil, fmt.Errorf("registry: %s: memory has no address: want memory://", opener.Redacted(u))
	}
	return New(), nil
}

func newView(t *table) *Registry {
	life, end := context.WithCancel(context.Background())
	t.mu.Lock()
	t.views++
	t.mu.Unlock()
	return &Registry{table: t, life: life, end: end}
}

// View gives another owner's view of the same nodes. It stands on its own: the caller closes it, and it goes on when r is
// closed.
func (r *Registry) View() *Registry { return newView(r.table) }

// Register does what registry.Registrar says.
func (r *Registry) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	if err := r.table.Register(r, n, ttl); err != nil {
		return err
	}
	if r.life.Err() != nil { // Close came in between, and may have missed it
		r.table.Release(r)
		return registry.ErrClosed
	}
	return nil
}

// Deregister does what registry.Registrar says. A node of another view is refused with ErrConflict.
func (r *Registry) Deregister(ctx context.Context, n registry.Node) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	return r.table.Deregister(r, n.Service, n.ID)
}

// Get does what registry.Finder says.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	return r.table.Nodes().Get(service)
}

// List does what registry.Finder says.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	return r.table.Nodes().List(), nil
}

// Watch does what registry.Finder says. It yields no error.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return open(ctx, r, func(ctx context.Context) iter.Seq2[[]registry.Node, error] {
		return r.table.Nodes().Watch(ctx, service)
	})
}

// WatchChanges does what registry.ChangeWatcher says. It yields no error.
func (r *Registry) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return open(ctx, r, func(ctx context.Context) iter.Seq2[registry.Change, error] {
		return r.table.Nodes().WatchChanges(ctx, service)
	})
}

// open gives what a watch of the table yields, as long as r is open.
func open[T any](ctx context.Context, r *Registry, watch func(context.Context) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(r.life, cancel)()
		for news, err := range watch(ctx) {
			if r.life.Err() != nil || !yield(news, err) {
				return
			}
		}
	}
}

// Close withdraws the nodes that were registered through r and ends its watches. It gives no error.
func (r *Registry) Close() error {
	r.closed.Do(func() {
		r.end()
		r.table.Release(r)
		r.table.mu.Lock()
		defer r.table.mu.Unlock()
		if r.table.views--; r.table.views == 0 {
			r.table.Table.Close()
		}
	})
	return nil
}

func (r *Registry) usable(ctx context.Context) error {
	if r.life.Err() != nil {
		return registry.ErrClosed
	}
	return ctx.Err()
}
