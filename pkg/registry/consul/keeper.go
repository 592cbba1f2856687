package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	leases "github.com/cb02dfca/micro/pkg/registry/internal/lease"
	"github.com/cb02dfca/micro/pkg/registry/internal/remote"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

const (
	closeTimeout = 3 * time.Second        // for requests under way at Close, and again for the withdrawal, with
	closeEach    = 20 * time.Millisecond  // for each node
	restoreTime  = 200 * time.Millisecond // over which the return of lost nodes is spread
	longestRetry = time.Second            // while Consul is away: a TTL of 2 s is to live through a restart of the agent
)

// keeper keeps a client's nodes at the agent: it puts them when it is told to, passes their checks, and puts them again when they
// are lost.
type keeper struct {
	r     *Registry
	turns *remote.Turns
	life  context.Context // of the goroutines that hold nodes
	end   context.CancelFunc
	wake  chan struct{} // of one element: the loop has to look again
	guard chan struct{} // of one element: the sentinel may have another node to look at

	mu      sync.Mutex
	running bool
	own     map[string]*held // by node id
}

// held is a node that the agent has, or may have. It is changed with the keeper's lock, and, but for next, in the node's turn.
type held struct {
	reg   *registration
	given bool      // the agent took this very registration
	tried bool      // it was sent there, or an older one was
	stray bool      // its owner was told that it is not registered, or wants it withdrawn: it is looked at no more
	until time.Time // when it lapses; zero: never
	next  time.Time // when it is looked at
}

func newKeeper(r *Registry) *keeper {
	k := &keeper{r: r, turns: remote.NewTurns(), wake: make(chan struct{}, 1), guard: make(chan struct{}, 1), own: map[string]*held{}}
	k.life, k.end = context.WithCancel(context.Background())
	return k
}

func (k *keeper) register(ctx context.Context, reg *registration, ttl time.Duration) error {
	ctx, done, err := k.turns.Begin(ctx, reg.ID)
	if err != nil {
		return err
	}
	defer done()
	old := k.find(reg.ID)
	if old != nil && old.reg.Service != reg.Service { // it moves
		if err := k.withdraw(ctx, old); err != nil {
			return err
		}
		old = nil
	}
	h := k.succeed(old, reg, ttl)
	sent := time.Now()
	if err := k.renew(ctx, h); err != nil {
		k.failed(h, old, err)
		return err
	}
	k.mu.Lock()
	h.stray, h.until = false, until(ttl)
	h.plan(sent)
	k.mu.Unlock()
	k.start()
	return nil
}

// succeed takes a registration in, in the place of the one that was held, if any.
func (k *keeper) succeed(old *held, reg *registration, ttl time.Duration) *held {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := &held{reg: reg, stray: true}
	if old != nil {
		*h = *old
		h.reg, h.given = reg, old.given && string(old.reg.body) == string(reg.body)
		if !h.stray {
			h.until = until(ttl) // its owner lives, whatever becomes of this
		}
	}
	k.own[reg.ID] = h
	return h
}

// failed cleans up after a registration that failed. What the agent may have is remembered.
func (k *keeper) failed(h, old *held, err error) {
	switch {
	case errors.Is(err, registry.ErrConflict) || !h.tried:
		k.drop(h)
	case errors.Is(err, registry.ErrInvalid) && old != nil:
		k.keep(old)
	}
}

// until is when a node lapses that is registered now.
func until(ttl time.Duration) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return time.Now().Add(ttl)
}

// plan says when to look at a node whose check was passed: half its time later, or, where the check lasts as long as the node does, at
// its end.
func (h *held) plan(passed time.Time) {
	h.next = passed.Add(retry.Jitter(h.reg.ttl / 2))
	if !h.until.IsZero() && !h.until.After(time.Now().Add(h.reg.ttl)) {
		h.next = h.until
	}
}

// renew passes the check of a node whose turn it is, where the agent has it as it should be; else it puts it.
func (k *keeper) renew(ctx context.Context, h *held) error {
	there, err := k.look(ctx, h.reg.ID)
	switch {
	case err != nil:
		return err
	case there == nil:
		return k.put(ctx, h)
	case there.Service.Meta[MetaOwner] != k.r.owner && !there.lapsed():
		return &leases.ConflictError{ID: h.reg.ID, Service: there.Service.Service}
	case h.given && there.Service.same(&h.reg.instance) && there.has(checkOf(h.reg.ID)):
		if ok, err := k.pass(ctx, h.reg); ok || err != nil {
			return err
		}
	}
	if err := k.put(ctx, h); err != nil {
		return err
	}
	_, err = k.pass(ctx, h.reg) // a check that was there before is as it was
	return err
}

