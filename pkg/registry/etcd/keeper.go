package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cb02dfca/micro/pkg/registry"
	leases "github.com/cb02dfca/micro/pkg/registry/internal/lease"
	"github.com/cb02dfca/micro/pkg/registry/internal/remote"
)

const (
	closeTimeout = 3 * time.Second       // for requests under way at Close, and again for the withdrawal, with
	closeEach    = 20 * time.Millisecond // for each node
	steady       = 10 * time.Second      // what went well for so long begins anew with its retries
	putTries     = 5
	parallel     = 16 // withdrawals at one time
)

// keeper keeps a client's nodes in etcd: it puts them when it is told to, keeps their leases alive, and puts them again when
// they are lost.
type keeper struct {
	r     *Registry
	turns *remote.Turns   // of requests; the goroutines that hold nodes are waited for, too
	life  context.Context // of these goroutines
	end   context.CancelFunc

	mu  sync.Mutex
	own map[string]*held // by node id
}

// held is a node that etcd has, or may have. All but until is its turn's.
type held struct {
	id, key, value string
	service        string
	seconds        int64              // of the lease
	lease          clientv3.LeaseID   // that the node is to have; 0: it has to be granted
	old            []clientv3.LeaseID // the node may hang on one of them still, as an answer was lost
	revision       int64              // that the key was put at, when it was last seen; 0: there was none
	seen           int64              // etcd's revision at which the node stood as it should
	stop           func()             // ends the goroutine that holds the node, and waits for it; nil: none runs
	wake           chan struct{}      // of one element: the node was put, so that its goroutine need not wait

	mu    sync.Mutex
	until time.Time // when the node lapses; zero: never
}

func newKeeper(r *Registry) *keeper {
	k := &keeper{r: r, turns: remote.NewTurns(), own: map[string]*held{}}
	k.life, k.end = context.WithCancel(context.Background())
	return k
}

func (k *keeper) register(ctx context.Context, n registry.Node, value string, ttl time.Duration) error {
	ctx, done, err := k.turns.Begin(ctx, n.ID)
	if err != nil {
		return err
	}
	defer done()
	h := k.find(n.ID)
	if h != nil && h.service != n.Service { // it moves
		if err := k.withdraw(ctx, h); err != nil {
			return err
		}
		h = nil
	}
	if h == nil {
		h = &held{id: n.ID, service: n.Service, key: keyOf(k.r.o.Prefix, n.Service, n.ID), wake: make(chan struct{}, 1)}
		k.keep(h)
	}
	if h.stop != nil {
		h.extend(ttl) // its owner lives, whatever becomes of this
	}
	had := h.lease
	if err := k.renew(ctx, h, value, k.seconds(ttl)); err != nil {
		return k.failed(ctx, h, err)
	}
	h.extend(ttl)
	if h.lease != had {
		h.end()
	}
	if h.stop == nil {
		k.hold(h)
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return nil
}

// failed cleans up after a registration that failed, and gives its error. What etcd may have is remembered.
func (k *keeper) failed(ctx context.Context, h *held, err error) error {
	if errors.Is(err, registry.ErrConflict) {
		h.end()
		h.forgetLease()
		_ = k.revokeOld(ctx, h) // else it lapses, and nothing hangs on it
		h.old = nil
	}
	if h.stop == nil && h.lease == 0 && len(h.old) == 0 {
		k.drop(h)
	}
	return err
}

// seconds is how long the lease of a node is.
func (k *keeper) seconds(ttl time.Duration) int64 {
	if ttl == 0 || ttl > k.r.o.TTL {
		ttl = k.r.o.TTL
	}
	return int64(math.Ceil(ttl.Seconds()))
}

// renew puts a node whose turn it is, unless it stands as it should.
func (k *keeper) renew(ctx context.Context, h *held, value string, seconds int64) error {
	if h.revision != 0 && h.lease != 0 && h.value == value && h.seconds == seconds {
		rsp, err := k.r.get(ctx, h.key)
		switch {
		case err != nil:
			return err
		case len(rsp.Kvs) == 0:
			h.revision = 0
		case rsp.Kvs[0].Lease == int64(h.lease) && string(rsp.Kvs[0].Value) == value:
			h.revision, h.seen = rsp.Kvs[0].ModRevision, rsp.Header.Revision
			return nil
		}
	}
	if h.seconds != seconds {
		h.forgetLease()
	}
	h.value, h.seconds = value, seconds
	if err := k.put(ctx, h); err != nil {
		return err
	}
	_ = k.revokeOld(ctx, h) // else they lapse: nothing hangs on them
	return nil
}

// put puts a node under its lease, if its key is free or its own.
func (k *keeper) put(ctx context.Context, h *held) error {
	for range putTries {
		if err := k.grant(ctx, h); err != nil {
			return err
		}
		var rsp *clientv3.TxnResponse
		err := k.r.ask(ctx, func(ctx context.Context) (err error) {
			rsp, err = k.r.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(h.key), "=", h.revision)).
				Then(clientv3.OpPut(h.key, h.value, clientv3.WithLease(h.lease))).
				Else(clientv3.OpGet(h.key)).Commit()
			if errors.Is(err, rpctypes.ErrLeaseNotFound) {
				rsp, err = nil, nil
			}
			return err
		})
		switch {
		case err != nil:
			return err
		case rsp == nil: // the lease is lost, and the key with it
			h.lease = 0
			continue
		case rsp.Succeeded:
			h.revision, h.seen = rsp.Header.Revision, rsp.Header.Revision
			return nil
		}
		kvs := rsp.Responses[0].GetResponseRange().Kvs
		if h.revision = 0; len(kvs) > 0 {
			if !h.owns(clientv3.LeaseID(kvs[0].Lease)) {
				return &leases.ConflictError{ID: h.id, Service: h.service}
			}
			h.revision = kvs[0].ModRevision
		}
	}
	return k.r.unavailable(fmt.Errorf("the key %s changes too fast", h.key))
}

