package local

import (
	"context"
	"errors"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

const (
	restoreEvery = 5 * time.Second // how often an owner looks whether its files are still there
	sweepAfter   = 24 * time.Hour  // the age at which what another boot or namespace left behind is removed
	tempAfter    = time.Minute     // the age at which a file that its maker did not finish is removed
)

// keeper is the goroutine that withdraws what was not renewed, and puts back what was deleted. It runs from the first
// Register to Close.
type keeper struct {
	wake chan struct{} // of one element: there is an earlier time to look than next
	next time.Time     // when it looks; under the registry's lock
}

// keepUntil has the keeper look when a node expires; zero: there is nothing to expire. It is called with r.mu held.
func (r *Registry) keepUntil(expires time.Time) {
	k := r.keeper
	if k == nil {
		k = &keeper{wake: make(chan struct{}, 1), next: time.Now().Add(restoreEvery)}
		r.keeper = k
		r.wg.Go(func() { r.keep(k) })
	}
	if expires.IsZero() || !expires.Before(k.next) {
		return
	}
	k.next = expires
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (r *Registry) keep(k *keeper) {
	r.sweep(time.Now())
	restore := time.Now().Add(restoreEvery)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.done:
			return
		case <-k.wake:
		case <-timer.C:
		}
		now := time.Now()
		timer.Reset(time.Until(r.tend(k, now, !now.Before(restore))))
		if !now.Before(restore) {
			restore = now.Add(restoreEvery)
		}
	}
}

// tend withdraws what has expired, puts back what was deleted if it is time for that, and gives the time to look again.
func (r *Registry) tend(k *keeper, now time.Time, restore bool) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	k.next = now.Add(restoreEvery)
	for _, h := range r.held {
		switch {
		case !h.expires.IsZero() && !now.Before(h.expires):
			r.withdraw(h)
			continue
		case restore:
			r.restore(h)
		}
		if !h.expires.IsZero() && h.expires.Before(k.next) {
			k.next = h.expires
		}
	}
	return k.next
}

// restore puts h's file back if it is gone. It is called with r.mu held.
func (r *Registry) restore(h *held) {
	before := h.file
	err := r.write(context.Background(), h, h.data)
	switch {
	case errors.Is(err, registry.ErrConflict):
		r.log.Error("registry: local: the node's file was deleted, and another process has taken its id", "node", h.id, "error", err)
		r.withdraw(h)
	case err != nil:
		if !h.troubled {
			r.log.Error("registry: local: the node's file is gone, and cannot be put back for now", "node", h.id, "error", err)
		}
		h.troubled = true
	case h.file != before:
		r.log.Warn("registry: local: the node's file was deleted, and is back", "node", h.id)
		h.troubled = false
	}
}

// sweep removes what is left of processes that died while they made a file, of earlier boots, and of network
// namespaces that nobody looks into any more.
func (r *Registry) sweep(now time.Time) {
	d, err := openFolder(r.dir)
	if err != nil {
		return
	}
	defer d.close()
	names, err := d.names(MaxFiles)
	if err != nil {
		return
	}
	for _, name := range names {
		age := time.Duration(0)
		switch kindOf(name, r.space.key()) {
		case temporary:
			age = tempAfter
		case elsewhere:
			age = sweepAfter
		default:
			continue
		}
		if d.oldUnlocked(name, now.Add(-age)) {
			_ = d.reap(name) // the next one tries again
		}
	}
}
