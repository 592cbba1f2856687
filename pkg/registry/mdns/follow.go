package mdns

import (
	"context"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/link"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/wire"
)

// follow is the watches of one service, or of all: while there are any the set is kept up to date.
type follow struct {
	watches int
	ready   bool // the set was asked for, and is known
}

// follow begins a watch of a service: it listens, and asks for what there is. The returned function ends it.
func (r *Registry) follow(ctx context.Context, service string) (end func(), err error) {
	e, err := r.listen(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	w := r.watched[service]
	if w == nil {
		w = &follow{}
		r.watched[service] = w
	}
	w.watches++
	if r.cache == nil {
		r.cache = newCache()
	}
	r.mu.Unlock()
	if err := r.catchUp(ctx, service); err != nil {
		r.unfollow(service)
		return nil, err
	}
	e.nudge()
	return func() { r.unfollow(service) }, nil
}

// catchUp asks for a service's nodes, unless they are known.
func (r *Registry) catchUp(ctx context.Context, service string) error {
	if service != "" && !wire.Askable(service, r.domain) || r.follows(service) {
		return nil
	}
	q, err := r.ask(ctx, service)
	if err != nil {
		return err
	}
	until := q.first
	if service == "" {
		until = q.done
	}
	if err := r.await(ctx, until); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watched[service].ready = true
	return nil
}

func (r *Registry) unfollow(service string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.watched[service]
	if w.watches--; w.watches == 0 {
		delete(r.watched, service)
	}
	if len(r.watched) > 0 || r.opts.Scope == LAN {
		return
	}
	for _, h := range r.cache.nodes { // what is not kept up to date is not kept
		r.forget(h.node)
	}
	r.cache = nil
}

// follows reports whether the set of a service is kept up to date.
func (r *Registry) follows(service string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range []*follow{r.watched[service], r.watched[""]} {
		if w != nil && w.ready {
			return true
		}
	}
	return false
}

// learn takes a response into what watches see.
func (r *Registry) learn(p link.Packet, from source, m *wire.Message, now time.Time) {
	if len(m.Found) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cache == nil || r.closed {
		return
	}
	for _, f := range m.Found {
		if r.guard.believes(p, from, f) && !r.mine(f) {
			r.hear(f, from, now)
		}
	}
}

// The rest is called with the lock held.

// hear takes in one node that another announced.
func (r *Registry) hear(f wire.Found, from source, now time.Time) {
	var old registry.Node
	if h := r.cache.nodes[f.Instance]; h != nil {
		old = h.node
	}
	learnt := r.cache.apply(f, from, now)
	if h := r.cache.nodes[f.Instance]; h != nil && r.endpoint != nil {
		if due := sooner(h.refresh, h.expires); sooner(r.planned, due).Equal(due) { // it would wake too late
			r.endpoint.nudge()
		}
	}
	switch {
	case !learnt && !f.Gone && r.cache.nodes[f.Instance] == nil && !r.cache.told:
		r.cache.told = true
		r.log.Warn("a node is left out: too much is announced, or its id is another's", "node", f.Node.ID, "service", f.Node.Service, "nodes", len(r.cache.nodes), "bytes", r.cache.size)
	case !learnt:
	case f.Gone:
		r.forget(old)
	default:
		r.hub.Put(f.Node)
	}
}

// mine reports whether a node is one that was registered here, whatever another says of it.
func (r *Registry) mine(f wire.Found) bool {
	if f.Gone {
		for _, o := range r.table.nodes {
			if o.rec.Instance == f.Instance {
				return true
			}
		}
		return false
	}
	o := r.table.nodes[f.Node.ID]
	if o == nil {
		return false
	}
	if o.rec.Instance == f.Instance && o.rec.Addr != f.Addr && !o.warned {
		o.warned = true
		r.log.Warn("another node has the same id", "id", f.Node.ID, "service", f.Node.Service, "address", f.Node.Address, "own", o.rec.Node.Address)
	}
	return true
}

// forget takes a node out of what watches see, unless its id stands for another by now.
func (r *Registry) forget(n registry.Node) {
	if now, ok := r.hub.Lookup(n.ID); ok && now.Service == n.Service {
		r.hub.Remove(n.ID)
	}
}

// wanted reports whether a watch needs the nodes of a service.
func (r *Registry) wanted(service string) bool {
	return r.watched[service] != nil || r.watched[""] != nil
}
