package dns

import (
	"context"
	"errors"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

// errGone: there is nothing to hold any more.
var errGone = errors.New("the node is gone")

// hold starts the goroutine that renews a node's record. It is the node's turn. The first node starts the one that removes what
// is over.
func (k *keeper) hold(h *held) {
	ctx, cancel := context.WithCancel(k.life)
	done := make(chan struct{})
	h.stop = func() { cancel(); <-done }
	id, rest := h.node.ID, h.rest()
	started := k.turns.Go(func(context.Context) {
		defer close(done)
		defer cancel()
		for wait := time.Duration(0); ; {
			timer := time.NewTimer(max(0, min(rest, h.left())))
			select {
			case <-ctx.Done():
			case <-h.wake:
			case <-timer.C:
			}
			timer.Stop()
			var err error
			rest, err = k.mend(ctx, h, id)
			switch {
			case ctx.Err() != nil || errors.Is(err, errGone):
				return
			case err == nil:
				wait = 0
			case isRefusal(err):
				rest = retry.Jitter(rest)
			default:
				wait = min(retry.Next(wait), rest)
				rest = retry.Jitter(wait)
			}
		}
	})
	if !started { // Close withdraws it
		h.stop = nil
		cancel()
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.pruning {
		k.pruning = k.turns.Go(func(context.Context) { k.prune() })
	}
}

// rest is how long there is nothing to do for a node: until its record is to be renewed, or its owner's time is over, where the record holds
// about as long.
func (h *held) rest() time.Duration {
	left := h.left()
	if h.unlimited() || time.Until(h.renewed.Add(h.lease+h.lease/6)) < left {
		return min(left, time.Until(h.due))
	}
	return left
}

// mend renews a node where that is due, or withdraws it where its time is over. It gives when to do so next.
func (k *keeper) mend(ctx context.Context, h *held, id string) (time.Duration, error) {
	ctx, done, err := k.turns.Begin(ctx, id)
	if err != nil {
		return 0, err
	}
	defer done()
	if h.left() <= 0 {
		h.stop = nil // it is this goroutine
		if err := k.takeAway(ctx, h); err != nil {
			k.drop(h) // it lapses
		}
		k.r.tellWatches()
		return 0, errGone
	}
	if rest := h.rest(); rest > 0 {
		return rest, nil
	}
	err = k.put(ctx, h)
	switch {
	case err == nil:
		return h.rest(), nil
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(err, registry.ErrConflict):
		k.r.o.Logger.Warn("DNS has a node of another owner in the place of ours", "dns", k.r.host, "node", id, "error", err)
		h.stop, h.stands, h.maybe = nil, nil, false
		k.drop(h)
		return 0, errGone
	case !errors.Is(err, registry.ErrUnavailable):
		k.r.o.Logger.Warn("the nameserver does not take a node again", "dns", k.r.host, "node", id, "error", err)
	}
	return h.lease / 3, err
}

// prune removes what is over of the services of this keeper's nodes, now and then.
func (k *keeper) prune() {
	for retry.Pause(k.life, retry.Jitter(k.r.o.TTL)) {
		for service := range k.ownServices() {
			f, err := k.r.look(k.life, service)
			if err == nil {
				_, err = k.r.clear(k.life, f)
			}
			if err != nil {
				break
			}
		}
	}
}

func (k *keeper) ownServices() map[string]bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]bool{}
	for _, service := range k.services {
		out[service] = true
	}
	return out
}
