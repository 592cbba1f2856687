package dns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/lease"
	"github.com/cb02dfca/micro/pkg/registry/internal/remote"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

const (
	closeTimeout = 3 * time.Second       // for requests under way at Close, and again for the withdrawal, with
	closeEach    = 50 * time.Millisecond // for each node
	putTries     = 5
	parallel     = 8 // withdrawals at one time
)

// keeper keeps a client's nodes in the zone: it puts them when it is told to, renews their records, and removes those of others
// that are over.
type keeper struct {
	r     *Registry
	turns *remote.Turns
	life  context.Context // of the goroutines that hold nodes
	end   context.CancelFunc

	mu       sync.Mutex
	pruning  bool
	own      map[string]*held  // by node id
	services map[string]string // of own
}

// held is a node that the zone has, or may have. All but until is its turn's.
type held struct {
	node    registry.Node
	content content
	lease   time.Duration
	stands  *wire.TXT     // its record as it is, as far as is known; nil: there is none
	before  registry.Node // what that record says
	renewed time.Time     // when it was written
	due     time.Time     // when it is to be renewed, if its owner's time goes on
	maybe   bool          // something of ours may stand that is not known
	stop    func()        // ends the goroutine that holds the node, and waits for it; nil: none runs
	wake    chan struct{} // of one element: its goroutine is to look again when there is something to do

	mu    sync.Mutex
	until time.Time // when the node lapses; zero: never
}

func newKeeper(r *Registry) *keeper {
	k := &keeper{r: r, turns: remote.NewTurns(), own: map[string]*held{}, services: map[string]string{}}
	k.life, k.end = context.WithCancel(context.Background())
	return k
}

// orClosed gives ErrClosed for an error that comes of Close.
func (k *keeper) orClosed(err error) error {
	if errors.Is(err, context.Canceled) && k.r.life.Err() != nil {
		return registry.ErrClosed
	}
	return err
}

func (k *keeper) register(ctx context.Context, n registry.Node, c content, ttl time.Duration) error {
	ctx, done, err := k.turns.Begin(ctx, n.ID)
	if err != nil {
		return err
	}
	defer done()
	h := k.find(n.ID)
	if h == nil {
		h = &held{wake: make(chan struct{}, 1)}
	}
	if h.stop != nil {
		h.extend(ttl) // its owner lives, whatever becomes of this
	}
	h.node, h.content, h.lease = n, c, k.leaseOf(ttl)
	if err := k.put(ctx, h); err != nil {
		k.failed(h, err)
		return k.orClosed(err)
	}
	h.extend(ttl)
	k.keep(h)
	if h.stop == nil {
		k.hold(h)
	}
	h.nudge()
	k.r.tellWatches()
	return nil
}

// failed cleans up after a registration that failed. What the zone may have is remembered.
func (k *keeper) failed(h *held, err error) {
	if errors.Is(err, registry.ErrConflict) {
		h.end()
		h.stands, h.maybe = nil, false
		k.drop(h)
		return
	}
	if h.stands != nil || h.maybe {
		k.keep(h)
	}
	h.nudge() // so that it is tried again before its record is over
}

// leaseOf is how long a record of a node holds.
func (k *keeper) leaseOf(ttl time.Duration) time.Duration {
	if ttl == 0 || ttl > k.r.o.TTL {
		ttl = k.r.o.TTL
	}
	return max((ttl + time.Millisecond - 1).Truncate(time.Millisecond), time.Millisecond)
}

// put writes or renews a node whose turn it is, where its name is free, its own, or that of one whose time is over.
func (k *keeper) put(ctx context.Context, h *held) error {
	if h.maybe {
		if err := k.lookAgain(ctx, h, true); err != nil {
			return err
		}
	}
	for range putTries {
		now := time.Now()
		to := write(k.r.instance(h.node.ID), k.r.owner, h.lease, now.Add(h.lease), h.content)
		err := k.r.put(ctx, h.node, to, h.stands, h.before)
		if err == nil {
			moved := h.stands != nil && h.before.Service != h.node.Service
			was := h.before
			h.stands, h.before, h.renewed, h.due, h.maybe = to, h.node, now, now.Add(retry.Jitter(h.lease/3)), false
			if moved {
				k.r.tidy(ctx, k.r.pointer(was.Service))
			}
			return nil
		}
		if !isPrerequisite(err) {
			h.maybe = h.maybe || !errors.As(err, new(notSent)) && !isRefusal(err)
			return err
		}
		if err := k.lookAgain(ctx, h, true); err != nil {
			return err
		}
	}
	return k.r.unavailable(fmt.Errorf("the records of %s change too fast", h.node.ID))
}

