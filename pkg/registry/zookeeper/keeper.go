package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/lease"
)

const (
	closeTimeout = 3 * time.Second       // for the withdrawal at Close, with
	closeEach    = 20 * time.Millisecond // for each node
)

// keeper keeps a client's nodes at ZooKeeper: each has a goroutine that puts it when it is told to, and again when it is lost. It
// owns the sessions that the nodes live by, one for all nodes with about the same ttl.
type keeper struct {
	r     *Registry
	life  context.Context // ends when the nodes are to be withdrawn
	end   context.CancelFunc
	force context.Context // ends when there is no more time for that
	stop  context.CancelFunc
	busy  sync.WaitGroup // nodes, and links that are closed

	mu     sync.Mutex
	closed bool
	nodes  map[string]*held // by id
	paths  map[string]*held // ids may make one path
	links  []*link
	left   int   // nodes that could not be withdrawn at the end
	first  error // of them

	sessionsMu sync.Mutex
	sessions   map[int64]struct{} // that were this keeper's at any time
}

func newKeeper(r *Registry) *keeper {
	k := &keeper{r: r, nodes: map[string]*held{}, paths: map[string]*held{}, sessions: map[int64]struct{}{}}
	k.force, k.stop = context.WithCancel(context.Background())
	k.life, k.end = context.WithCancel(k.force)
	return k
}

// order is what a node's goroutine is told to do, for a caller who may leave before it is done.
type order struct {
	ctx   context.Context
	node  registry.Node
	value string // empty: the node is to be taken away
	ttl   time.Duration
	done  chan error  // of one element
	ended atomic.Bool // who sets it is bound: the goroutine to its answer, or the caller to his leaving
}

func (k *keeper) register(ctx context.Context, n registry.Node, value string, ttl time.Duration) error {
	_, err := k.give(ctx, &order{node: n, value: value, ttl: ttl}, true)
	return err
}

func (k *keeper) deregister(ctx context.Context, n registry.Node) error {
	ours, err := k.give(ctx, &order{node: n}, false)
	if ours || err != nil {
		return err
	}
	p := pathOf(k.r.o.Prefix, n.Service, n.ID)
	value, err := ask(ctx, k.r.reader, func(e *epoch) ([]byte, error) {
		value, _, err := e.conn.Get(p)
		return value, err
	})
	switch {
	case errors.Is(err, zk.ErrNoNode):
		return nil
	case err != nil:
		return k.r.said(err)
	}
	if there, err := decode(k.r.o.Prefix, p, value); err == nil && there.ID != n.ID {
		return nil // its id makes the same path
	}
	return &lease.ConflictError{ID: n.ID, Service: n.Service}
}

// give has an order carried out by the node's goroutine, which it starts where there is none and start says so. It reports
// whether there was one.
func (k *keeper) give(caller context.Context, o *order, start bool) (bool, error) {
	ctx, cancel := context.WithTimeout(caller, k.r.o.Timeout)
	defer cancel()
	o.ctx, o.done = ctx, make(chan error, 1)
	for {
		h, started, err := k.find(o, start)
		if err != nil || h == nil {
			return false, err
		}
		if !started {
			select {
			case h.orders <- o:
			case <-h.over:
				continue
			case <-ctx.Done():
				return true, k.r.late(caller, ctx.Err())
			}
		}
		select {
		case err := <-o.done:
			return true, k.r.late(caller, err)
		case <-ctx.Done():
			if o.ended.CompareAndSwap(false, true) {
				return true, k.r.late(caller, ctx.Err())
			}
			return true, k.r.late(caller, <-o.done)
		}
	}
}

// find gives the node that an order is for. started says that it was made, and has the order.
func (k *keeper) find(o *order, start bool) (h *held, started bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, false, registry.ErrClosed
	}
	h = k.nodes[o.node.ID]
	if !start {
		if h == nil || k.paths[pathOf(k.r.o.Prefix, o.node.Service, o.node.ID)] != h {
			return nil, false, nil
		}
		return h, false, nil
	}
	if h != nil {
		return h, false, nil
	}
	h = &held{k: k, id: o.node.ID, orders: make(chan *order), over: make(chan struct{})}
	k.nodes[h.id] = h
	k.busy.Go(func() { h.run(o) })
	return h, true, nil
}

// claim gives a path to a node, unless another one of this keeper has it.
func (k *keeper) claim(p string, h *held) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if there := k.paths[p]; there != nil && there != h {
		return false
	}
	if k.paths[h.path] == h {
		delete(k.paths, h.path)
	}
	k.paths[p], h.path = h, p
	return true
}

// drop forgets a node. err is not nil where it may still stand.
func (k *keeper) drop(h *held, err error) {
	k.mu.Lock()
	delete(k.nodes, h.id)
	if k.paths[h.path] == h {
		delete(k.paths, h.path)
	}
	if err != nil {
		if k.left++; k.first == nil {
			k.first = err
		}
	}
	k.mu.Unlock()
	k.release(h.links)
}

// link gives a session for a ttl: one that lapses in that time, and not in less than half of it. release gives it back.
func (k *keeper) link(ttl time.Duration) *link {
	if ttl == 0 || ttl > k.r.o.TTL {
		ttl = k.r.o.TTL
	}
	ttl = time.Duration(math.Ceil(ttl.Seconds())) * time.Second
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.links, func(l *link) bool { return l.timeout <= ttl && 2*l.timeout > ttl })
	if i < 0 {
		i = len(k.links)
		k.links = append(k.links, newLink(k.r, ttl, false))
	}
	k.links[i].users++
	return k.links[i]
}

// release ends the use of links. One that nobody uses is closed.
func (k *keeper) release(links []*link) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range links {
		if l.users--; l.users == 0 {
			k.links = slices.DeleteFunc(k.links, func(other *link) bool { return other == l })
			k.busy.Go(l.close)
		}
	}
}

// mine notes a session.
func (k *keeper) mine(session int64) {
	k.sessionsMu.Lock()
	defer k.sessionsMu.Unlock()
	k.sessions[session] = struct{}{}
}

// isMine reports whether a session is or was one of this keeper.
func (k *keeper) isMine(session int64) bool {
	k.sessionsMu.Lock()
	defer k.sessionsMu.Unlock()
	_, ok := k.sessions[session]
	return ok
}

// close withdraws the nodes and ends their sessions.
func (k *keeper) close() error {
	k.mu.Lock()
	k.closed = true
	limit := closeTimeout + time.Duration(len(k.nodes))*closeEach
	k.mu.Unlock()
	k.end()
	force := time.NewTimer(limit)
	defer force.Stop()
	defer k.stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.busy.Wait()
	}()
	select {
	case <-done:
	case <-force.C:
		k.stop()
		k.mu.Lock()
		links := slices.Clone(k.links)
		k.mu.Unlock()
		for _, l := range links {
			l.close()
		}
		<-done
	}
	if k.left > 0 {
		return fmt.Errorf("%w; nodes that were not withdrawn, and lapse: %d", k.first, k.left)
	}
	return nil
}
