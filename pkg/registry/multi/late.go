package multi

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// How long Open is left alone after it failed: twice as long each time.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// late stands for a member that did not start. Register and Watch try Open again, not too often; until it succeeds every
// question fails with what it said.
type late struct {
	openMember func(context.Context) (registry.Registry, error)

	mu      sync.Mutex
	opening bool
	closed  bool
	inner   registry.Registry // nil while it is not open
	err     error             // why
	gap     time.Duration
	next    time.Time // when Open may be tried
}

func newLate(m Member, err error) *late {
	return &late{openMember: m.Open, err: err, gap: firstRetry, next: time.Now().Add(firstRetry)}
}

// opened gives the member if it is open, and why it is not.
func (l *late) opened() (registry.Registry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, registry.ErrClosed
	case l.inner == nil:
		return nil, l.err
	}
	return l.inner, nil
}

// try gives the member, and opens it if it is time to.
func (l *late) try(ctx context.Context) (registry.Registry, error) {
	l.mu.Lock()
	if l.closed || l.inner != nil || l.opening || time.Now().Before(l.next) {
		l.mu.Unlock()
		return l.opened()
	}
	l.opening = true
	l.mu.Unlock()
	inner, err := l.openMember(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opening = false
	switch {
	case err != nil:
		l.err, l.gap = err, min(2*l.gap, lastRetry)
		l.next = time.Now().Add(l.gap)
		return nil, err
	case l.closed:
		return nil, errors.Join(registry.ErrClosed, inner.Close())
	}
	l.inner = inner
	return inner, nil
}

// Register opens the member if it is time to.
func (l *late) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	inner, err := l.try(ctx)
	if err != nil {
		return err
	}
	return inner.Register(ctx, n, ttl)
}

// Deregister and the questions leave a member that is not open alone.
func (l *late) Deregister(ctx context.Context, n registry.Node) error {
	inner, err := l.opened()
	if err != nil {
		return err
	}
	return inner.Deregister(ctx, n)
}

// Get asks the member if it is open.
func (l *late) Get(ctx context.Context, service string) ([]registry.Node, error) {
	inner, err := l.opened()
	if err != nil {
		return nil, err
	}
	return inner.Get(ctx, service)
}

// List asks the member if it is open.
func (l *late) List(ctx context.Context) ([]registry.Node, error) {
	inner, err := l.opened()
	if err != nil {
		return nil, err
	}
	return inner.List(ctx)
}

// Watch yields why the member is not open, once, and watches it from when it is.
func (l *late) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return watchLate(ctx, l, func(r registry.Registry) iter.Seq2[[]registry.Node, error] { return r.Watch(ctx, service) })
}

// WatchChanges is Watch by changes.
func (l *late) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return watchLate(ctx, l, func(r registry.Registry) iter.Seq2[registry.Change, error] {
		return registry.WatchChanges(ctx, r, service)
	})
}

func watchLate[T any](ctx context.Context, l *late, watch func(registry.Registry) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		inner, err := l.try(ctx)
		if err != nil && !yield(none, err) {
			return
		}
		timer := time.NewTimer(firstRetry)
		defer timer.Stop()
		for err != nil {
			timer.Reset(l.pause())
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			inner, err = l.try(ctx)
		}
		for news, err := range watch(inner) {
			if !yield(news, err) {
				return
			}
		}
	}
}

// pause is how long a watch waits before it tries again.
func (l *late) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(time.Until(l.next), firstRetry)
}

// Close closes the member, and keeps it from opening.
func (l *late) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.inner == nil {
		return nil
	}
	return l.inner.Close()
}

// open gives the member's registry, nil while it is not open.
func (m *member) open() registry.Registry {
	if l, ok := m.Registry.(*late); ok {
		inner, err := l.opened()
		if err != nil {
			return nil
		}
		return inner
	}
	return m.Registry
}
