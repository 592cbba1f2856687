package multi

import (
	"context"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Who asks for a service's nodes, and watches none, would not learn which registrations end: the members that tell are watched for him.
const (
	attentionTime = time.Minute // after the last question
	maxAttended   = 64          // services
)

// attention is such a watch.
type attention struct{ asked time.Time }

// attend watches the members that tell of a service, or of all, unless that is done already.
func (r *Registry) attend(service string) {
	var telling []*member
	for _, m := range r.members {
		if len(r.members) > 1 && m.tells() {
			telling = append(telling, m)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attended[service]
	switch {
	case len(telling) == 0 || r.closed:
		return
	case a != nil:
		a.asked = time.Now()
		return
	case len(r.attended) >= maxAttended:
		return
	}
	a = &attention{asked: time.Now()}
	r.attended[service] = a
	ctx, stop := context.WithCancel(r.life)
	r.busy.Add(1 + len(telling))
	for _, m := range telling {
		go func() {
			defer r.busy.Done()
			r.listen(ctx, m, service)
		}()
	}
	go func() {
		defer r.busy.Done()
		defer stop()
		r.await(ctx, service, a)
	}()
}

// await returns when nobody has asked for a while.
func (r *Registry) await(ctx context.Context, service string, a *attention) {
	timer := time.NewTimer(attentionTime)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		r.mu.Lock()
		left := time.Until(a.asked.Add(attentionTime))
		if left <= 0 {
			delete(r.attended, service)
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		timer.Reset(left)
	}
}

// listen takes in which registrations end at a member.
func (r *Registry) listen(ctx context.Context, m *member, service string) {
	w := r.newWatch(service)
	for c, err := range registry.WatchChanges(ctx, m.Registry, service) {
		w.take(m, c, err)
		w.forget()
	}
}

// forget drops what only a set needs that nobody reads.
func (w *watch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.touched = nil
	clear(w.unsure)
}
