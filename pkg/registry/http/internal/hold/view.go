package hold

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// faded is whose node that was, and until when it shows.
type faded struct {
	label string
	until time.Time
}

// watch keeps the set. While the registry is away, what was known stays.
func (f *front) watch() {
	for c, err := range registry.WatchChanges(f.life, f.r, "") {
		f.mu.Lock()
		if f.away != (err != nil) {
			f.away = err != nil
			if f.away {
				f.logger.Warn("registry server does not reach its registry", "registry", f.name, "error", err)
			} else {
				f.logger.Info("registry server reaches its registry again", "registry", f.name)
			}
		}
		if err == nil {
			f.apply(c)
		}
		f.mu.Unlock()
	}
}

// apply takes in what changed. It is called with the lock held.
func (f *front) apply(c registry.Change) {
	put := make([]registry.Node, 0, len(c.Put))
	lapsed := f.lapsed(c.Gone)
	if c.Reset {
		for id := range f.wanted {
			if !f.alive[f.holder[id]] {
				lapsed = append(lapsed, id)
			}
		}
		clear(f.label)
		clear(f.holder)
		clear(f.alive)
		clear(f.fading)
	}
	var gone []string
	for _, id := range c.Gone {
		delete(f.label, id)
		if _, shows := f.fading[id]; !shows {
			delete(f.holder, id)
			gone = append(gone, id)
		}
	}
	for _, n := range c.Put {
		if n.Service == copies {
			f.alive[n.ID] = true
			f.asked(n)
			continue
		}
		f.label[n.ID], f.holder[n.ID] = n.Metadata[leaseLabel], n.Metadata[copyLabel]
		delete(f.fading, n.ID)
		put = append(put, plainNode(n))
	}
	if c.Reset {
		f.hub.Replace(put)
	} else {
		f.hub.Apply(put, gone)
	}
	f.succeed(lapsed)
	close(f.news)
	f.news = make(chan struct{})
}

// lapsed gives those of the nodes that go whose holder is no more: their owners have not withdrawn them, and may have come to another copy,
// which puts them again. They show a while longer. It is called with the lock held.
func (f *front) lapsed(gone []string) (ids []string) {
	for _, id := range gone {
		delete(f.alive, id) // a copy goes before its nodes
	}
	for _, id := range gone {
		if _, there := f.label[id]; !there {
			continue
		}
		if label, holder := f.label[id], f.holder[id]; label != "" && holder != f.id && !f.alive[holder] {
			ids = append(ids, id)
			f.fading[id] = faded{label, time.Now().Add(fadingTime)}
		} else {
			delete(f.wanted, id)
		}
	}
	if len(ids) > 0 {
		f.busy.Go(func() {
			select {
			case <-f.life.Done():
			case <-time.After(fadingTime):
				f.fade(ids)
			}
		})
	}
	return ids
}

// fade takes away what nobody has put again.
func (f *front) fade(ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	var gone []string
	for _, id := range ids {
		if w, ok := f.fading[id]; ok && !w.until.After(now) {
			delete(f.fading, id)
			delete(f.holder, id)
			gone = append(gone, id)
		}
	}
	if len(gone) > 0 {
		f.hub.Apply(nil, gone)
		close(f.news)
		f.news = make(chan struct{})
	}
}

// until waits until a condition holds, which is looked at with the lock held after each change.
func (f *front) until(ctx context.Context, holds func() bool) error {
	for {
		f.mu.Lock()
		news, ok := f.news, holds()
		f.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		case <-f.life.Done():
			return registry.ErrClosed
		}
	}
}

// wait waits for a condition no longer than for a while, and reports whether it holds. It is looked at with the lock held after each change.
func (f *front) wait(ctx context.Context, most time.Duration, holds func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return f.until(ctx, holds) == nil
}

// sight is what the watch says of a node.
type sight struct {
	there         bool
	label, holder string
}

func (f *front) seen(id string) sight {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seenLocked(id)
}

// seenLocked is called with the lock held.
func (f *front) seenLocked(id string) sight {
	label, there := f.label[id]
	return sight{there, label, f.holder[id]}
}

// place is where a node stands in the registry.
type place struct {
	there bool
	node  registry.Node // with the labels of who holds it
}

func (p *place) label() string  { return p.node.Metadata[leaseLabel] }
func (p *place) holder() string { return p.node.Metadata[copyLabel] }

// find asks the registry where a node stands. An empty service has it look everywhere. One that another copy holds is told of when the watch
// has it, too, where it is of the label.
func (f *front) find(ctx context.Context, service, id, label string) (place, error) {
	at, err := f.findNow(ctx, service, id)
	if err != nil || !at.there || at.label() != label || at.holder() == f.id {
		return at, err
	}
	if !f.wait(ctx, visibleTime, func() bool { return f.label[id] == label }) {
		return place{}, fmt.Errorf("%w: its changes come late", registry.ErrUnavailable)
	}
	return at, nil
}

func (f *front) findNow(ctx context.Context, service, id string) (place, error) {
	for service := range f.services(service, id) {
		nodes, err := f.r.Get(ctx, service)
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			return place{}, err
		}
		if at := placeOf(nodes, id); at.there {
			return at, nil
		}
	}
	if service != "" {
		return place{}, nil
	}
	nodes, err := f.r.List(ctx)
	return placeOf(nodes, id), err
}

// services gives those in which a node may stand, for all that is known.
func (f *front) services(service, id string) map[string]bool {
	names := map[string]bool{}
	if service != "" {
		names[service] = true
	}
	if n, ok := f.hub.Lookup(id); ok {
		names[n.Service] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if own, ok := f.own[id]; ok {
		names[own.node.Service] = true
	}
	return names
}

func placeOf(nodes []registry.Node, id string) place {
	for _, n := range nodes {
		if n.ID == id {
			return place{true, n}
		}
	}
	return place{}
}
