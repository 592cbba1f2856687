package dns

import (
	"context"
	"iter"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

const (
	refusedRetry = 30 * time.Second      // after a refusal
	calm         = 50 * time.Millisecond // between two looks, however much is registered here
)

// Watch looks again and again, when the records' TTL is over, and yields what differs. While the nameserver is away it tries
// again, and yields one error wrapping ErrUnavailable; what refuses it yields the error of Register's kind.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return watching(ctx, r, service, (*hub.Hub).Watch)
}

// WatchChanges is Watch by changes, as registry.ChangeWatcher says.
func (r *Registry) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return watching(ctx, r, service, (*hub.Hub).WatchChanges)
}

// watching gives what read yields of the set that it keeps by looking.
func watching[T any](ctx context.Context, r *Registry, service string, read func(*hub.Hub, context.Context, string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if r.usable(ctx) != nil {
			return
		}
		ctx, stop := r.within(ctx)
		defer stop()
		set := hub.NewPending().Sharing()
		fill := func(ctx context.Context) { r.poll(ctx, service, set) }
		for news, err := range hub.Kept(ctx, set, fill, read) {
			if r.life.Err() != nil || !yield(news, err) {
				return
			}
		}
	}
}

// poll keeps a set until ctx ends.
func (r *Registry) poll(ctx context.Context, service string, set *hub.Hub) {
	if service != "" && !registry.ValidName(service) {
		set.Replace(nil) // nobody can have that name
		return
	}
	for wait := time.Duration(0); ; {
		news := r.whenNews()
		found, err := r.look(ctx, service)
		if ctx.Err() != nil {
			return
		}
		rest := time.Duration(0)
		switch {
		case err == nil:
			set.Replace(found.nodes)
			wait, rest = 0, retry.Jitter(found.again)
		case isRefusal(err):
			set.Fail(err)
			rest = retry.Jitter(refusedRetry)
		default:
			set.Fail(err)
			wait = retry.Next(wait)
			rest = retry.Jitter(wait)
		}
		if !retry.Pause(ctx, min(rest, calm)) {
			return
		}
		timer := time.NewTimer(rest - min(rest, calm))
		select {
		case <-ctx.Done():
		case <-news:
		case <-timer.C:
		}
		if timer.Stop(); ctx.Err() != nil {
			return
		}
	}
}
