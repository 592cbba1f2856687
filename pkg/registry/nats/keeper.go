package nats

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/pkg/registry"
)

const (
	closeTimeout = 3 * time.Second // for requests under way at Close, and again for the withdrawal
	turns        = 64
)

// keeper has the nodes of this Registry: it announces them, answers for them to whoever asks, and defends their ids.
type keeper struct {
	r     *Registry
	turn  [turns]chan struct{} // one request at a time for an id; ids share them by hash
	seed  maphash.Seed
	force context.Context
	stop  context.CancelFunc // ends force: requests under way are broken off

	mu     sync.Mutex
	closed bool
	own    map[string]*held // by id
	seq    uint64           // of the latest change
	query  *nats.Subscription
	claims map[uint64]chan reply // that wait for a reply
	claim  uint64                // the latest of them
	denied error                 // what this user may not subscribe to
	busy   sync.WaitGroup        // requests
}

// held is an own node, or an id that is being claimed for one.
type held struct {
	notice
	node    registry.Node
	sub     *nats.Subscription // of the subject of its id
	since   int64              // when it was claimed, in nanoseconds; the earlier claim holds
	taken   bool               // nobody else has the id
	listed  bool               // it is announced, and answered for
	leaving bool               // its end is to be announced with the next connection
	until   time.Time          // when the node lapses; zero: never
	next    time.Time          // when it is announced again
}

func newKeeper(r *Registry) *keeper {
	k := &keeper{r: r, seed: maphash.MakeSeed(), own: map[string]*held{}, claims: map[uint64]chan reply{}}
	for i := range k.turn {
		k.turn[i] = make(chan struct{}, 1)
	}
	k.force, k.stop = context.WithCancel(context.Background())
	return k
}

// begin says that a request for a node is about to be made, and waits for its turn; done ends it. Its context also ends with force.
func (k *keeper) begin(ctx context.Context, id string) (_ context.Context, done func(), err error) {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil, nil, registry.ErrClosed
	}
	k.busy.Add(1)
	k.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	drop := context.AfterFunc(k.force, cancel)
	turn := k.turn[maphash.String(k.seed, id)%turns]
	end := func() { drop(); cancel(); k.busy.Done() }
	select {
	case turn <- struct{}{}:
		return ctx, func() { <-turn; end() }, nil
	case <-ctx.Done():
		err := ctx.Err()
		end()
		if k.force.Err() != nil {
			err = registry.ErrClosed
		}
		return nil, nil, err
	}
}

func (k *keeper) register(ctx context.Context, n registry.Node, value string, ttl time.Duration) error {
	ctx, done, err := k.begin(ctx, n.ID)
	if err != nil {
		return err
	}
	defer done()
	h := k.extend(n, ttl) // its owner lives, whatever becomes of this
	nc, err := k.r.conn.Get(ctx)
	if err != nil {
		return k.r.ended(err)
	}
	if h == nil {
		if h, err = k.take(ctx, nc, n.ID, n.Service); err != nil {
			return k.r.ended(err)
		}
	}
	say := k.put(h, n, value, ttl)
	if err := k.r.conn.Publish(ctx, say...); err != nil {
		if !h.listed {
			k.drop(h)
		}
		return k.r.ended(err)
	}
	return k.list(h)
}

// extend gives the node that is held, and lets it live for a ttl from now on; nil where it is not held.
func (k *keeper) extend(n registry.Node, ttl time.Duration) *held {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.own[n.ID]
	if h == nil {
		return nil
	}
	if h.until = (time.Time{}); ttl > 0 {
		h.until = time.Now().Add(ttl)
	}
	if h.leaving { // NATS could not be told, and may be told otherwise now
		k.seq++
		h.seq, h.leaving, h.next = k.seq, false, time.Time{}
		k.r.view.put(h.node)
	}
	return h
}

// put changes a node that is held, and gives what is to be said of it: nothing of one that is as it was.
func (k *keeper) put(h *held, n registry.Node, value string, ttl time.Duration) (say []*nats.Msg) {
	k.mu.Lock()
	defer k.mu.Unlock()
	lease := k.r.o.TTL
	if ttl > 0 {
		lease = max(min(ttl, lease), minLease)
	}
	now := time.Now()
	if h.until = (time.Time{}); ttl > 0 {
		h.until = now.Add(ttl)
	}
	if h.listed && h.value == value && h.lease == lease && !h.next.IsZero() {
		return nil
	}
	old := h.notice
	k.seq++
	h.notice = notice{service: n.Service, value: value, seq: k.seq, lease: lease}
	h.node, h.next = n, now.Add(pause(lease))
	if !h.listed && k.r.clustered() {
		h.next = now.Add(min(pause(lease), spreadLater))
	}
	if h.listed && old.service != n.Service {
		old.seq = k.seq
		say = append(say, news(k.r.watchSubject(), actionDelete, k.r.owner, &old))
	}
	return append(say, news(k.r.watchSubject(), actionCreate, k.r.owner, &h.notice))
}