// grant gets a lease for a node that has none.
func (k *keeper) grant(ctx context.Context, h *held) error {
	if h.lease != 0 {
		return nil
	}
	return k.r.ask(ctx, func(ctx context.Context) error {
		rsp, err := k.r.client.Grant(ctx, h.seconds)
		if err == nil {
			h.lease = rsp.ID
		}
		return err
	})
}

func (k *keeper) deregister(ctx context.Context, n registry.Node) error {
	ctx, done, err := k.turns.Begin(ctx, n.ID)
	if err != nil {
		return err
	}
	defer done()
	if h := k.find(n.ID); h != nil && h.service == n.Service {
		return k.withdraw(ctx, h)
	}
	key := keyOf(k.r.o.Prefix, n.Service, n.ID)
	rsp, err := k.r.get(ctx, key)
	if err != nil || len(rsp.Kvs) == 0 {
		return err
	}
	if there, err := decode(k.r.o.Prefix, key, rsp.Kvs[0].Value); err == nil && there.ID != n.ID {
		return nil // its id makes the same key
	}
	return &leases.ConflictError{ID: n.ID, Service: n.Service}
}

// withdraw takes a node away whose turn it is. Where that fails the node lapses, and may be withdrawn again.
func (k *keeper) withdraw(ctx context.Context, h *held) error {
	h.end()
	h.forgetLease()
	if err := k.revokeOld(ctx, h); err != nil {
		return err
	}
	k.drop(h)
	return nil
}

// revokeOld revokes the leases that a node has no more. A key goes with its lease.
func (k *keeper) revokeOld(ctx context.Context, h *held) error {
	for len(h.old) > 0 {
		err := k.r.ask(ctx, func(ctx context.Context) error {
			_, err := k.r.client.Revoke(ctx, h.old[0])
			if errors.Is(err, rpctypes.ErrLeaseNotFound) {
				err = nil
			}
			return err
		})
		if err != nil {
			return err
		}
		h.old = h.old[1:]
	}
	return nil
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
			errs[i] = k.withdraw(ctx, h)
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
	k.own[h.id] = h
}

// drop forgets a node.
func (k *keeper) drop(h *held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.own[h.id] == h {
		delete(k.own, h.id)
	}
}

// end ends the goroutine that holds the node, which may not be the caller's.
func (h *held) end() {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

// owns reports whether a lease is one that the node was given.
func (h *held) owns(lease clientv3.LeaseID) bool {
	return lease != 0 && (lease == h.lease || slices.Contains(h.old, lease))
}

// forgetLease makes the node need a new one.
func (h *held) forgetLease() {
	if h.lease != 0 {
		h.old, h.lease = append(h.old, h.lease), 0
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
