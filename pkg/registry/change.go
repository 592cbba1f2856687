package registry

import (
	"context"
	"iter"
)

// Change is what is new in a set of nodes. What is gone comes before what is put.
type Change struct {
	// Reset: Put is the whole set, and what was told before is void.
	Reset bool
	// Put are nodes that are new, or take the place of the one with their id, sorted as by [Sort]. A node that is as it was
	// may be among them.
	Put []Node
	// Gone are the ids of nodes that are no more. An id that was not known may be among them; none is in Put as well.
	Gone []string
}

// ChangeWatcher is what a Finder offers that can tell what changed, at the cost of that and not of the whole set. It says
// the same as the Finder's Watch: whoever applies each Change to what he has gets the sets that Watch yields.
type ChangeWatcher interface {
	// WatchChanges yields the whole set as a Reset, and then what changed. Where changes come faster than they are read
	// they are drawn together, into a Reset where there are many; none is lost. After an error comes a Reset. The slices
	// are shared, and only read. All else is as Finder says of Watch.
	WatchChanges(ctx context.Context, service string) iter.Seq2[Change, error]
}

// WatchChanges watches the nodes of a service, or of all for the empty name, by changes: those that f tells, where it is a
// ChangeWatcher; else each set of its Watch is a Reset.
func WatchChanges(ctx context.Context, f Finder, service string) iter.Seq2[Change, error] {
	if w, ok := f.(ChangeWatcher); ok {
		return w.WatchChanges(ctx, service)
	}
	return func(yield func(Change, error) bool) {
		for nodes, err := range f.Watch(ctx, service) {
			if !yield(Change{Reset: err == nil, Put: nodes}, err) {
				return
			}
		}
	}
}
