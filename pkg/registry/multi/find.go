package multi

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// recheckTime is how often a watch that hides a dead node's copy looks whether its time is over.
const recheckTime = 30 * time.Second

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
	if nodes, _ := q.merge(); len(nodes) > 0 {
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
	nodes, _ := q.merge()
	return nodes, nil
}

// ask puts a question to all members. stop ends it for those that have not answered.
func (r *Registry) ask(ctx context.Context, service string, question func(context.Context, *member) ([]registry.Node, error)) (*round, context.CancelFunc, error) {
	if err := r.usable(ctx); err != nil {
		return nil, nil, err
	}
	if !r.begin(len(r.members)) {
		return nil, nil, registry.ErrClosed
	}
	q := r.newRound(service)
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

// settle waits until no answer need be held back for members that are missing.
func (q *round) settle(ctx context.Context, start time.Time, hold func(standing) (time.Duration, bool)) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if d, ok := hold(q.standing()); ok {
			left := time.Until(start.Add(d))
			if left <= 0 {
				return nil
			}
			timer.Reset(left)
		}
		select {
		case <-q.news:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-q.r.life.Done():
			return registry.ErrClosed
		}
	}
}

// late notes which members have not answered.
func (q *round) late(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, a := range q.answers {
		if !a.given {
			q.r.found(context.Background(), q.r.members[i], fmt.Errorf("no answer: %w", err))
		}
	}
}

// Watch yields the merged sets. Where a member fails, what it knew last still counts; an error is yielded when all have
// failed, once.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return func(yield func([]registry.Node, error) bool) {
		if r.usable(ctx) != nil || !r.begin(len(r.members)) {
			return
		}
		ctx, stop := r.within(ctx)
		q := r.newRound(service)
		ended := make(chan struct{}, len(r.members))
		for _, m := range r.members {
			go func() {
				defer r.busy.Done()
				defer func() { ended <- struct{}{} }()
				q.follow(ctx, m)
			}()
		}
		defer func() {
			stop()
			for range r.members {
				<-ended
			}
		}()
		q.yield(ctx, yield)
	}
}

// follow watches a member.
func (q *round) follow(ctx context.Context, m *member) {
	var before []registry.Node
	_, witness := m.witness()
	for nodes, err := range m.Registry.Watch(ctx, q.service) {
		q.r.found(ctx, m, err)
		switch {
		case err != nil:
		case !m.Authority:
			q.r.graves.visited(m.index, q.service, nodes)
		case !witness:
			q.r.graves.changed(before, nodes, q.r.owns)
			before = nodes
		}
		q.give(m, nodes, err)
	}
	if ctx.Err() == nil && q.r.life.Err() == nil { // somebody closed the member
		err := fmt.Errorf("%w: its watch ended", registry.ErrUnavailable)
		q.r.found(ctx, m, err)
		q.give(m, nil, err)
	}
}

// yield gives the sets to a watch's loop, until it or ctx ends.
func (q *round) yield(ctx context.Context, yield func([]registry.Node, error) bool) {
	err := q.settle(ctx, time.Now(), func(s standing) (time.Duration, bool) {
		if d, ok := s.hold(); ok {
			return d, ok
		}
		return hangingTime, s.any
	})
	if err != nil {
		return
	}
	var last []registry.Node
	known, failing := false, false
	recheck := time.NewTimer(recheckTime)
	defer recheck.Stop()
	for ctx.Err() == nil && q.r.life.Err() == nil {
		s := q.standing()
		nodes, hidden := q.merge()
		switch {
		case !s.good && s.all && !failing:
			known, failing = false, true
			if !yield(nil, q.failures()) {
				return
			}
		case s.good && (!known || !equal(nodes, last)):
			known, failing, last = true, false, nodes
			if !yield(append([]registry.Node{}, nodes...), nil) {
				return
			}
		}
		if hidden {
			recheck.Reset(recheckTime)
		}
		select {
		case <-ctx.Done():
		case <-q.r.life.Done():
		case <-q.news:
		case <-recheck.C:
		}
	}
}