// checkOf is the id of a node's check; where a service has several, their ids have a ':' and a number after it.
func checkOf(id string) string { return "service:" + id }

// standing is what an agent says of one of its services.
type standing struct {
	Service *instance
	Checks  []check
}

// lapsed reports whether a check of its own is critical. One that was put in maintenance has its owner still.
func (s *standing) lapsed() bool {
	own := checkOf(s.Service.ID)
	return slices.ContainsFunc(s.Checks, func(c check) bool {
		return c.Status == critical && (c.CheckID == own || strings.HasPrefix(c.CheckID, own+":"))
	})
}

func (s *standing) has(id string) bool {
	return slices.ContainsFunc(s.Checks, func(c check) bool { return c.CheckID == id })
}

// look asks the agent what it has under an id; nil where that is nothing.
func (k *keeper) look(ctx context.Context, id string) (*standing, error) {
	a, err := k.r.ask(ctx, http.MethodGet, "/v1/agent/health/service/id/"+id, nil, nil, k.r.o.Timeout)
	if err != nil {
		return nil, err
	}
	switch a.code {
	case http.StatusOK, http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusNotFound: // it passes, warns, is critical
		var s standing
		switch {
		case a.decode(&s) != nil && a.code == http.StatusTooManyRequests:
			return nil, k.r.refused(a)
		case a.decode(&s) != nil || s.Service == nil && a.code != http.StatusNotFound:
			return nil, k.r.unavailable(errNoAnswer)
		case s.Service == nil:
			k.r.hear()
			return nil, nil
		}
		k.r.hear()
		return &s, nil
	}
	return nil, k.r.refused(a)
}

// put registers a node.
func (k *keeper) put(ctx context.Context, h *held) error {
	k.mu.Lock()
	h.tried, h.given = true, false
	k.mu.Unlock()
	a, err := k.r.ask(ctx, http.MethodPut, "/v1/agent/service/register", replaceChecks, h.reg.body, k.r.o.Timeout)
	switch {
	case err != nil:
		return err
	case a.code == http.StatusBadRequest || a.code == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: consul %s: %s", registry.ErrInvalid, k.r.host, k.r.text(a.body))
	case a.code != http.StatusOK:
		return k.r.refused(a)
	}
	k.mu.Lock()
	h.given = true
	k.mu.Unlock()
	return nil
}

// replaceChecks has checks go that a registration does not name.
var replaceChecks = map[string][]string{"replace-existing-checks": {"true"}}

// pass passes a node's check, and reports whether there is one.
func (k *keeper) pass(ctx context.Context, reg *registration) (bool, error) {
	a, err := k.r.ask(ctx, http.MethodPut, "/v1/agent/check/pass/"+checkOf(reg.ID), nil, nil, k.r.o.Timeout)
	switch {
	case err != nil:
		return false, err
	case a.code == http.StatusOK:
		return true, nil
	case a.code == http.StatusNotFound || a.code == http.StatusInternalServerError && strings.Contains(string(a.body), "associated TTL"):
		return false, nil
	}
	return false, k.r.refused(a)
}

func (k *keeper) deregister(ctx context.Context, n registry.Node) error {
	ctx, done, err := k.turns.Begin(ctx, n.ID)
	if err != nil {
		return err
	}
	defer done()
	if h := k.find(n.ID); h != nil && h.reg.Service == n.Service {
		return k.withdraw(ctx, h)
	}
	there, err := k.look(ctx, n.ID)
	switch {
	case err != nil:
		return err
	case there == nil || there.Service.Service != n.Service || there.lapsed():
		return nil
	}
	return &leases.ConflictError{ID: n.ID, Service: n.Service}
}

