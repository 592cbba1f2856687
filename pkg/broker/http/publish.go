package http

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/broker/internal/envelope"
	"github.com/cb02dfca/micro/pkg/registry"
)

// Publish sends the messages to their subscribers, all at the same time, and returns when each has answered or ctx has
// ended; one without a deadline ends after broker.DefaultTimeout. The first Publish waits for the registry. A subscriber
// that cannot be reached has a Delivery whose error wraps broker.ErrUnavailable; one that says that it is no longer
// subscribed has none. One for which 64 MiB are waiting already counts as busy. The error wraps broker.ErrInvalid,
// ErrUnavailable, ErrClosed, or is ctx's.
func (b *Broker) Publish(ctx context.Context, ms ...*broker.Message) (broker.Report, error) {
	if err := broker.CheckMessages(ms, b.options.MaxMessage); err != nil {
		return broker.Report{}, err
	}
	if err := ctx.Err(); err != nil {
		return broker.Report{}, fmt.Errorf("broker: publish to %s: %w", ms[0].Topic, err)
	}
	inner, leave, err := b.gate.Enter(ctx)
	if err != nil {
		return broker.Report{}, err
	}
	defer leave()
	first := b.series.Take(len(ms))
	ids := b.series.IDs(ms, first)
	posting := make(chan struct{}, b.options.Parallel)
	var all []*publication
	deliveries, err := delivery.ByTopic(inner, ms, func(topic string, ms []*broker.Message, at delivery.Place) ([]delivery.Target, error) {
		p := &publication{b: b, topic: topic, ms: ms, ids: ids, at: at, first: first, posting: posting}
		all = append(all, p)
		return p.targets(inner)
	})
	for _, p := range all {
		p.release()
	}
	switch {
	case err != nil && errors.Is(context.Cause(inner), broker.ErrClosed):
		return broker.Report{}, broker.ErrClosed
	case err != nil:
		return broker.Report{}, err
	}
	return broker.Report{ID: ids[0], IDs: ids, Deliveries: deliveries}, nil
}

// publication is the messages that one Publish has for a topic.
type publication struct {
	b       *Broker
	topic   string
	ms      []*broker.Message
	ids     []string // of the Publish
	at      delivery.Place
	first   uint64        // the number of the Publish's first message in the broker's series
	posting chan struct{} // a place for each subscriber that is posted to at the same time

	kept atomic.Bool // a segment may still be read when the Publish is over

	mu        sync.Mutex
	all       []segment // of all messages; nil until somebody wants them
	rooms     []*[]byte // what the segments lie in
	envelopes map[int][]byte
}

func (p *publication) id(i int) string { return p.ids[p.at.Of(i)] }

// targets gives who gets the messages, and how: in batches, or each by a POST of its own.
func (p *publication) targets(ctx context.Context) ([]delivery.Target, error) {
	nodes, err := p.b.subscribers(ctx, p.topic)
	if err != nil {
		return nil, err
	}
	framed := p.framed()
	members := make([]delivery.Member, len(nodes))
	for i, n := range nodes {
		members[i] = delivery.Member{ID: n.ID, Send: func(ctx context.Context, first, end int) []delivery.Outcome {
			if framed && n.Metadata[metaFrames] == "true" {
				return p.send(ctx, n, first, end)
			}
			return p.post(ctx, n, first, end)
		}}
	}
	return delivery.Group(members, func(i int) string { return queueOf(nodes[i]) }), nil
}

// send sends the messages from first to end to n in batches.
func (p *publication) send(ctx context.Context, n registry.Node, first, end int) []delivery.Outcome {
	segs := p.encoded(first, end)
	for {
		if outs, ok := p.b.lane(n).send(ctx, segs, &p.kept); ok {
			return outs
		}
	}
}

// encoded gives the segments of the messages from first to end; those of all messages are made once.
func (p *publication) encoded(first, end int) []segment {
	p.mu.Lock()
	defer p.mu.Unlock()
	if end-first < len(p.ms) {
		return p.segments(first, end)
	}
	if p.all == nil {
		p.all = p.segments(first, end)
	}
	return p.all
}

// post posts the messages from first to end to n, one after the other.
func (p *publication) post(ctx context.Context, n registry.Node, first, end int) []delivery.Outcome {
	outs := make([]delivery.Outcome, end-first)
	for i := first; i < end; i++ {
		if ctx.Err() != nil {
			outs[i-first] = unreached(n, context.Cause(ctx))
			continue
		}
		body := p.envelope(i)
		if n.Service == registry.BrokerServiceV1 {
			body = envelope.V1(body, p.topic)
		}
		outs[i-first] = p.b.send(ctx, n, body, p.posting)
	}
	return outs
}

// envelope gives message i as it is posted; it is encoded once.
func (p *publication) envelope(i int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	body, ok := p.envelopes[i]
	if !ok {
		body = envelope.Encode(p.ms[i], p.id(i))
		if p.envelopes == nil {
			p.envelopes = map[int][]byte{}
		}
		p.envelopes[i] = body
	}
	return body
}

// subscribers gives the nodes to send to: those of the registry, and those of this broker that its watch has not told
// of yet, so that who subscribes and then publishes reaches itself. They are only read.
func (b *Broker) subscribers(ctx context.Context, topic string) ([]registry.Node, error) {
	known, err := b.found.nodes(ctx, topic, b.options.RegistryTimeout)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	nodes := known[:len(known):len(known)]
	for id, s := range b.untold {
		switch {
		case s.topic != topic:
		case slices.ContainsFunc(known, func(n registry.Node) bool { return n.ID == id }):
			delete(b.untold, id)
		default:
			nodes = append(nodes, s.node)
		}
	}
	return nodes, nil
}

// queueOf gives the queue that n is a member of, empty for none: go-micro keeps it in the version.
func queueOf(n registry.Node) string {
	if n.Version == broadcast {
		return ""
	}
	return n.Version
}
