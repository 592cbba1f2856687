package http

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/registry"
)

// maxPause bounds the pauses between attempts at a registry that is away.
const maxPause = 30 * time.Second

// lookTime bounds the first look at the whole registry.
const lookTime = time.Second

// directory knows the subscribers of all topics: what the registry's watches have told, which stays while the registry is away.
// It is read by changes: one costs what changed, and the next Publish to that topic a look at the topic's subscribers.
type directory struct {
	ctx      context.Context
	registry registry.Finder
	log      *slog.Logger
	start    sync.Once
	watching sync.WaitGroup

	mu      sync.Mutex
	sources [2]source
	looked  bool                 // look has ended
	begun   time.Time            // when the watches were
	topics  map[string]*audience // those that have subscribers
	places  map[string]place     // of the subscribers, by their ids
	listed  map[string]bool      // the ids of those that look alone found, until the watches have had their time
	changed chan struct{}        // closed and replaced with each change of the above
}

// source is a service under which subscribers stand, and the watch of it.
type source struct {
	service string
	known   bool
	err     error // of the watch; nil while it works
}

// place is where a subscriber stands.
type place struct{ topic, service string }

// audience is the subscribers of a topic.
type audience struct {
	members map[string]registry.Node
	sorted  []registry.Node // the members, to be read only; nil where they have changed
}

func (a *audience) nodes() []registry.Node {
	if a == nil {
		return nil
	}
	if a.sorted == nil {
		a.sorted = slices.Collect(maps.Values(a.members))
		registry.Sort(a.sorted)
	}
	return a.sorted
}

func newDirectory(ctx context.Context, f registry.Finder, log *slog.Logger) *directory {
	return &directory{
		ctx: ctx, registry: f, log: log, changed: make(chan struct{}),
		sources: [...]source{{service: registry.BrokerService}, {service: registry.BrokerServiceV1}},
		topics:  map[string]*audience{}, places: map[string]place{}, listed: map[string]bool{},
	}
}

// wait returns when the watch has ended. Its context must have ended before.
func (d *directory) wait() {
	d.start.Do(func() {}) // nobody starts it any more
	d.watching.Wait()
}

// nodes gives the nodes of topic's subscribers, to be read only. The first call starts the watches and waits for their
// first sets, and for a look at the whole registry: the first set of a watch may be what the fastest part of a registry
// knows, and a message goes to all or it is not published. A registry that answers with an error instead, or not within
// patience, is an error.
func (d *directory) nodes(ctx context.Context, topic string, patience time.Duration) ([]registry.Node, error) {
	d.start.Do(func() {
		d.begun = time.Now() // before anybody reads it
		for i := range d.sources {
			d.watching.Go(func() { d.watch(&d.sources[i]) })
		}
		d.watching.Go(d.look)
	})
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	for {
		d.mu.Lock()
		if len(d.listed) > 0 && time.Since(d.begun) > 2*lookTime {
			d.unlist()
		}
		nodes, changed := d.topics[topic].nodes(), d.changed
		known, err := d.state()
		d.mu.Unlock()
		switch {
		case known:
			return nodes, nil
		case err != nil:
			return nil, fmt.Errorf("%w: looking for the subscribers of %s in the registry: %w", broker.ErrUnavailable, topic, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: looking for the subscribers of %s in the registry: %w", broker.ErrUnavailable, topic, context.Cause(ctx))
		}
	}
}

// state tells whether all sources are known, and why not. mu is held.
func (d *directory) state() (known bool, err error) {
	known = d.looked
	for _, s := range d.sources {
		known = known && s.known
		if err == nil {
			err = s.err
		}
	}
	return known, err
}

// watch follows a source until the context ends. A watch that ends before it, as when the registry was closed, is begun
// again after a pause.
func (d *directory) watch(s *source) {
	for pause := time.Second / 4; ; pause = min(2*pause, maxPause) {
		for c, err := range registry.WatchChanges(d.ctx, d.registry, s.service) {
			if err != nil {
				d.fail(s, err)
				continue
			}
			pause = time.Second / 4
			d.learn(s, c)
		}
		if d.ctx.Err() != nil {
			return
		}
		d.fail(s, fmt.Errorf("%w: its watch ended", registry.ErrUnavailable))
		if !sleep(d.ctx, jitter(pause)) {
			return
		}
	}
}

// look asks for all nodes once, and adds to what the watch has told those that it has not told of yet, as long as it is
// young. A node that the watch has told of is the watch's to drop.
func (d *directory) look() {
	ctx, cancel := context.WithTimeout(d.ctx, lookTime)
	defer cancel()
	nodes, _ := d.registry.List(ctx) // an error is the watch's to tell
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looked = true
	for _, n := range nodes {
		if _, told := d.places[n.ID]; !told && (n.Service == registry.BrokerService || n.Service == registry.BrokerServiceV1) {
			d.put(n)
			d.listed[n.ID] = true
		}
	}
	d.announce()
}

// unlist drops what the watch, which has had its time, has not told of. mu is held.
func (d *directory) unlist() {
	for id := range d.listed {
		d.drop(id)
	}
}

// put takes a node, if it is a subscriber of HTTP brokers. mu is held.
func (d *directory) put(n registry.Node) {
	d.drop(n.ID)
	topic := n.Metadata[registry.MetaTopic]
	if n.Metadata[registry.MetaBroker] != metaBrokerHTTP || topic == "" || isSecond(n) {
		return
	}
	a := d.topics[topic]
	if a == nil {
		a = &audience{members: map[string]registry.Node{}}
		d.topics[topic] = a
	}
	a.members[n.ID], a.sorted = n, nil
	d.places[n.ID] = place{topic, n.Service}
}

// drop forgets a node. mu is held.
func (d *directory) drop(id string) {
	delete(d.listed, id)
	at, ok := d.places[id]
	if !ok {
		return
	}
	delete(d.places, id)
	a := d.topics[at.topic]
	delete(a.members, id)
	a.sorted = nil
	if len(a.members) == 0 {
		delete(d.topics, at.topic)
	}
}

// announce wakes who waits for a change. It is called with the lock held.
func (d *directory) announce() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// learn takes what the watch of a source tells.
func (d *directory) learn(s *source, c registry.Change) {
	d.mu.Lock()
	back := s.err != nil
	s.known, s.err = true, nil
	if c.Reset {
		for id, at := range d.places {
			if at.service == s.service && !d.listed[id] {
				d.drop(id)
			}
		}
	}
	for _, id := range c.Gone {
		d.drop(id)
	}
	for _, n := range c.Put {
		d.put(n)
	}
	subscribers := len(d.places)
	d.announce()
	d.mu.Unlock()
	if back {
		d.log.Info("broker: the registry answers again", "subscribers", subscribers)
	}
}

func (d *directory) fail(s *source, err error) {
	d.mu.Lock()
	first, known := s.err == nil, s.known
	s.err = err
	d.announce()
	d.mu.Unlock()
	if first {
		d.log.Warn("broker: cannot watch the registry for subscribers", "err", err, "service", s.service, "known_set_used", known)
	}
}

// jitter gives d give or take a fifth, so that many do not act at the same moment.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
