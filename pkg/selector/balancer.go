package selector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// NotFoundError says that a service has no node, and how long one was waited for. It matches [ErrNotFound].
type NotFoundError struct {
	Service string
	Waited  time.Duration // zero where the registry was known to have none
}

// Error names the service.
func (e *NotFoundError) Error() string {
	if waited := e.Waited.Round(time.Millisecond); waited > 0 {
		return fmt.Sprintf("%v: %q (waited %v)", ErrNotFound, e.Service, waited)
	}
	return fmt.Sprintf("%v: %q", ErrNotFound, e.Service)
}

// Is reports whether target is ErrNotFound.
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// Balancer selects among the nodes that a registry knows. It watches each service that is asked for, and answers from
// what it has seen: a Select of a known service asks nobody, and goes on when the registry is away.
//
// A node that refused a connection or answered as another service is tried last for a second, and for up to 30 as it
// goes on failing; one call then finds out whether it is back.
type Balancer struct {
	finder registry.Finder
	opts   options

	services sync.Map // name -> *service
	hot      hot      // of these
	life     context.Context
	end      context.CancelFunc
	running  sync.WaitGroup
	wishes   sync.Pool // of *wish

	mu       sync.Mutex // for starting and stopping watches
	watches  int
	sweeping bool
}

var _ Selector = (*Balancer)(nil)

// New makes a Balancer over the nodes that f knows. It starts nothing before the first Select. Closing it ends its
// watches, and leaves f open.
func New(f registry.Finder, opts ...Option) (*Balancer, error) {
	if f == nil {
		return nil, errors.New("selector: no registry")
	}
	o := defaults()
	for _, opt := range opts {
		opt(&o)
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	b := &Balancer{finder: f, opts: o}
	b.wishes.New = func() any { return newWish() }
	b.life, b.end = context.WithCancel(context.Background())
	return b, nil
}

// Select takes a node as [Selector] says. The first Select of a service waits for the registry; where that knows no node
// yet, for a grace (see [WithGrace]). The error wraps ErrNotFound, ErrNoneMatch, ErrExhausted, ErrUnavailable, ErrClosed
// or ctx's own.
func (b *Balancer) Select(ctx context.Context, q Query) (registry.Node, func(error), error) {
	n, done, err := b.Take(ctx, &q)
	if err != nil {
		return registry.Node{}, nil, err
	}
	return *n, done, nil
}

// Take is Select without its copies, for callers that count nanoseconds. The node is shared with other calls: it is not to be
// changed. q is not kept.
func (b *Balancer) Take(ctx context.Context, q *Query) (*registry.Node, func(error), error) {
	s, now, err := b.nodes(ctx, q.Service)
	if err != nil {
		return nil, nil, err
	}
	c, err := s.pick(now, q)
	if err != nil {
		return nil, nil, err
	}
	c.inflight.Add(1)
	return &c.Node, c.done, nil
}

// TakeAny is Take for a Query that has a Service, and nothing else: most have.
func (b *Balancer) TakeAny(ctx context.Context, service string) (*registry.Node, func(error), error) {
	s, now, err := b.nodes(ctx, service)
	if err != nil {
		return nil, nil, err
	}
	c := s.draw(now, "")
	if !s.takes(c, now) {
		return b.Take(ctx, &Query{Service: service})
	}
	c.inflight.Add(1)
	return &c.Node, c.done, nil
}

// nodes gives a service and its current nodes, never none.
func (b *Balancer) nodes(ctx context.Context, name string) (*service, *Nodes, error) {
	if s := b.known(name); s != nil {
		if now := s.current.Load(); now != nil && now.Len() > 0 {
			s.touch()
			return s, now, nil
		}
	}
	// The empty name would watch all services.
	if !registry.ValidName(name) {
		return nil, nil, &NotFoundError{Service: name}
	}
	for {
		s, err := b.enter(name)
		if err != nil {
			return nil, nil, err
		}
		now, err := s.await(ctx, b.opts.grace)
		s.waiting.Add(-1)
		if !errors.Is(err, errStopped) {
			return s, now, err
		}
	}
}

// known gives a service that is watched, or was a moment ago; nil where it is not.
func (b *Balancer) known(name string) *service {
	if s := b.hot.at(name).Load(); s != nil && s.name == name {
		return s
	}
	if v, ok := b.services.Load(name); ok {
		return v.(*service)
	}
	return nil
}

// hot has some of the services, at places that their names tell at less cost than a map finds them. The Balancer's lock is held by
// who changes it.
type hot [8]atomic.Pointer[service]

func (h *hot) at(name string) *atomic.Pointer[service] {
	if name == "" {
		return &h[0] // nobody has that name
	}
	return &h[(len(name)+int(name[len(name)-1]))%len(h)]
}

// enter gives a service whose watch runs, with one more waiting for it.
func (b *Balancer) enter(name string) (*service, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.life.Err() != nil {
		return nil, ErrClosed
	}
	v, ok := b.services.Load(name)
	if !ok {
		if b.watches >= b.opts.maxServices && !b.evict() {
			return nil, fmt.Errorf("%w: %q would be one service more than the %d that are being waited for", ErrUnavailable, name, b.opts.maxServices)
		}
		v = b.start(name)
	}
	s := v.(*service)
	s.touch()
	s.waiting.Add(1)
	return s, nil
}

func (b *Balancer) start(name string) *service {
	s := &service{
		name:    name,
		picker:  b.opts.strategy.Picker(),
		wishes:  &b.wishes,
		logger:  b.opts.logger,
		began:   time.Now(),
		changed: make(chan struct{}),
		places:  map[string]place{},
	}
	s.follower, _ = s.picker.(Follower)
	s.ctx, s.stop = context.WithCancel(b.life)
	b.running.Go(func() { s.watch(b.finder) })
	b.services.Store(name, s)
	b.hot.at(name).Store(s)
	b.watches++
	if !b.sweeping {
		b.sweeping = true
		b.running.Go(b.sweep)
	}
	return s
}

// drop ends a service's watch. The caller holds b.mu.
func (b *Balancer) drop(s *service) {
	b.services.Delete(s.name)
	b.hot.at(s.name).CompareAndSwap(s, nil)
	s.stop()
	b.watches--
}

// evict makes room for a service: the first in no particular order that was not used since the last look goes, where
// looking makes them unused. It reports false where every service is being waited for.
func (b *Balancer) evict() bool {
	var victim *service
	for range 2 {
		b.services.Range(func(_, v any) bool {
			if s := v.(*service); s.waiting.Load() == 0 && !s.used.Swap(false) {
				victim = s
			}
			return victim == nil
		})
		if victim != nil {
			b.drop(victim)
			return true
		}
	}
	return false
}

// sweep ends the watches of services that nobody asks for, and itself with the last.
func (b *Balancer) sweep() {
	tick := time.NewTicker(b.opts.idle)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-b.life.Done():
			return
		}
		if !b.sweepOnce() {
			return
		}
	}
}

// sweepOnce reports whether there is anything left to sweep.
func (b *Balancer) sweepOnce() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.services.Range(func(_, v any) bool {
		if s := v.(*service); s.idle() {
			b.drop(s)
		}
		return true
	})
	b.sweeping = b.watches > 0
	return b.sweeping
}

// Close ends the watches and waits for them. It is safe to call twice, and gives no error.
func (b *Balancer) Close() error {
	b.mu.Lock()
	b.end()
	b.services.Clear()
	for i := range b.hot {
		b.hot[i].Store(nil)
	}
	b.mu.Unlock()
	b.running.Wait()
	return nil
}
