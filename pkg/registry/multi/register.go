package multi

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// undoTime bounds the withdrawal of a node that one member took and another refused as a conflict.
const undoTime = 2 * time.Second

// Register registers n with every member, the authorities first. A member that fails is reported by Status and to the
// logger, and tried again with the next renewal; it is an error if all fail, or if one says at the first registration
// that it can never take the node, as another owner holds the id, or the name is none that it can announce: then no
// member keeps the node.
func (r *Registry) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	if err := registry.Validate(n); err != nil {
		return err
	}
	if !r.begin(1) {
		return registry.ErrClosed
	}
	defer r.busy.Done()
	renewal := r.owns(n.ID)
	p := r.promise(n.ID, ttl)
	stamped := p.on(n)
	errs := make([]error, len(r.members))
	for _, authority := range []bool{true, false} {
		r.each(func(m *member) {
			switch {
			case !m.takes(n):
				errs[m.index] = errNotHere
			case m.Authority == authority:
				errs[m.index] = m.Registry.Register(ctx, stamped, ttl)
			}
		})
		if err := r.never(errs); err != nil && !renewal {
			r.undo(ctx, n)
			return err
		}
	}
	return r.outcome(ctx, n.ID, r.kept(ctx, n, ttl, p, errs), errs)
}

// errNotHere is what a member says to a node that is not for it.
var errNotHere = errors.New("not for this member")

// never gives the error of the first member that can never take the node.
func (r *Registry) never(errs []error) error {
	for i, err := range errs {
		if errors.Is(err, registry.ErrConflict) || errors.Is(err, registry.ErrInvalid) {
			return r.members[i].said(err)
		}
	}
	return nil
}

// outcome reports what each member said to a registration.
func (r *Registry) outcome(ctx context.Context, id string, p *promise, errs []error) error {
	failed, asked := 0, len(errs)
	for i, err := range errs {
		switch {
		case errors.Is(err, errNotHere):
			asked--
			errs[i] = nil
		case err != nil:
			failed++
			errs[i] = r.members[i].said(err)
		}
	}
	switch {
	case failed < asked:
		for i, err := range errs {
			r.registered(r.members[i], id, err)
		}
		r.mu.Lock()
		r.own[id] = p
		r.mu.Unlock()
		return nil
	case r.life.Err() != nil:
		return registry.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errors.Join(errs...)
}

func (r *Registry) undo(ctx context.Context, n registry.Node) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	r.each(func(m *member) {
		// Who does not hold it for us refuses or does nothing: either is right.
		_ = m.Registry.Deregister(ctx, n)
	})
}

// Deregister takes n away from every member. It is an error if a member fails that had taken n, or if all fail.
func (r *Registry) Deregister(ctx context.Context, n registry.Node) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	if !r.begin(1) {
		return registry.ErrClosed
	}
	defer r.busy.Done()
	errs := make([]error, len(r.members))
	r.each(func(m *member) {
		if !m.takes(n) {
			return
		}
		if err := m.Registry.Deregister(ctx, n); err != nil {
			errs[m.index] = m.said(err)
		}
	})
	failed, matters := 0, false
	for i, err := range errs {
		if err != nil {
			failed++
			matters = matters || r.owns(n.ID) && r.members[i].took(n.ID)
		}
	}
	if failed == len(errs) || matters {
		return errors.Join(errs...)
	}
	r.forget(n.ID)
	return nil
}

// forget drops what is known of a registration.
func (r *Registry) forget(id string) {
	r.mu.Lock()
	delete(r.own, id)
	r.mu.Unlock()
	for _, m := range r.members {
		m.mu.Lock()
		delete(m.register, id)
		m.mu.Unlock()
	}
}

// took reports whether the last registration of id did not fail here.
func (m *member) took(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, failed := m.register[id]
	return !failed
}

func (r *Registry) owns(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.own[id]
	return ok
}

// each calls f for all members at once, and waits.
func (r *Registry) each(f func(*member)) {
	var wg sync.WaitGroup
	for _, m := range r.members {
		wg.Go(func() { f(m) })
	}
	wg.Wait()
}

func (r *Registry) usable(ctx context.Context) error {
	if r.life.Err() != nil {
		return registry.ErrClosed
	}
	return ctx.Err()
}
