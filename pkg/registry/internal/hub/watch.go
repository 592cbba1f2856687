package hub

import (
	"context"
	"iter"
	"math"
	"sync"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Watch does what registry.Finder says of it: the present set, then each change, the last one always. It ends with ctx,
// the loop or Close.
//
//go:noinline
func (h *Hub) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return watch(ctx, h, service, (*Reader).Set)
}

// WatchChanges does what registry.ChangeWatcher says of it.
//
//go:noinline
func (h *Hub) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return watch(ctx, h, service, (*Reader).Change)
}

// Kept gives what read, (*Hub).Watch or (*Hub).WatchChanges, yields of all services of h, which fill keeps on a goroutine of its own: so a
// slow loop holds up nothing. It ends with ctx or the loop, and returns when fill has, whose ctx has ended by then.
func Kept[T any](ctx context.Context, h *Hub, fill func(context.Context), read func(*Hub, context.Context, string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		var filling sync.WaitGroup
		filling.Go(func() { fill(ctx) })
		defer filling.Wait()
		defer stop()
		for news, err := range read(h, ctx, "") {
			if !yield(news, err) {
				return
			}
		}
	}
}

// watch yields what take has to give. Those who call it are not inlined: each place would have functions of its own, 5 KB in every
// service's binary.
func watch[T any](ctx context.Context, h *Hub, service string, take func(*Reader) (T, uint64, bool, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		r := h.Follow(service)
		defer r.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-h.done:
				return
			case <-r.wake:
			}
			if ctx.Err() != nil { // both were ready
				return
			}
			if news, _, ok, err := take(r); ok && !yield(news, err) {
				return
			}
		}
	}
}

// Reader is one watch's place in a hub's changes. One goroutine uses it.
type Reader struct {
	hub  *Hub
	view *view
	wake chan struct{} // of one element: there is something to look at

	// Under the hub's lock.
	begun  bool   // a set was taken
	failed bool   // the hub's error was taken
	at     uint64 // the changes up to here were taken
	// revision is the hub's as of then.
	revision uint64
}

// Follow begins a watch of a service, or of all for the empty name. Stop ends it.
func (h *Hub) Follow(service string) *Reader {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.follow(service)
}

// Resume is Follow for who has the set as it was at a revision: c is what changed since then, and the Reader goes on after that. It gives
// false, and a Reader that begins with the whole set, where the hub does not remember that revision.
func (h *Hub) Resume(service string, since uint64) (r *Reader, c registry.Change, revision uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r = h.follow(service)
	if !h.known || h.err != nil {
		return r, c, 0, false
	}
	keys, ok := h.after(service, since)
	if !ok {
		return r, c, 0, false
	}
	r.begun, r.at, r.revision = true, r.view.end(), h.revision
	return r, r.view.told(h, keys), h.revision, true
}

// follow is called with the lock held.
func (h *Hub) follow(service string) *Reader {
	r := &Reader{hub: h, view: h.view(service), wake: make(chan struct{}, 1)}
	if r.view.readers == nil {
		r.view.readers = map[*Reader]struct{}{}
	}
	r.view.readers[r] = struct{}{}
	r.signal()
	return r
}

// Stop ends the watch.
func (r *Reader) Stop() {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	delete(r.view.readers, r)
	r.hub.prune(r.view)
}

// News has an element whenever there may be something to take, and one at once. It is never closed.
func (r *Reader) News() <-chan struct{} { return r.wake }

// Revision gives the last revision of the hub whose set is the one that was taken: what Resume may be asked for.
func (r *Reader) Revision() uint64 {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	if r.begun && !r.failed && r.at == r.view.end() {
		r.revision = r.hub.revision
	}
	return r.revision
}

// Set gives the set with the hub's revision, if it is another than the one that was taken, or the hub's error, once. The
// slice is shared, and only read.
func (r *Reader) Set() (nodes []registry.Node, revision uint64, ok bool, err error) {
	revision, ok, err = r.take(func(uint64, bool) { nodes = r.view.snapshot(r.hub) })
	return nodes, revision, ok, err
}

// Change gives what is new since the last one, if anything, with the hub's revision, or the hub's error, once.
func (r *Reader) Change() (c registry.Change, revision uint64, ok bool, err error) {
	revision, ok, err = r.take(func(at uint64, whole bool) {
		if whole {
			c = registry.Change{Reset: true, Put: r.view.snapshot(r.hub)}
		} else {
			c = r.view.change(r.hub, at)
		}
	})
	return c, revision, ok, err
}

// Ahead gives how many nodes Change would tell of at most, or Set where sets is true.
func (r *Reader) Ahead(sets bool) int {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	if sets || r.failed || !r.begun || r.at < r.view.begin {
		return r.hub.size(r.view)
	}
	return int(r.view.end() - r.at)
}

// Whole reports whether Change would give a whole set.
func (r *Reader) Whole() bool {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	return r.failed || !r.begun || r.at < r.view.begin
}

// Skip is Set for who reads the set elsewhere, after it: what is new is taken, if anything is, up to a revision of the hub, and all or nothing of it.
func (r *Reader) Skip(revision uint64) bool {
	_, ok, err := r.takeUpTo(revision, func(uint64, bool) {})
	return ok && err == nil
}

// take calls read where there is something to take, with what was taken before: the changes up to a number, or nothing
// that still holds.
func (r *Reader) take(read func(at uint64, whole bool)) (revision uint64, ok bool, err error) {
	return r.takeUpTo(math.MaxUint64, read)
}

// takeUpTo takes nothing where the hub has changed after a revision.
func (r *Reader) takeUpTo(last uint64, read func(at uint64, whole bool)) (revision uint64, ok bool, err error) {
	h := r.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	switch whole := r.failed || !r.begun; {
	case h.closed || h.revision > last:
	case h.err != nil:
		first := !r.failed
		r.failed = true
		return h.revision, first, h.err
	case h.known && (whole || r.at != r.view.end()):
		read(r.at, whole)
		r.begun, r.failed, r.at, r.revision = true, false, r.view.end(), h.revision
		return h.revision, true, nil
	}
	return 0, false, nil
}

func (r *Reader) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
