package zookeeper

import (
	"context"
	"iter"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

// refusedRetry is the wait after a refusal.
const refusedRetry = 10 * time.Second

// Watch lists the nodes and reads again what ZooKeeper says has changed. While ZooKeeper is away it yields one error wrapping
// ErrUnavailable; what refuses it yields the error of Register's kind.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return watching(ctx, r, service, (*hub.Hub).Watch)
}

// WatchChanges is Watch by changes, as registry.ChangeWatcher says.
func (r *Registry) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return watching(ctx, r, service, (*hub.Hub).WatchChanges)
}

// watching gives what read yields of the set that it keeps as ZooKeeper says.
func watching[T any](ctx context.Context, r *Registry, service string, read func(*hub.Hub, context.Context, string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if r.usable(ctx) != nil {
			return
		}
		ctx, stop := r.within(ctx)
		defer stop()
		w := &watch{r: r, service: service, set: hub.NewPending().Sharing()}
		for news, err := range hub.Kept(ctx, w.set, w.run, read) {
			if r.life.Err() != nil || !yield(news, err) {
				return
			}
		}
	}
}

// watch is one running Watch: it keeps a set by what it reads.
type watch struct {
	r       *Registry
	service string
	set     *hub.Hub
}

func (w *watch) run(ctx context.Context) {
	if w.service != "" && !registry.ValidName(w.service) {
		w.set.Replace(nil) // nobody can have that name
		return
	}
	for wait := time.Duration(0); ctx.Err() == nil; {
		e, err := w.r.reader.ready(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			w.set.Fail(err)
			w.r.reader.await(ctx)
			continue
		}
		begun := time.Now()
		err = w.r.said(w.read(ctx, e))
		if err == nil || ctx.Err() != nil {
			continue
		}
		w.set.Fail(err)
		if time.Since(begun) > retry.Last {
			wait = 0
		}
		if wait = retry.Next(wait); refused(err) {
			wait = refusedRetry
		}
		retry.Pause(ctx, retry.Jitter(wait))
	}
}

// read lists the nodes, and reads what changes from there on. It gives no error when the connection is lost: what was missed
// meanwhile the next listing has.
func (w *watch) read(ctx context.Context, e *epoch) error {
	t := newTree(w.r, w.service, newNews())
	t.on = e
	defer t.leave()
	t.news.add(t.root)
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return nil
		case <-e.down:
			return nil
		case <-t.news.wake:
		}
		switch err := t.look(ctx, t.news.take()); {
		case broken(err):
			e.lose(ctx)
			return nil
		case err != nil:
			return err
		}
		put, gone := t.changes()
		switch {
		case first:
			w.set.Replace(t.table.All())
		case len(put)+len(gone) > 0:
			w.set.Apply(put, gone)
		}
	}
}
