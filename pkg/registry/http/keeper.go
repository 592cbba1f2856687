package http

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	stdhttp "net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
	"github.com/cb02dfca/micro/pkg/registry/internal/remote"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

const (
	closeTimeout = 2 * time.Second        // for requests under way at Close, and again for the withdrawal
	restoreTime  = 200 * time.Millisecond // over which a lost node's return is spread
	parallel     = 8                      // requests of the loop at one time
)

// keeper puts a client's nodes: when told to, when their lease asks for it, and when the server lost them.
type keeper struct {
	r     *Registry
	turns *remote.Turns // of requests; the loop is waited for, too
	wake  chan struct{} // of one element: the loop has to look again

	mu      sync.Mutex
	running bool
	own     map[string]*held // by node id
}

// held is a node that the server has, or is to get again.
type held struct {
	service string
	record  []byte
	until   time.Time // when the lease that was asked for is over; zero: never
	next    time.Time // when the node is put again; zero: its owner renews it
}

func newKeeper(r *Registry) *keeper {
	return &keeper{r: r, turns: remote.NewTurns(), wake: make(chan struct{}, 1), own: map[string]*held{}}
}

func (k *keeper) register(ctx context.Context, n registry.Node, record []byte, ttl time.Duration) error {
	ctx, done, err := k.turns.Begin(ctx, n.ID)
	if err != nil {
		return k.r.orClosed(err)
	}
	defer done()
	h := &held{service: n.Service, record: record}
	if ttl > 0 {
		h.until = time.Now().Add(ttl)
	}
	if err := k.put(ctx, n.ID, h); err != nil {
		return k.r.orClosed(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.own[n.ID] = h
	if !k.running {
		k.running = k.turns.Go(k.loop)
	}
	k.signal()
	return nil
}

// put puts a node whose turn it is, and says in h when to do it again.
func (k *keeper) put(ctx context.Context, id string, h *held) error {
	ttl := k.r.o.Lease
	if !h.until.IsZero() {
		if ttl = time.Until(h.until); ttl <= 0 {
			return context.DeadlineExceeded // it lapsed while it waited for its turn
		}
	}
	sent := time.Now()
	data, err := k.r.ask(ctx, stdhttp.MethodPut, wire.NodePath(id), url.Values{"ttl": {ttl.String()}}, h.record)
	if err != nil {
		return err
	}
	l, granted, err := wire.ParseLease(data)
	if err != nil {
		return k.r.unavailable(err)
	}
	k.r.hear(l.Epoch)
	h.next = time.Time{}
	if h.until.IsZero() || granted < ttl {
		h.next = sent.Add(retry.Jitter(granted / 3))
	}
	return nil
}

func (k *keeper) deregister(ctx context.Context, n registry.Node) error {
	ctx, done, err := k.turns.Begin(ctx, n.ID)
	if err != nil {
		return k.r.orClosed(err)
	}
	defer done()
	k.mu.Lock()
	if h := k.own[n.ID]; h != nil && h.service == n.Service {
		delete(k.own, n.ID) // where the request fails, the node lapses
	}
	k.mu.Unlock()
	_, err = k.r.ask(ctx, stdhttp.MethodDelete, wire.NodePath(n.ID), url.Values{"service": {n.Service}}, nil)
	if errors.Is(err, registry.ErrNotFound) {
		err = nil
	}
	return k.r.orClosed(err)
}

// restore has all nodes put again: the server lost them.
func (k *keeper) restore() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.own {
		h.next = time.Now().Add(rand.N(restoreTime))
	}
	k.signal()
}

// signal has the loop look again.
func (k *keeper) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) loop(force context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := time.Duration(0) // after a failure, how long to wait
	for {
		select {
		case <-k.r.life.Done():
			return
		case <-k.wake:
		case <-timer.C:
			if k.round(force) {
				wait = 0
			} else {
				wait = retry.Next(wait)
			}
		}
		timer.Reset(max(time.Until(k.next()), retry.Jitter(wait)))
	}
}

// next is when the loop has to do something: a node is due, or the server was not heard for too long.
func (k *keeper) next() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.own) == 0 {
		return time.Now().Add(time.Hour)
	}
	next := k.r.lastHeard().Add(k.r.o.Probe)
	for _, h := range k.own {
		if !h.next.IsZero() && h.next.Before(next) {
			next = h.next
		}
	}
	return next
}

// round puts the nodes that are due, or asks how the server is. It reports whether the server answered.
func (k *keeper) round(ctx context.Context) bool {
	if !k.putAll(ctx, k.due()) {
		return false
	}
	if time.Since(k.r.lastHeard()) < k.r.o.Probe {
		return true
	}
	data, err := k.r.ask(ctx, stdhttp.MethodGet, wire.HealthPath, nil, nil)
	if err != nil {
		return false
	}
	health, err := wire.ParseHealth(data)
	if err != nil {
		_ = k.r.unavailable(err) // told to the logger
		return false
	}
	k.r.hear(health.Epoch)
	return true
}

// putAll puts nodes that are due, until the server fails to answer.
func (k *keeper) putAll(ctx context.Context, ids []string) bool {
	var away atomic.Bool
	var putting sync.WaitGroup
	for part := range slices.Chunk(ids, len(ids)/parallel+1) {
		putting.Go(func() {
			for _, id := range part {
				if away.Load() || errors.Is(k.again(ctx, id), registry.ErrUnavailable) {
					away.Store(true)
					return
				}
			}
		})
	}
	putting.Wait()
	return !away.Load()
}

// due gives the nodes to be put now. Those whose lease is over are forgotten.
func (k *keeper) due() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	var due []string
	for id, h := range k.own {
		switch {
		case !h.until.IsZero() && !now.Before(h.until):
			delete(k.own, id)
		case !h.next.IsZero() && !now.Before(h.next):
			due = append(due, id)
		}
	}
	return due
}

// again puts a node that is due.
func (k *keeper) again(ctx context.Context, id string) error {
	ctx, done, err := k.turns.Begin(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	k.mu.Lock()
	h := k.own[id]
	if h == nil || h.next.IsZero() || time.Now().Before(h.next) { // somebody was here before
		k.mu.Unlock()
		return nil
	}
	renewed := *h
	k.mu.Unlock()
	err = k.put(ctx, id, &renewed)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil:
		k.own[id] = &renewed
	case errors.Is(err, registry.ErrConflict):
		delete(k.own, id)
		k.r.o.Logger.Warn("registry server gave a node's id to another owner", "server", k.r.host, "node", id, "error", err)
	case !errors.Is(err, registry.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		h.next = time.Now().Add(retry.Jitter(retry.Last))
		k.r.o.Logger.Warn("registry server does not take a node again", "server", k.r.host, "node", id, "error", err)
	}
	return err
}

// close lets requests under way end, and withdraws the nodes.
func (k *keeper) close() error {
	k.turns.Close(closeTimeout)
	if len(k.own) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if _, err := k.r.ask(ctx, stdhttp.MethodDelete, wire.NodesPath, nil, nil); err != nil {
		return fmt.Errorf("%w; nodes that were not withdrawn, and lapse: %d", err, len(k.own))
	}
	return nil
}
