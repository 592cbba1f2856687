package selector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

const (
	// distrust is how long an empty set is not believed that follows a failure of the registry: one that has just
	// come up does not know its nodes before they renew themselves.
	distrust = 30 * time.Second
	// A watch that ended, though nobody ended it, is begun again after these.
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
)

// errStopped tells a waiting Select that the service made room for others meanwhile.
var errStopped = errors.New("selector: watch stopped")

// set is the nodes of a service at one time. It is not changed.
type set struct {
	nodes  []*Candidate
	picker Picker // nil without nodes
}

// service is what is known of one service, and its watch.
type service struct {
	name     string
	strategy Strategy
	logger   *slog.Logger
	began    time.Time

	current atomic.Pointer[set] // nil until the registry has answered
	used    atomic.Bool         // since the last sweep
	waiting atomic.Int32        // Selects that wait
	ctx     context.Context     // the watch's
	stop    context.CancelFunc

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with each change of current or err
	err     error         // the registry's last word, where it was an error
	loads   map[string]*load
	doubted *time.Timer // will apply an empty set unless another comes first
	doubts  int         // how many there were: a timer that was too late to stop knows that it is not the last
}

// touch notes that the service is in use. Loading first keeps the line shared among the cores.
func (s *service) touch() {
	if !s.used.Load() {
		s.used.Store(true)
	}
}

// watch follows the registry until the service is stopped.
func (s *service) watch(f registry.Finder) {
	defer s.settle()
	timer := time.NewTimer(firstRetry)
	defer timer.Stop()
	for retry := firstRetry; ; retry = min(2*retry, maxRetry) {
		for nodes, err := range f.Watch(s.ctx, s.name) {
			if err != nil {
				s.fail(err)
				continue
			}
			retry = firstRetry
			s.learn(nodes)
		}
		if s.ctx.Err() == nil {
			s.fail(fmt.Errorf("%w: the watch ended", registry.ErrUnavailable))
		}
		timer.Reset(retry)
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *service) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.believe()
}

// fail notes that the registry is away. What was known goes on being used.
func (s *service) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.logger.Warn("registry away, going on with the nodes known", "service", s.name, "error", err)
	}
	s.err = err
	s.announce()
}

// idle reports whether nobody has asked since the last look, and forgetting the nodes does no harm: a registry that is
// away could not tell them again.
func (s *service) idle() bool {
	if s.waiting.Load() > 0 || s.used.Swap(false) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.current.Load()
	return s.err == nil || now == nil || len(now.nodes) == 0
}

// learn takes a set that the registry gave.
func (s *service) learn(nodes []registry.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.current.Load()
	doubtful := len(nodes) == 0 && (s.err != nil || s.doubted != nil) && known != nil && len(known.nodes) > 0
	if s.err != nil {
		s.logger.Info("registry is back", "service", s.name, "nodes", len(nodes))
		s.err = nil
	}
	if !doubtful {
		s.believe()
		s.apply(nodes)
		return
	}
	if s.doubted == nil {
		s.doubts++
		doubt := s.doubts
		s.doubted = time.AfterFunc(distrust, func() { s.giveUp(doubt) })
	}
}

// believe forgets a doubted set.
func (s *service) believe() {
	if s.doubted != nil {
		s.doubted.Stop()
		s.doubted = nil
	}
}

// giveUp applies the empty set after all.
func (s *service) giveUp(doubt int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doubted != nil && s.doubts == doubt {
		s.doubted = nil
		s.apply(nil)
	}
}

// apply makes nodes the current set. A node that stays keeps its load; so does one that went while calls to it are
// under way, as it may come back.
func (s *service) apply(nodes []registry.Node) {
	next := &set{nodes: make([]*Candidate, 0, len(nodes))}
	loads := make(map[string]*load, len(nodes))
	for _, n := range nodes {
		l := s.loads[n.ID]
		if l == nil || l.address != n.Address {
			l = newLoad(n.Address)
		}
		loads[n.ID] = l
		next.nodes = append(next.nodes, &Candidate{Node: n, load: l, hash: hash(n.ID)})
	}
	for id, l := range s.loads {
		if loads[id] == nil && l.inflight.Load() > 0 {
			loads[id] = l
		}
	}
	s.loads = loads
	if len(next.nodes) > 0 {
		next.picker = s.strategy.Prepare(next.nodes)
	}
	s.current.Store(next)
	s.announce()
}

func (s *service) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await gives the first set with a node in it, or the error that says why there is none.
func (s *service) await(ctx context.Context, grace time.Duration) (*set, error) {
	began := time.Now()
	patience := time.NewTimer(grace - began.Sub(s.began))
	defer patience.Stop()
	over := false
	for {
		s.mu.Lock()
		now, err, changed := s.current.Load(), s.err, s.changed
		s.mu.Unlock()
		switch {
		case now != nil && len(now.nodes) > 0:
			return now, nil
		case now == nil && err != nil:
			return nil, fmt.Errorf("%w: no nodes of %q known: %w", ErrUnavailable, s.name, err)
		case now != nil && over:
			return nil, &NotFoundError{Service: s.name, Waited: time.Since(began)}
		}
		select {
		case <-changed:
		case <-patience.C:
			over = true
		case <-s.ctx.Done():
			return nil, errStopped
		case <-ctx.Done():
			if now != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, &NotFoundError{Service: s.name, Waited: time.Since(began)}
			}
			return nil, fmt.Errorf("selector: waiting for the nodes of %q: %w", s.name, ctx.Err())
		}
	}
}

// pick takes a node of the set for q. Without filters nor nodes to avoid it allocates nothing, and looks at no more
// nodes than the strategy does, unless the one that it chose has failed lately.
func (now *set) pick(q *Query) (*Candidate, error) {
	nodes := now.nodes
	if len(q.Filters) > 0 || len(q.Avoid) > 0 {
		matching := slices.DeleteFunc(slices.Clone(nodes), func(c *Candidate) bool { return !matches(c.Node, q.Filters) })
		if len(matching) == 0 {
			return nil, fmt.Errorf("%w: none of the %d nodes of %q", ErrNoneMatch, len(now.nodes), q.Service)
		}
		tried := len(matching)
		nodes = slices.DeleteFunc(matching, func(c *Candidate) bool { return slices.Contains(q.Avoid, c.ID) })
		if len(nodes) == 0 {
			return nil, fmt.Errorf("%w: %d of %q", ErrExhausted, tried, q.Service)
		}
	}
	if len(nodes) == 1 {
		return nodes[0], nil
	}
	if c := now.picker.Pick(nodes, q.Key); c.ready() {
		return c, nil
	}
	var well []*Candidate
	for _, c := range nodes {
		if c.failures.Load() == 0 {
			well = append(well, c)
		}
	}
	switch len(well) {
	case 0: // each has failed lately: one of them is still better than none
		return now.picker.Pick(nodes, q.Key), nil
	case 1:
		return well[0], nil
	}
	return now.picker.Pick(well, q.Key), nil
}

func matches(n registry.Node, filters []Filter) bool {
	for _, f := range filters {
		if !f(n) {
			return false
		}
	}
	return true
}
