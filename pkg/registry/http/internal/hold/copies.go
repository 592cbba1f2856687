package hold

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
)

// copies is the service of the hidden nodes by which copies know of each other, and ask each other: to let go of a node, or to renew it.
const (
	copies       = "micro.registry.copy"
	askKind      = "ask" // of a request: askLetGo or askRenew; a copy's own node has none
	askLetGo     = "let-go"
	askRenew     = "renew"
	askNode      = "node"
	askService   = "service"
	askHolder    = "holder" // who is asked
	askTTL       = "ttl"
	askLease     = 10 * time.Second
	askTime      = 2 * time.Second // for a request to be seen, and to be withdrawn
	letGoTime    = 4 * time.Second // for another copy to do as it is asked: less than clients wait
	lookTime     = time.Second / 2 // between two looks at the registry whether it has
	presenceTTL  = 3 * time.Second // far shorter than most leases: who holds a node that lapses has to be known for dead before
	presenceTime = presenceTTL / 3 // between two renewals of it
	visibleTime  = 2 * time.Second // for what was put to come back by the watch
	readyTime    = 2 * time.Second // for the first set
	succeedTime  = 5 * time.Second // for one try to put a node whose holder is gone
	fadingTime   = succeedTime     // how long a node shows that lapsed because its holder is gone: another copy puts it again
	releaseTime  = 10 * time.Second
	parallelAsks = 16 // requests to the registry at one time, of one client's that leaves
)

// wanted is a node that another copy holds, and whose owner came to this one.
type wanted struct {
	node  registry.Node
	until time.Time
}

// present says that this copy is there.
func (f *front) present() {
	tick := time.NewTicker(presenceTime)
	defer tick.Stop()
	self := message(f.id, nil)
	for {
		select {
		case <-f.life.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(f.life), askTime)
			defer cancel()
			_ = f.r.Deregister(ctx, self) // or it lapses
			return
		case <-tick.C:
		}
		f.sweep(time.Now())
		ctx, cancel := context.WithTimeout(f.life, presenceTTL)
		_ = f.r.Register(ctx, self, presenceTTL) // the watch tells when the registry is away
		cancel()
	}
}

// sweep forgets the nodes whose owners do not come any more.
func (f *front) sweep(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.wanted, func(_ string, w wanted) bool { return now.After(w.until) })
	maps.DeleteFunc(f.own, func(_ string, o owned) bool { return !o.until.IsZero() && now.After(o.until) })
}

// message is a hidden node by which copies speak.
func message(id string, labels map[string]string) registry.Node {
	n := registry.Node{ID: id, Service: copies, Address: "127.0.0.1:1", Metadata: map[string]string{registry.MetaHidden: "true"}}
	maps.Copy(n.Metadata, labels)
	return n
}

// asked does what another copy asks for. It is called with the lock held.
func (f *front) asked(n registry.Node) {
	id, kind, label := n.Metadata[askNode], n.Metadata[askKind], n.Metadata[leaseLabel]
	if kind == "" || n.Metadata[askHolder] != f.id {
		return
	}
	f.busy.Go(func() {
		ctx, cancel := context.WithTimeout(f.life, letGoTime)
		defer cancel()
		give, err := f.take(ctx, id)
		if err != nil {
			return
		}
		defer give()
		held, mine := f.owns(id, label)
		at, err := f.findNow(ctx, n.Metadata[askService], id)
		if err == nil && at.there { // the answer to what was put last may have been lost
			held, mine = at.node, at.holder() == f.id && at.label() == label
		}
		if err != nil || !mine || !f.stands(ctx, n) { // the watch may tell late of it
			return
		}
		if ttl, bad := time.ParseDuration(n.Metadata[askTTL]); kind == askRenew && bad == nil {
			err = f.renew(ctx, held, ttl)
		} else if err = f.r.Deregister(ctx, held); err == nil {
			f.disown(id)
		}
		if err != nil && f.life.Err() == nil {
			f.logger.Warn("registry server cannot do as another copy of it asks", "node", id, "ask", kind, "error", err)
		}
	})
}

// stands reports whether a request has not been withdrawn.
func (f *front) stands(ctx context.Context, request registry.Node) bool {
	all, err := f.r.Get(ctx, copies)
	at := placeOf(all, request.ID)
	return err == nil && at.there
}

