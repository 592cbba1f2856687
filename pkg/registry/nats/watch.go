package nats

import (
	"context"
	"iter"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
)

// Watch asks for the nodes, and takes in what their owners announce from there on. While NATS is away it keeps what it knows, and yields one
// error wrapping ErrUnavailable; what refuses it yields the error of Register's kind.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return sets(ctx, r, service, (*hub.Hub).Watch)
}

// WatchChanges is Watch by changes, as registry.ChangeWatcher says.
func (r *Registry) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return sets(ctx, r, service, (*hub.Hub).WatchChanges)
}

// sets gives what read yields of the set that is followed.
func sets[T any](ctx context.Context, r *Registry, service string, read func(*hub.Hub, context.Context, string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if r.usable(ctx) != nil {
			return
		}
		ctx, stop := r.within(ctx)
		defer stop()
		set := hub.New() // nobody can have another name
		if service == "" || registry.ValidName(service) {
			f := r.view.follow(service)
			defer r.view.unfollow(f)
			set = f.set
		}
		for news, err := range read(set, ctx, "") {
			if r.life.Err() != nil || !yield(news, err) {
				return
			}
		}
	}
}