// withdraw takes a node away whose turn it is. Where that fails the node lapses, and may be withdrawn again. Another owner's, who
// came when it had lapsed, stays.
func (k *keeper) withdraw(ctx context.Context, h *held) error {
	k.mu.Lock()
	h.stray = true
	k.mu.Unlock()
	there, err := k.look(ctx, h.reg.ID)
	if err != nil {
		return err
	}
	if there != nil && there.Service.Meta[MetaOwner] == k.r.owner {
		a, err := k.r.ask(ctx, http.MethodPut, "/v1/agent/service/deregister/"+h.reg.ID, nil, nil, k.r.o.Timeout)
		if err != nil {
			return err
		}
		if a.code != http.StatusOK && a.code != http.StatusNotFound {
			return k.r.refused(a)
		}
	}
	k.drop(h)
	return nil
}

// start starts what holds the nodes, or has it look again.
func (k *keeper) start() {
	k.mu.Lock()
	if !k.running {
		k.running = k.turns.Go(k.loop)
		k.turns.Go(k.sentinel)
	}
	k.mu.Unlock()
	signal(k.wake)
	signal(k.guard)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// restore has all nodes looked at: the agent may have lost them.
func (k *keeper) restore() {
	k.mu.Lock()
	for _, h := range k.own {
		h.next = time.Now().Add(rand.N(restoreTime))
	}
	k.mu.Unlock()
	signal(k.wake)
}

// hasten has one node looked at.
func (k *keeper) hasten(id string) {
	k.mu.Lock()
	if h := k.own[id]; h != nil {
		h.next = time.Now()
	}
	k.mu.Unlock()
	signal(k.wake)
}

// loop looks at nodes when they are due.
func (k *keeper) loop(force context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var wait time.Duration // after a failure, how long to wait
	var again time.Time    // not before
	for {
		select {
		case <-k.life.Done():
			return
		case <-k.wake:
		case <-timer.C:
			if wait = min(retry.Next(wait), longestRetry); k.round(force) {
				wait = 0
			}
			again = time.Now().Add(retry.Jitter(wait))
		}
		timer.Reset(max(time.Until(k.next()), time.Until(again)))
	}
}

// next is when the next node is due.
func (k *keeper) next() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := time.Now().Add(time.Hour)
	for _, h := range k.own {
		if !h.stray && h.next.Before(next) {
			next = h.next
		}
	}
	return next
}

// round looks at the nodes that are due, until Consul fails to answer, and reports whether it did answer.
func (k *keeper) round(ctx context.Context) bool {
	k.mu.Lock()
	var due []string
	for id, h := range k.own {
		if !h.stray && !time.Now().Before(h.next) {
			due = append(due, id)
		}
	}
	k.mu.Unlock()
	var away atomic.Bool
	var looking sync.WaitGroup
	for part := range slices.Chunk(due, len(due)/parallel+1) {
		looking.Go(func() {
			for _, id := range part {
				if away.Load() || k.life.Err() != nil {
					return
				}
				if errors.Is(k.mend(ctx, id), registry.ErrUnavailable) {
					away.Store(true)
				}
			}
		})
	}
	looking.Wait()
	return !away.Load()
}

// mend looks at a node that is due, and puts it again where it is lost; one whose time is over it withdraws.
func (k *keeper) mend(ctx context.Context, id string) error {
	ctx, done, err := k.turns.Begin(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	k.mu.Lock()
	h := k.own[id]
	if h == nil || h.stray || time.Now().Before(h.next) { // somebody was here before
		k.mu.Unlock()
		return nil
	}
	over := !h.until.IsZero() && !time.Now().Before(h.until)
	k.mu.Unlock()
	if over {
		if k.withdraw(ctx, h) != nil {
			k.drop(h) // it lapses
		}
		return nil
	}
	sent := time.Now()
	err = k.renew(ctx, h)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil:
		h.plan(sent)
	case errors.Is(err, registry.ErrConflict):
		delete(k.own, id)
		k.r.o.Logger.Warn("consul has a node of another owner in the place of ours", "consul", k.r.host, "node", id, "error", err)
	case !errors.Is(err, registry.ErrUnavailable) && ctx.Err() == nil:
		h.next = time.Now().Add(retry.Jitter(refusedRetry))
		k.r.o.Logger.Warn("consul does not take a node again", "consul", k.r.host, "node", id, "error", err)
	}
	return err
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
	k.own[h.reg.ID] = h
}

// drop forgets a node.
func (k *keeper) drop(h *held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.own[h.reg.ID] == h {
		delete(k.own, h.reg.ID)
	}
}