// renew renews a node that this copy put.
func (f *front) renew(ctx context.Context, n registry.Node, ttl time.Duration) error {
	err := f.r.Register(ctx, n, ttl)
	if err == nil {
		f.mu.Lock()
		f.own[n.ID] = owned{n, end(ttl)}
		f.mu.Unlock()
	}
	return err
}

// succeed puts those of the nodes that are wanted here, and that nobody holds. It is called with the lock held.
func (f *front) succeed(ids []string) {
	for _, id := range ids {
		if _, there := f.label[id]; there {
			continue
		}
		if _, ok := f.wanted[id]; !ok {
			continue
		}
		f.busy.Go(func() {
			ctx, cancel := context.WithTimeout(f.life, succeedTime)
			defer cancel()
			give, err := f.take(ctx, id)
			if err != nil {
				return
			}
			defer give()
			f.mu.Lock()
			w, still := f.wanted[id]
			delete(f.wanted, id)
			f.mu.Unlock()
			left := time.Until(w.until)
			if !still || left <= 0 { // its owner was faster, or does not come any more
				return
			}
			err = f.put(ctx, w.node, left)
			if err != nil && !errors.Is(err, registry.ErrConflict) && f.life.Err() == nil { // another copy may have been faster
				f.logger.Warn("registry server cannot take a node over", "node", id, "error", err)
			}
		})
	}
}

// elsewhere puts a node that another copy holds, for the same owner.
func (f *front) elsewhere(ctx context.Context, at place, n registry.Node, ttl time.Duration) error {
	same := plainNode(at.node).Equal(plainNode(n))
	f.mu.Lock()
	_, there := f.label[n.ID]
	dead := !f.alive[at.holder()]
	if there && (same || dead) {
		f.wanted[n.ID] = wanted{n, time.Now().Add(ttl)}
	}
	f.mu.Unlock()
	switch {
	case !there:
		return f.put(ctx, n, ttl)
	case same && dead:
		return nil // it is there, and is to stay
	case dead:
		return isGone(n.ID)
	case same:
		f.busy.Go(func() {
			if withdraw, err := f.ask(f.life, at, map[string]string{askKind: askRenew, askTTL: ttl.String()}); err == nil {
				defer withdraw()
				f.wait(f.life, askTime, func() bool { return false })
			}
		})
		return nil
	}
	if err := f.letGo(ctx, at.node.Service, n.ID, at.label(), true); err != nil {
		return err
	}
	return f.put(ctx, n, ttl)
}

// isGone is the error where the copy that holds a node is no more.
func isGone(id string) error {
	return fmt.Errorf("%w: %s is held by a copy of this server that is gone: it changes when its lease ends", registry.ErrUnavailable, id)
}

// letGo asks the copy that holds a node to let go of it, and waits until it has; or, where mine will do, until this one holds it.
func (f *front) letGo(ctx context.Context, service, id, label string, mine bool) error {
	ctx, cancel := context.WithTimeout(ctx, letGoTime)
	defer cancel()
	for asked := ""; ; {
		was := f.seen(id)
		at, err := f.findNow(ctx, service, id)
		switch {
		case err != nil:
		case !at.there || at.label() != label || mine && at.holder() == f.id:
			return nil
		case !f.lives(at.holder()):
			return isGone(id)
		case asked != at.holder():
			asked = at.holder()
			withdraw, err := f.ask(ctx, at, map[string]string{askKind: askLetGo})
			if err != nil {
				return err
			}
			defer withdraw()
		}
		f.wait(ctx, lookTime, func() bool { return f.seenLocked(id) != was })
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %s is held by another copy of this server, which does not let go: it lapses with its lease", registry.ErrUnavailable, id)
		}
	}
}

func (f *front) lives(copy string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.alive[copy]
}

// ask asks the copy that holds a node. The caller withdraws the request.
func (f *front) ask(ctx context.Context, at place, labels map[string]string) (withdraw func(), err error) {
	labels[askNode], labels[askService], labels[askHolder], labels[leaseLabel] = at.node.ID, at.node.Service, at.holder(), at.label()
	request := message("ask-"+wire.Random(8), labels)
	if err := f.r.Register(ctx, request, askLease); err != nil {
		return nil, err
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
		defer cancel()
		_ = f.r.Deregister(ctx, request) // or it lapses
	}, nil
}
