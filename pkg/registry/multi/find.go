package multi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Get gives the nodes of a service. See the package's text for which members it waits for.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	q, stop, err := r.ask(ctx, service, func(ctx context.Context, m *member) ([]registry.Node, error) {
		return m.Registry.Get(ctx, service)
	})
	if err != nil {
		return nil, err
	}
	defer stop()
	if err := q.settle(ctx, time.Now(), standing.hold); err != nil {
		return nil, err
	}
	if nodes := q.merge(); len(nodes) > 0 {
		return nodes, nil
	}
	err = q.failures()
	switch {
	case r.life.Err() != nil:
		return nil, registry.ErrClosed
	case err != nil && !q.standing().good:
		return nil, err
	case err != nil:
		why := strings.ReplaceAll(err.Error(), "registry: ", "")
		return nil, fmt.Errorf("%w: %q (and %s)", registry.ErrNotFound, service, why) // one sentinel: somebody did answer
	}
	return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
}

// List gives the nodes of all services that the members know. It waits for all of them; where the context's deadline
// comes first, what is known by then is the answer, and Status tells who was late. It is an error if all fail.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	q, stop, err := r.ask(ctx, "", func(ctx context.Context, m *member) ([]registry.Node, error) {
		return m.Registry.List(ctx)
	})
	if err != nil {
		return nil, err
	}
	defer stop()
	err = q.settle(ctx, time.Now(), func(s standing) (time.Duration, bool) { return 0, s.all })
	if err != nil && !(errors.Is(err, context.DeadlineExceeded) && q.standing().good) {
		return nil, err
	}
	if err != nil {
		q.late(err)
	}
	if !q.standing().good {
		if r.life.Err() != nil {
			return nil, registry.ErrClosed
		}
		return nil, q.failures()
	}
	return q.merge(), nil
}

// ask puts a question to all members. stop ends it for those that have not answered.
func (r *Registry) ask(ctx context.Context, service string, question func(context.Context, *member) ([]registry.Node, error)) (*round, context.CancelFunc, error) {
	if err := r.usable(ctx); err != nil {
		return nil, nil, err
	}
	if !r.begin(len(r.members)) {
		return nil, nil, registry.ErrClosed
	}
	q := r.newRound()
	r.attend(service)
	ctx, stop := r.within(ctx)
	for _, m := range r.members {
		go func() {
			defer r.busy.Done()
			asked := r.graves.ask()
			nodes, err := question(ctx, m)
			r.found(ctx, m, err)
			if _, ok := m.witness(); m.Authority && !ok && (err == nil || errors.Is(err, registry.ErrNotFound)) {
				r.graves.answered(asked, service, nodes, r.owns)
			}
			if err == nil && m.tells() {
				r.graves.shows(m.index, asked, nodes)
			}
			q.give(m, nodes, err)
		}()
	}
	return q, stop, nil
}

// within gives a context that also ends with r.
func (r *Registry) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	drop := context.AfterFunc(r.life, cancel)
	return ctx, func() { drop(); cancel() }
}