// list makes a node that was announced one that is answered for, unless it was lost meanwhile.
func (k *keeper) list(h *held) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.own[h.node.ID] != h {
		return conflict(h.node.ID, h.service)
	}
	h.listed = true
	k.r.view.put(h.node)
	k.r.wake()
	return nil
}

func (k *keeper) deregister(ctx context.Context, n registry.Node) error {
	ctx, done, err := k.begin(ctx, n.ID)
	if err != nil {
		return err
	}
	defer done()
	k.mu.Lock()
	h := k.own[n.ID]
	k.mu.Unlock()
	if h == nil || h.service != n.Service {
		return k.r.ended(k.held(ctx, n.ID, n.Service))
	}
	return k.r.ended(k.withdraw(ctx, h))
}

// withdraw takes an own node away. Where NATS cannot be told it lapses, or is told of with the next connection.
func (k *keeper) withdraw(ctx context.Context, h *held) error {
	k.mu.Lock()
	say := k.leave(h)
	k.mu.Unlock()
	if err := k.r.conn.Publish(ctx, say); err != nil {
		return err
	}
	k.drop(h)
	return nil
}

// leave makes a node one that is answered for no more, and gives what is to be said of it.
func (k *keeper) leave(h *held) *nats.Msg {
	if !h.leaving {
		k.seq++
		h.seq, h.leaving = k.seq, true
		k.r.view.drop(h.node.ID)
	}
	return news(k.r.watchSubject(), actionDelete, k.r.owner, &h.notice)
}

// drop forgets a node, and gives its id up.
func (k *keeper) drop(h *held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.remove(h)
}

// remove is drop with the lock held.
func (k *keeper) remove(h *held) {
	if k.own[h.node.ID] != h {
		return
	}
	delete(k.own, h.node.ID)
	k.r.view.drop(h.node.ID)
	_ = h.sub.Unsubscribe() // an error: the connection is closed
	if len(k.own) == 0 && k.query != nil {
		_ = k.query.Unsubscribe()
		k.query = nil
	}
}

// answer says what there is to say to a question.
func (k *keeper) answer(m *nats.Msg) {
	service, ok := asked(m)
	nc := k.r.nc.Load()
	if !ok || nc == nil {
		return
	}
	k.mu.Lock()
	var say []*nats.Msg
	for _, h := range k.own {
		if h.listed && !h.leaving && (service == "" || service == h.service) {
			say = append(say, h.answer(m.Reply, k.r.owner))
		}
	}
	k.mu.Unlock()
	for _, m := range say {
		_ = nc.PublishMsg(m) // who gets no answer asks again
	}
}

// refused takes in that this user may not subscribe to what it needs.
func (k *keeper) refused(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.denied = err
}

// connected makes all nodes be announced now. Another connection has no subscriptions yet.
func (k *keeper) connected(nc *nats.Conn, another bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.denied = nil
	if another && len(k.own) > 0 {
		k.query, _ = nc.ChanSubscribe(k.r.querySubject(), k.r.in) // an error: nc is closed, and another comes
	}
	for id, h := range k.own {
		h.next = time.Time{}
		if another {
			h.sub, _ = nc.ChanSubscribe(k.r.nodeSubject(id), k.r.in)
		}
	}
}

// tick gives what is to be said now, and when there is something next. Nodes whose time is over are withdrawn.
func (k *keeper) tick(now time.Time) (say []*nats.Msg, next time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	nc := k.r.nc.Load()
	up := nc != nil && nc.IsConnected()
	for _, h := range k.own {
		if !h.listed {
			continue // its registration is under way
		}
		lapsed := !h.until.IsZero() && !now.Before(h.until)
		switch {
		case h.leaving && up || lapsed:
			say = append(say, k.leave(h))
			k.remove(h)
			continue
		case h.leaving:
			continue
		case !now.Before(h.next):
			say = append(say, news(k.r.watchSubject(), actionCreate, k.r.owner, &h.notice), k.claimMsg(h, ""))
			h.next = now.Add(pause(h.lease))
		}
		next = sooner(next, h.next)
		next = sooner(next, h.until)
	}
	return say, next
}

// pause is how long after one announcement the next one follows: a third of the lease, or a fifth of that less.
func pause(lease time.Duration) time.Duration { return lease/3 - rand.N(lease/15) }

// close lets requests under way end, and withdraws the nodes.
func (k *keeper) close() error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	force := time.AfterFunc(closeTimeout, k.stop)
	k.busy.Wait()
	force.Stop()
	defer k.stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.own) == 0 {
		return nil
	}
	var say []*nats.Msg
	for _, h := range k.own {
		say = append(say, k.leave(h))
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := k.r.conn.Publish(ctx, say...); err != nil {
		if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, registry.ErrUnavailable) {
			err = k.r.conn.Error(nats.ErrTimeout)
		}
		return fmt.Errorf("%w; nodes that were not withdrawn, and lapse: %d", err, len(say))
	}
	return nil
}
