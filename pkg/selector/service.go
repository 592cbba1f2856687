package selector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// service is what is known of one service, and its watch.
type service struct {
	name     string
	picker   Picker
	follower Follower // the picker, where it is one
	wishes   *sync.Pool
	logger   *slog.Logger
	began    time.Time

	current atomic.Pointer[Nodes] // nil until the registry has answered
	used    atomic.Bool           // since the last sweep
	waiting atomic.Int32          // Selects that wait
	bleak   atomic.Int64          // until when no node is looked for that has not failed, since began
	ctx     context.Context       // the watch's
	stop    context.CancelFunc

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with each change of current or err
	err     error         // the registry's last word, where it was an error
	doubted *time.Timer   // will apply an empty set unless another comes first
	doubts  int           // how many there were: a timer that was too late to stop knows that it is not the last
	places  map[string]place
	left    map[string]*load // of nodes that went while calls to them were under way
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
		for c, err := range registry.WatchChanges(s.ctx, f, s.name) {
			if err != nil {
				s.fail(err)
				continue
			}
			retry = firstRetry
			s.learn(c)
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
	return s.err == nil || now == nil || now.Len() == 0
}

// learn takes what the registry told.
func (s *service) learn(c registry.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doubted != nil {
		c.Reset, c.Gone = true, nil // the registry had nobody; what it puts now is all that it has
	}
	known := s.current.Load()
	doubtful := c.Reset && len(c.Put) == 0 && (s.err != nil || s.doubted != nil) && known != nil && known.Len() > 0
	if s.err != nil {
		s.logger.Info("registry is back", "service", s.name, "nodes", len(c.Put))
		s.err = nil
	}
	if !doubtful {
		s.believe()
		s.apply(c)
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
		s.apply(registry.Change{Reset: true})
	}
}

func (s *service) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await gives the first set with a node in it, or the error that says why there is none.
func (s *service) await(ctx context.Context, grace time.Duration) (*Nodes, error) {
	began := time.Now()
	patience := time.NewTimer(grace - began.Sub(s.began))
	defer patience.Stop()
	over := false
	for {
		s.mu.Lock()
		now, err, changed := s.current.Load(), s.err, s.changed
		s.mu.Unlock()
		switch {
		case now != nil && now.Len() > 0:
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