// lookAgain finds out what stands at a node's name. It is an error if that is another owner's. One of another owner that is over is
// there to be taken, if take is set, or counts for nothing.
func (k *keeper) lookAgain(ctx context.Context, h *held, take bool) error {
	t, err := k.r.at(ctx, h.node.ID)
	switch {
	case errors.Is(err, errForeign):
		return &lease.ConflictError{ID: h.node.ID, Service: h.node.Service}
	case err != nil:
		return err
	case t == nil:
		h.stands, h.maybe = nil, false
		return nil
	}
	if t.owner != k.r.owner {
		if left, _ := k.r.seen.see(t); left > 0 {
			return &lease.ConflictError{ID: h.node.ID, Service: t.node.Service, Left: left}
		}
		if !take {
			h.stands, h.maybe = nil, false
			return nil
		}
	}
	h.stands, h.before, h.maybe = t.rr, t.node, false
	return nil
}

func (k *keeper) deregister(ctx context.Context, n registry.Node) error {
	ctx, done, err := k.turns.Begin(ctx, n.ID)
	if err != nil {
		return err
	}
	defer done()
	h := k.find(n.ID)
	if h == nil {
		h = &held{node: n, maybe: true, wake: make(chan struct{}, 1)}
		t, err := k.r.at(ctx, n.ID)
		if err != nil && !errors.Is(err, errForeign) {
			return k.orClosed(err)
		}
		if t == nil || t.node.Service != n.Service {
			return nil
		}
	}
	if h.node.Service != n.Service {
		return nil
	}
	err = k.takeAway(ctx, h)
	k.r.tellWatches()
	return k.orClosed(err)
}

// takeAway withdraws a node whose turn it is. Where that fails it lapses, and may be withdrawn again. It is an ErrConflict where the node
// is another owner's.
func (k *keeper) takeAway(ctx context.Context, h *held) error {
	h.end()
	for range putTries {
		if h.maybe {
			if err := k.lookAgain(ctx, h, false); err != nil {
				if errors.Is(err, registry.ErrConflict) {
					k.drop(h)
				}
				return err
			}
		}
		if h.stands == nil {
			k.drop(h)
			return nil
		}
		err := k.r.remove(ctx, h.before, h.stands)
		switch {
		case err == nil:
			h.stands = nil
			k.drop(h)
			return nil
		case !isPrerequisite(err):
			h.maybe = h.maybe || !errors.As(err, new(notSent)) && !isRefusal(err)
			return err
		}
		h.maybe = true
	}
	return k.r.unavailable(fmt.Errorf("the records of %s change too fast", h.node.ID))
}

// close lets requests under way end, and withdraws the nodes.
func (k *keeper) close() error {
	k.end()
	k.turns.Close(closeTimeout)
	all := slices.Collect(maps.Values(k.own))
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout+time.Duration(len(all))*closeEach)
	defer cancel()
	errs := make([]error, len(all))
	free := make(chan struct{}, parallel)
	var withdrawing sync.WaitGroup
	for i, h := range all {
		free <- struct{}{}
		withdrawing.Go(func() {
			defer func() { <-free }()
			if errs[i] = k.takeAway(ctx, h); errors.Is(errs[i], registry.ErrConflict) {
				errs[i] = nil // it is another's now
			}
		})
	}
	withdrawing.Wait()
	if left := len(k.own); left > 0 {
		first := errs[slices.IndexFunc(errs, func(err error) bool { return err != nil })]
		return fmt.Errorf("%w; nodes that were not withdrawn, and lapse: %d", first, left)
	}
	return nil
}

func (k *keeper) find(id string) *held {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.own[id]
}

func (k *keeper) keep(h *held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.own[h.node.ID], k.services[h.node.ID] = h, h.node.Service
}

// drop forgets a node.
func (k *keeper) drop(h *held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.own[h.node.ID] == h {
		delete(k.own, h.node.ID)
		delete(k.services, h.node.ID)
	}
}

// end ends the goroutine that holds the node, which may not be the caller's.
func (h *held) end() {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

// extend lets the node live for a ttl from now on.
func (h *held) extend(ttl time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until = (time.Time{}); ttl > 0 {
		h.until = time.Now().Add(ttl)
	}
}

// left is how long the node has to live; not positive when it is over.
func (h *held) left() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until.IsZero() {
		return time.Hour // to look again
	}
	return time.Until(h.until)
}

// unlimited: the node lives until it is withdrawn.
func (h *held) unlimited() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.until.IsZero()
}

func (h *held) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}
