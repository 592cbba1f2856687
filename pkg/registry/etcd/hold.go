package etcd

import (
	"context"
	"errors"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

// errGone: there is nothing to hold any more.
var errGone = errors.New("the node is gone")

// hold starts the goroutine that keeps a node's lease alive and looks after its key. It is the node's turn.
func (k *keeper) hold(h *held) {
	ctx, cancel := context.WithCancel(k.life)
	done := make(chan struct{})
	h.stop = func() { cancel(); <-done }
	lease, seen := h.lease, h.seen
	// Between two tries at most: an etcd that is back waits for as long as the lease lasts.
	longest := min(retry.Last, time.Duration(h.seconds)*time.Second/3)
	holding := k.turns.Go(func(context.Context) {
		defer close(done)
		defer cancel()
		for wait := time.Duration(0); ; {
			begun := time.Now()
			k.await(ctx, h, lease, seen)
			if wait = retry.Next(wait); time.Since(begun) > steady {
				wait = 0
			}
			var err error
			if lease, seen, err = k.restore(ctx, h, wait, longest); err != nil {
				return
			}
		}
	})
	if !holding { // Close has begun
		cancel()
		close(done)
	}
}

// restore tries, after a while, until the node stands as it should. It is an error if it ends otherwise.
func (k *keeper) restore(ctx context.Context, h *held, wait, longest time.Duration) (lease clientv3.LeaseID, seen int64, err error) {
	for {
		timer := time.NewTimer(max(0, min(retry.Jitter(wait), h.left())))
		select {
		case <-ctx.Done():
		case <-h.wake:
		case <-timer.C:
		}
		timer.Stop()
		lease, seen, err = k.mend(ctx, h)
		if err == nil || ctx.Err() != nil || errors.Is(err, errGone) {
			return lease, seen, err
		}
		if wait = min(retry.Next(wait), longest); refused(err) {
			wait = refusedRetry
		}
	}
}

// await returns when something may be wrong with a node, or when its ttl is over.
func (k *keeper) await(ctx context.Context, h *held, lease clientv3.LeaseID, seen int64) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	alive, err := k.r.client.KeepAlive(ctx, lease)
	if err != nil {
		return // the client is closed
	}
	up, changed := k.r.link.while(), make(chan struct{})
	watching.Go(func() {
		defer close(changed)
		k.untilChanged(ctx, h.key, lease, seen)
	})
	over := time.NewTimer(h.left())
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			return
		case <-up.Done(): // what comes back may have lost its data
			return
		case _, ok := <-alive:
			if !ok { // the lease is lost, or nothing was heard of etcd for as long as it lasts
				return
			}
		case <-over.C:
			if h.left() <= 0 {
				return
			}
			over.Reset(h.left())
		}
	}
}

// untilChanged returns when the key is no more, or has another lease, or when that cannot be known.
func (k *keeper) untilChanged(ctx context.Context, key string, lease clientv3.LeaseID, seen int64) {
	for rsp := range k.r.client.Watch(k.r.streams(ctx), key, clientv3.WithRev(seen+1)) {
		if err := rsp.Err(); err != nil {
			if wantsLogin(err) {
				k.r.renewStreams()
			}
			return
		}
		for _, e := range rsp.Events {
			if e.Type == clientv3.EventTypeDelete || e.Kv.Lease != int64(lease) {
				return
			}
		}
	}
}

// mend looks after a node that may be lost, and puts it again if it is; one whose time is over it withdraws. It gives the
// lease that the node has then, and the revision at which it stood.
func (k *keeper) mend(ctx context.Context, h *held) (clientv3.LeaseID, int64, error) {
	ctx, done, err := k.turns.Begin(ctx, h.id)
	if err != nil {
		return 0, 0, err
	}
	defer done()
	if h.left() > 0 {
		err = k.renew(ctx, h, h.value, h.seconds)
		if err == nil || ctx.Err() != nil || !errors.Is(err, registry.ErrConflict) {
			if err != nil && ctx.Err() == nil && !errors.Is(err, registry.ErrUnavailable) {
				k.r.o.Logger.Warn("etcd does not take a node again", "etcd", k.r.host, "node", h.id, "error", err)
			}
			return h.lease, h.seen, err
		}
		k.r.o.Logger.Warn("etcd has a node of another owner in the place of ours", "etcd", k.r.host, "node", h.id, "error", err)
	} else {
		h.forgetLease()
		_ = k.revokeOld(ctx, h) // else it lapses
	}
	if ctx.Err() != nil {
		return 0, 0, ctx.Err()
	}
	h.stop = nil // it is this goroutine
	k.drop(h)
	return 0, 0, errGone
}
