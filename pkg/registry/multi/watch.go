package multi

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
)

// recheckTime is how often a watch that hides a dead node's copy looks whether its time is over.
const recheckTime = 30 * time.Second

// Watch yields the merged sets. Where a member fails, what it knew last still counts; an error is yielded when all have
// failed, once.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return follow(ctx, r, service, (*hub.Hub).Watch)
}

// WatchChanges is Watch by changes, as registry.ChangeWatcher says.
func (r *Registry) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return follow(ctx, r, service, (*hub.Hub).WatchChanges)
}

// follow gives what read yields of the set that it keeps as the members tell.
func follow[T any](ctx context.Context, r *Registry, service string, read func(*hub.Hub, context.Context, string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if r.usable(ctx) != nil || !r.begin(len(r.members)+1) {
			return
		}
		ctx, stop := r.within(ctx)
		w := r.newWatch(service)
		var running sync.WaitGroup
		for _, m := range r.members {
			running.Go(func() {
				defer r.busy.Done()
				w.follow(ctx, m)
			})
		}
		running.Go(func() {
			defer r.busy.Done()
			w.run(ctx)
		})
		defer running.Wait()
		defer stop()
		for news, err := range read(w.set, ctx, service) {
			if r.life.Err() != nil || !yield(news, err) {
				return
			}
		}
	}
}

// watch is one running Watch: it puts what the members tell into one set. A change costs what changed.
type watch struct {
	tally
	service string
	set     *hub.Hub

	// Under the tally's lock.
	known   []map[string]registry.Node // what each member knows, by id
	touched []string                   // ids that a member told something of since the last merge
	unsure  map[string]time.Time       // ids whose copies may be dead, until when, though no member tells anything of them
	version uint64                     // of the graves at the last merge
}

func (r *Registry) newWatch(service string) *watch {
	return &watch{
		tally: newTally(r), service: service, set: hub.NewPending().Sharing(),
		known: make([]map[string]registry.Node, len(r.members)), unsure: map[string]time.Time{},
	}
}

// follow watches a member.
func (w *watch) follow(ctx context.Context, m *member) {
	for c, err := range registry.WatchChanges(ctx, m.Registry, w.service) {
		w.r.found(ctx, m, err)
		w.take(m, c, err)
	}
	if ctx.Err() == nil && w.r.life.Err() == nil { // somebody closed the member
		err := fmt.Errorf("%w: its watch ended", registry.ErrUnavailable)
		w.r.found(ctx, m, err)
		w.take(m, registry.Change{}, err)
	}
}

// take takes in what a member told.
func (w *watch) take(m *member, c registry.Change, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		first, failed := w.known[m.index] == nil, w.answers[m.index].err != nil
		gone := w.learn(m, c)
		if m.tells() {
			w.r.graves.shows(m.index, w.r.graves.ask(), c.Put)
			if !first && !(failed && c.Reset) {
				w.r.graves.ended(m.index, gone, w.r.owns)
			}
		}
		_, witness := m.witness()
		switch {
		case !m.Authority:
			w.r.graves.visited(m.index, w.service, func(id string) bool { _, ok := w.known[m.index][id]; return ok })
		case !witness:
			w.r.graves.changed(c.Put, gone, w.r.owns)
		}
	}
	w.note(m, len(w.known[m.index]) > 0, err)
}

// learn applies a change to what a member knows, and gives the nodes that went.
func (w *watch) learn(m *member, c registry.Change) (gone []registry.Node) {
	known := w.known[m.index]
	lose := func(id string, n registry.Node) {
		gone = append(gone, n)
		w.touched = append(w.touched, id)
		if m.Authority || m.tells() {
			w.unsure[id] = time.Now().Add(mourning)
		}
	}
	for _, id := range c.Gone {
		if n, ok := known[id]; ok {
			delete(known, id)
			lose(id, n)
		}
	}
	if c.Reset {
		before := known
		known = make(map[string]registry.Node, len(c.Put))
		w.known[m.index] = known
		for _, n := range c.Put {
			known[n.ID] = n
		}
		for id, n := range before {
			if _, ok := known[id]; !ok {
				lose(id, n)
			}
		}
	}
	for _, n := range c.Put {
		known[n.ID] = n
		w.touched = append(w.touched, n.ID)
	}
	return gone
}

// run keeps the set, from when no answer is held back any more.
func (w *watch) run(ctx context.Context) {
	err := w.settle(ctx, time.Now(), func(s standing) (time.Duration, bool) {
		if d, ok := s.hold(); ok {
			return d, ok
		}
		return hangingTime, s.any
	})
	if err != nil {
		return
	}
	recheck := time.NewTimer(recheckTime)
	defer recheck.Stop()
	for {
		switch s := w.standing(); {
		case s.good:
			if w.merge() {
				recheck.Reset(recheckTime)
			}
			w.set.Mend()
		case s.all:
			w.set.Fail(w.failures())
		}
		select {
		case <-ctx.Done():
			return
		case <-w.news:
		case <-recheck.C:
		}
	}
}

// merge brings the set up to date about the ids that were touched, and about those whose standing may be another by now.
// It reports whether it is unsure of any.
func (w *watch) merge() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := w.touched
	w.touched = nil
	for id := range w.unsure {
		ids = append(ids, id)
	}
	if v := w.r.graves.version(); v != w.version {
		w.version = v
		ids = w.r.graves.ids(ids)
	}
	var put []registry.Node
	var gone []string
	now := time.Now()
	for _, id := range ids {
		n, found, unsure := w.look(id, now)
		if found {
			put = append(put, n)
		} else {
			gone = append(gone, id)
		}
		if !unsure {
			delete(w.unsure, id)
		}
	}
	if len(w.unsure) == 0 && len(ids) > 100 {
		w.unsure = map[string]time.Time{} // a map that was large is slow to go through
	}
	w.set.Apply(put, gone)
	return len(w.unsure) > 0
}

// look gives the node that stands under an id, the first member's that may be believed, and whether that is unsure.
func (w *watch) look(id string, now time.Time) (node registry.Node, found, unsure bool) {
	alive, copies := false, false
	for i, known := range w.known {
		_, has := known[id]
		alive = alive || has && w.r.members[i].Authority
		copies = copies || has
	}
	for i, known := range w.known {
		n, has := known[id]
		switch {
		case !has || found:
		case !alive && w.r.dead(i, n):
			w.unsure[id] = now.Add(mourning)
		default:
			node, found = unstamped(n), true
		}
	}
	return node, found, copies && !alive && now.Before(w.unsure[id])
}
