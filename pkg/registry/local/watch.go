package local

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
)

const (
	// rescanEvery is how often a watch reads the whole folder although events tell it of changes: they may be lost, as
	// when the folder's last holder delays the event of its removal.
	rescanEvery = 10 * time.Second
	// A file is told to be closed a moment before its lock is free, a long one where the cores are taken: it is looked at
	// again after firstRecheck, and then after twice as long each time up to maxRecheck, for recheckFor.
	firstRecheck = 500 * time.Microsecond
	maxRecheck   = 16 * time.Millisecond
	recheckFor   = 3 * time.Second
)

// watching keeps a hub up to date while somebody watches. It is one goroutine for all watches of a registry.
type watching struct {
	r    *Registry
	hub  *hub.Hub
	stop context.CancelFunc
	done <-chan struct{}
	ask  chan chan<- struct{} // a rescan is wanted; the answer follows it

	users int // under the registry's watchMu

	// The rest is the goroutine's own.
	events   *events // nil while the folder is polled
	watched  identity
	ids      map[string]string // file name to node id, of what is in the hub
	suspects map[string]suspect
	polls    bool // it was logged that the folder is polled
}

// suspect is a file that was closed by its owner, and is locked all the same.
type suspect struct {
	at    time.Time     // when to look
	gap   time.Duration // from the look before
	until time.Time
}

// batch is what the folder's events told at once.
type batch struct {
	names  map[string]bool // what changed, and whether it was closed by who wrote it
	all    bool            // anything may have changed
	folder bool            // the folder was removed or moved
}

// Watch watches the folder, as registry.Finder says. On Linux it hears of changes from inotify, and of a killed owner
// as its file is closed; where there are no events it looks each PollInterval.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return watch(ctx, r, func(h *hub.Hub) iter.Seq2[[]registry.Node, error] { return h.Watch(ctx, service) })
}

// WatchChanges is Watch by changes, as registry.ChangeWatcher says.
func (r *Registry) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return watch(ctx, r, func(h *hub.Hub) iter.Seq2[registry.Change, error] { return h.WatchChanges(ctx, service) })
}

// watch gives what a watch of the registry's hub yields, which it keeps up to date meanwhile.
func watch[T any](ctx context.Context, r *Registry, read func(*hub.Hub) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if ctx.Err() != nil {
			return
		}
		w, first := r.joinWatching()
		if w == nil {
			return
		}
		defer r.leaveWatching(w)
		if !first && !w.refreshed(ctx) {
			return
		}
		for news, err := range read(w.hub) {
			if !yield(news, err) {
				return
			}
		}
	}
}

// joinWatching gives the registry's watching, and whether it has just been started for the caller; nil after Close.
func (r *Registry) joinWatching() (*watching, bool) {
	r.watchMu.Lock()
	defer r.watchMu.Unlock()
	select {
	case <-r.done:
		return nil, false
	default:
	}
	first := r.watching == nil
	if first {
		ctx, stop := context.WithCancel(context.Background())
		w := &watching{
			r: r, hub: hub.NewPending(), stop: stop, done: ctx.Done(), ask: make(chan chan<- struct{}),
			ids: map[string]string{}, suspects: map[string]suspect{},
		}
		r.watching = w
		r.wg.Go(w.run)
	}
	r.watching.users++
	return r.watching, first
}

func (r *Registry) leaveWatching(w *watching) {
	r.watchMu.Lock()
	defer r.watchMu.Unlock()
	if w.users--; w.users > 0 {
		return
	}
	w.stop()
	if r.watching == w {
		r.watching = nil
	}
}

func (r *Registry) endWatching() {
	r.watchMu.Lock()
	defer r.watchMu.Unlock()
	if r.watching != nil {
		r.watching.hub.Close()
		r.watching.stop()
	}
}

// refreshed has the folder read, so that what was registered before a watch began is in its first set. It reports
// whether there is something to watch still.
func (w *watching) refreshed(ctx context.Context) bool {
	answer := make(chan struct{})
	select {
	case w.ask <- answer:
	case <-ctx.Done():
		return false
	case <-w.done:
		return false
	}
	<-answer
	return true
}

