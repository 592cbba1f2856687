package http

import (
	"context"
	"fmt"
	"log/slog"
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

// directory knows the subscribers of all topics: the last set that the registry's Watch yielded, which stays while the
// registry is away.
type directory struct {
	ctx      context.Context
	registry registry.Finder
	log      *slog.Logger
	start    sync.Once
	watching sync.WaitGroup

	mu      sync.Mutex
	known   bool
	looked  bool            // look has ended
	begun   time.Time       // when the watch was
	last    []registry.Node // the watch's latest set
	listed  []registry.Node // what look found, until the watch has had its time
	topics  map[string][]registry.Node
	err     error         // of the watch; nil while it works
	changed chan struct{} // closed and replaced with each change of the above
}

func newDirectory(ctx context.Context, f registry.Finder, log *slog.Logger) *directory {
	return &directory{ctx: ctx, registry: f, log: log, changed: make(chan struct{})}
}

// wait returns when the watch has ended. Its context must have ended before.
func (d *directory) wait() {
	d.start.Do(func() {}) // nobody starts it any more
	d.watching.Wait()
}

// nodes gives the nodes of topic's subscribers, to be read only. The first call starts the watch and waits for its
// first set, and for a look at the whole registry: the first set of a watch may be what the fastest part of a registry
// knows, and a message goes to all or it is not published. A registry that answers with an error instead, or not within
// patience, is an error.
func (d *directory) nodes(ctx context.Context, topic string, patience time.Duration) ([]registry.Node, error) {
	d.start.Do(func() {
		d.begun = time.Now() // before anybody reads it
		d.watching.Go(d.watch)
		d.watching.Go(d.look)
	})
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	for {
		d.mu.Lock()
		if len(d.listed) > 0 && time.Since(d.begun) > 2*lookTime {
			d.join()
		}
		known, nodes, err, changed := d.known && d.looked, d.topics[topic], d.err, d.changed
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

// watch keeps the set until the context ends. A Watch that ends before it, as when the registry was closed, is begun
// again after a pause.
func (d *directory) watch() {
	for pause := time.Second / 4; ; pause = min(2*pause, maxPause) {
		for nodes, err := range d.registry.Watch(d.ctx, registry.BrokerService) {
			if err != nil {
				d.fail(err)
				continue
			}
			pause = time.Second / 4
			d.set(nodes)
		}
		if d.ctx.Err() != nil {
			return
		}
		d.fail(fmt.Errorf("%w: its watch ended", registry.ErrUnavailable))
		if !sleep(d.ctx, jitter(pause)) {
			return
		}
	}
}

// look asks for all nodes once, and adds to the watch's set what that has not brought yet.
func (d *directory) look() {
	ctx, cancel := context.WithTimeout(d.ctx, lookTime)
	defer cancel()
	listed, _ := d.registry.List(ctx) // an error is the watch's to tell
	listed = slices.DeleteFunc(listed, func(n registry.Node) bool { return n.Service != registry.BrokerService })
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looked, d.listed = true, listed
	d.join()
}

// join makes the topics of the watch's latest set, and of what the look found beside it as long as the watch is young:
// a node that the watch has shown is the watch's to drop. It is called with the lock held, and wakes who waits for a
// change.
func (d *directory) join() {
	shown := map[string]bool{}
	for _, n := range d.last {
		shown[n.ID] = true
	}
	old := time.Since(d.begun) > 2*lookTime
	d.listed = slices.DeleteFunc(d.listed, func(n registry.Node) bool { return old || shown[n.ID] })
	d.topics = byTopic(slices.Concat(d.last, d.listed))
	d.announce()
}

// byTopic sorts the subscribers of HTTP brokers by their topics.
func byTopic(nodes []registry.Node) map[string][]registry.Node {
	topics := map[string][]registry.Node{}
	for _, n := range nodes {
		if topic := n.Metadata[registry.MetaTopic]; n.Metadata[registry.MetaBroker] == metaBrokerHTTP && topic != "" {
			topics[topic] = append(topics[topic], n)
		}
	}
	return topics
}

// announce wakes who waits for a change. It is called with the lock held.
func (d *directory) announce() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// set takes a set of the watch.
func (d *directory) set(nodes []registry.Node) {
	d.mu.Lock()
	back := d.err != nil
	d.known, d.last, d.err = true, nodes, nil
	d.join()
	d.mu.Unlock()
	if back {
		d.log.Info("broker: the registry answers again", "subscribers", len(nodes))
	}
}

func (d *directory) fail(err error) {
	d.mu.Lock()
	first, known := d.err == nil, d.known
	d.err = err
	d.announce()
	d.mu.Unlock()
	if first {
		d.log.Warn("broker: cannot watch the registry for subscribers", "err", err, "known_set_used", known)
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
