package multi

import (
	"context"
	"maps"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// stampForm is RFC 3339 as precise as it has to be: no two stamps of a Registry are the same.
const (
	stampForm = "2006-01-02T15:04:05.000000Z"
	stampStep = time.Microsecond
)

// promise is what the copies of a node that is registered here say, and which members have those.
type promise struct {
	stamp string       // empty: the copies have none
	held  map[int]bool // members that took one
	lost  bool         // a member that had one failed since: its copy may lapse, and the others have to differ by then
}

// stamps reports whether nodes are registered here with a stamp: where two members, at least, are no authorities.
func (r *Registry) stamps() bool {
	n := 0
	for _, m := range r.members {
		if !m.Authority {
			n++
		}
	}
	return n > 1
}

// promise gives what the copies of a node are to say with its next registration. Without a ttl that is nothing, as nobody would come to
// change it.
func (r *Registry) promise(id string, ttl time.Duration) *promise {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch p := r.own[id]; {
	case ttl == 0 || !r.stamps():
		return &promise{}
	case p == nil || p.stamp == "" || p.lost:
		return r.newPromise()
	default:
		return p
	}
}

// newPromise is called with the lock held.
func (r *Registry) newPromise() *promise {
	now := time.Now().UTC().Truncate(stampStep)
	if !now.After(r.stamped) {
		now = r.stamped.Add(stampStep)
	}
	r.stamped = now
	return &promise{stamp: now.Format(stampForm), held: map[int]bool{}}
}

// on gives the node with the stamp.
func (p *promise) on(n registry.Node) registry.Node {
	bare := unstamped(n)
	if p.stamp == "" {
		return bare
	}
	n.Metadata = make(map[string]string, len(bare.Metadata)+1)
	maps.Copy(n.Metadata, bare.Metadata)
	n.Metadata[registry.MetaRegistered] = p.stamp
	if registry.Validate(n) != nil { // there is no room for it
		return bare
	}
	return n
}

// unstamped gives the node as its owner registered it.
func unstamped(n registry.Node) registry.Node {
	if _, ok := n.Metadata[registry.MetaRegistered]; ok {
		n.Metadata = maps.Clone(n.Metadata)
		if delete(n.Metadata, registry.MetaRegistered); len(n.Metadata) == 0 {
			n.Metadata = nil
		}
	}
	return n
}

// kept takes in how a registration went. Where a member failed that had the node, those that did not get it with another stamp.
func (r *Registry) kept(ctx context.Context, n registry.Node, ttl time.Duration, p *promise, errs []error) *promise {
	if p.stamp == "" {
		return p
	}
	taken := 0
	r.mu.Lock()
	for i, err := range errs {
		if err == nil {
			p.held[i] = true
			taken++
		} else if p.held[i] {
			p.lost = true
		}
	}
	if !p.lost || taken == 0 {
		r.mu.Unlock()
		return p
	}
	next := r.newPromise()
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	again := make([]error, len(errs))
	r.each(func(m *member) {
		if errs[m.index] == nil {
			again[m.index] = m.Registry.Register(ctx, next.on(n), ttl)
		}
	})
	for i := range errs {
		if errs[i] == nil {
			next.held[i] = true
			next.lost = next.lost || again[i] != nil
		}
	}
	return next
}
