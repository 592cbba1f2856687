// Package board is a registry that was written outside the framework: a notice board in memory, which everybody in the
// process shares. It uses the framework's public packages alone, and passes its suite.
package board

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Board is where the nodes stand. Several registries may share it.
type Board struct {
	mu      sync.Mutex
	notices map[string]*notice // by node id
	changed chan struct{}      // closed and made anew with each change
}

// notice is a node that somebody announced.
type notice struct {
	node  registry.Node
	owner *Registry
	lapse *time.Timer // nil where it holds until it is taken away
}

// New makes an empty board.
func New() *Board {
	return &Board{notices: map[string]*notice{}, changed: make(chan struct{})}
}

// Open gives a registry on the board.
func (b *Board) Open() *Registry {
	return &Registry{board: b, done: make(chan struct{})}
}

// Opener gives an opener for a registry.Openers.
func (b *Board) Opener() registry.Opener {
	return func(context.Context, *url.URL) (registry.Registry, error) { return b.Open(), nil }
}

// change wakes the watchers. It is called with the lock held.
func (b *Board) change() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// remove takes a notice away, with the lock held.
func (b *Board) remove(n *notice) {
	if n.lapse != nil {
		n.lapse.Stop()
	}
	delete(b.notices, n.node.ID)
	b.change()
}

// Registry is one user's view of a board.
type Registry struct {
	board *Board
	once  sync.Once
	done  chan struct{}
}

var _ registry.Registry = (*Registry)(nil)

// ready gives the error of a call that comes too late.
func (r *Registry) ready(ctx context.Context) error {
	select {
	case <-r.done:
		return registry.ErrClosed
	default:
		return ctx.Err()
	}
}

// Register implements registry.Registrar.
func (r *Registry) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	if err := registry.Validate(n); err != nil {
		return err
	}
	if ttl < 0 {
		return fmt.Errorf("%w: ttl %v, want 0 or more", registry.ErrInvalid, ttl)
	}
	b := r.board
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.notices[n.ID]
	if old != nil && old.owner != r {
		return fmt.Errorf("%w: %s", registry.ErrConflict, n.ID)
	}
	fresh := &notice{node: n.Clone(), owner: r}
	if old != nil && old.lapse != nil {
		old.lapse.Stop()
	}
	if ttl > 0 {
		fresh.lapse = time.AfterFunc(ttl, func() { b.lapse(fresh) })
	}
	b.notices[n.ID] = fresh
	if old == nil || !old.node.Equal(n) { // a renewal is no change
		b.change()
	}
	return nil
}

// lapse takes a notice away that was not renewed in time.
func (b *Board) lapse(n *notice) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.notices[n.node.ID] == n {
		b.remove(n)
	}
}

// Deregister implements registry.Registrar.
func (r *Registry) Deregister(ctx context.Context, n registry.Node) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	r.board.mu.Lock()
	defer r.board.mu.Unlock()
	old := r.board.notices[n.ID]
	switch {
	case old == nil || old.node.Service != n.Service:
		return nil
	case old.owner != r:
		return fmt.Errorf("%w: %s", registry.ErrConflict, n.ID)
	}
	r.board.remove(old)
	return nil
}

// Get implements registry.Finder.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	nodes, _ := r.board.read(service)
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%w: %s", registry.ErrNotFound, service)
	}
	return nodes, nil
}

// List implements registry.Finder.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	nodes, _ := r.board.read("")
	return nodes, nil
}

// Watch implements registry.Finder.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return func(yield func([]registry.Node, error) bool) {
		var last []registry.Node
		for first := true; r.ready(ctx) == nil; first = false {
			nodes, changed := r.board.read(service)
			if first || !slices.EqualFunc(nodes, last, registry.Node.Equal) {
				if !yield(nodes, nil) {
					return
				}
				last = nodes
			}
			select {
			case <-changed:
			case <-ctx.Done():
			case <-r.done:
			}
		}
	}
}

// read gives the nodes of a service, or of all, and what is closed when they change.
func (b *Board) read(service string) ([]registry.Node, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	nodes := []registry.Node{}
	for _, n := range b.notices {
		if service == "" || n.node.Service == service {
			nodes = append(nodes, n.node)
		}
	}
	registry.Sort(nodes)
	return nodes, b.changed
}

// Close implements registry.Registry.
func (r *Registry) Close() error {
	r.once.Do(func() {
		close(r.done)
		r.board.mu.Lock()
		defer r.board.mu.Unlock()
		for _, n := range r.board.notices {
			if n.owner == r {
				r.board.remove(n)
			}
		}
	})
	return nil
}