func (w *watching) run() {
	defer func() {
		if w.events != nil {
			w.events.close()
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	rescan := time.Now().Add(w.refresh())
	for {
		timer.Reset(time.Until(w.earliest(rescan)))
		var batches <-chan batch
		if w.events != nil {
			batches = w.events.batches
		}
		select {
		case <-w.done:
			return
		case answer := <-w.ask:
			rescan = time.Now().Add(w.refresh())
			close(answer)
		case b, ok := <-batches:
			if !ok || !w.apply(b) {
				rescan = time.Now().Add(w.refresh())
			}
		case now := <-timer.C:
			if !now.Before(rescan) || !w.recheck(now) {
				rescan = time.Now().Add(w.refresh())
			}
		}
	}
}

// earliest gives the next time at which there is something to do.
func (w *watching) earliest(t time.Time) time.Time {
	for _, s := range w.suspects {
		if s.at.Before(t) {
			t = s.at
		}
	}
	return t
}

// refresh reads the whole folder, and gives the time until it is to be read again.
func (w *watching) refresh() time.Duration {
	for range 3 { // the folder may be exchanged between the two steps
		w.listen()
		seen, err := w.r.read.scan(w.r.dir, "")
		if err != nil {
			w.hub.Fail(err)
			return w.r.poll
		}
		w.ids = seen.names
		w.hub.Replace(seen.nodes)
		if w.events == nil {
			return w.r.poll
		}
		if seen.folder == w.watched {
			return rescanEvery
		}
		w.deafen()
	}
	return w.r.poll
}

// listen asks for events, unless they come already, or are not to be had.
func (w *watching) listen() {
	if w.events != nil || w.r.noEvents {
		return
	}
	d, err := w.r.dir.openOrMake()
	if err != nil {
		return // the scan says so
	}
	w.watched = d.id // before events are asked for: if the folder is exchanged meanwhile, the scan sees another
	d.close()
	w.events, err = listen(w.r.dir.path)
	if err != nil && !w.polls && !errors.Is(err, errors.ErrUnsupported) {
		w.polls = true
		w.r.log.Warn("registry: local: no events of the folder, it is polled", "interval", w.r.poll, "error", err)
	}
}

func (w *watching) deafen() {
	w.events.close()
	w.events = nil
}

// apply looks at what changed, and reports false where the whole folder is to be read.
func (w *watching) apply(b batch) bool {
	if b.folder {
		w.deafen()
	}
	if b.folder || b.all {
		return false
	}
	now := time.Now()
	var names []string
	for name, closed := range b.names {
		if kindOf(name, w.r.read.key) != ours {
			continue
		}
		names = append(names, name)
		if closed {
			w.suspects[name] = suspect{at: now, gap: firstRecheck / 2, until: now.Add(recheckFor)}
		}
	}
	return len(names) == 0 || w.look(names, now)
}

// recheck looks again at closed files that are still locked.
func (w *watching) recheck(now time.Time) bool {
	var due []string
	for name, s := range w.suspects {
		if !now.Before(s.at) {
			due = append(due, name)
		}
	}
	return w.look(due, now)
}

// look brings the hub up to date about some files, and reports false where the whole folder is to be read.
func (w *watching) look(names []string, now time.Time) bool {
	d, err := openFolder(w.r.dir)
	if err != nil {
		return false
	}
	defer d.close()
	if d.id != w.watched {
		return false
	}
	var buf []byte
	for _, name := range names {
		var n registry.Node
		var ok bool
		if n, ok, buf, err = w.r.read.look(d, name, buf, nil); err != nil {
			return false
		}
		if _, closed := w.suspects[name]; closed && !ok {
			w.r.read.deaths.confirm(name)
		}
		id, known := w.ids[name]
		switch {
		case ok:
			w.ids[name] = n.ID
			w.hub.Put(n)
		case known:
			delete(w.ids, name)
			w.hub.Remove(id)
		}
		w.suspect(name, ok, now)
	}
	return true
}

// suspect says when a file is to be looked at again, if it was closed and yet is alive.
func (w *watching) suspect(name string, alive bool, now time.Time) {
	s, ok := w.suspects[name]
	if !ok {
		return
	}
	s.gap = min(2*s.gap, maxRecheck)
	if !alive || now.After(s.until) {
		delete(w.suspects, name)
		return
	}
	s.at = now.Add(s.gap)
	w.suspects[name] = s
}
