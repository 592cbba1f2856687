package nats

import (
	"context"
	"slices"
	"sync"
)

// sendWindow bounds what is under way to a peer: who would pass it waits, in turn, until the peer has read.
type sendWindow struct {
	mu      sync.Mutex
	sent    uint64 // bytes
	read    uint64 // of them by the peer
	waiting []*want
}

type want struct {
	cost  uint64
	ready chan struct{}
}

// take waits for room of cost bytes, which is at most the window. It reports false when over is closed, and gives ctx's error.
func (w *sendWindow) take(ctx context.Context, over <-chan struct{}, cost int) (bool, error) {
	w.mu.Lock()
	if len(w.waiting) == 0 && w.fits(uint64(cost)) {
		w.sent += uint64(cost)
		w.mu.Unlock()
		return true, nil
	}
	me := &want{cost: uint64(cost), ready: make(chan struct{})}
	w.waiting = append(w.waiting, me)
	w.mu.Unlock()
	select {
	case <-me.ready:
		return true, nil
	case <-over:
		return false, nil
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if at := slices.Index(w.waiting, me); at >= 0 {
		w.waiting = slices.Delete(w.waiting, at, at+1)
	} else {
		w.sent -= me.cost // it was granted meanwhile
	}
	w.grant()
	return false, ctx.Err()
}

func (w *sendWindow) fits(cost uint64) bool { return w.sent-w.read+cost <= window }

// credit takes in how much the peer has read in all, and reports whether that can be.
func (w *sendWindow) credit(read uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if read > w.sent {
		return false
	}
	w.read = max(w.read, read)
	w.grant()
	return true
}

func (w *sendWindow) grant() {
	for len(w.waiting) > 0 && w.fits(w.waiting[0].cost) {
		w.sent += w.waiting[0].cost
		close(w.waiting[0].ready)
		w.waiting = slices.Delete(w.waiting, 0, 1)
	}
}
