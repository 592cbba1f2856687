package http

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/registry"
)

// Publish posts m to its subscribers, all at the same time, and returns when each has answered or ctx has ended; one
// without a deadline ends after broker.DefaultTimeout. The first Publish waits for the registry. A subscriber that
// cannot be reached has a Delivery whose error wraps broker.ErrUnavailable; one that says that it is no longer
// subscribed has none. The error wraps broker.ErrInvalid, ErrUnavailable, ErrClosed, or is ctx's.
func (b *Broker) Publish(ctx context.Context, m *broker.Message) (broker.Report, error) {
	if err := broker.CheckMessage(m, b.options.MaxMessage); err != nil {
		return broker.Report{}, err
	}
	if err := ctx.Err(); err != nil {
		return broker.Report{}, fmt.Errorf("broker: publish to %s: %w", m.Topic, err)
	}
	inner, leave, err := b.gate.Enter(ctx)
	if err != nil {
		return broker.Report{}, err
	}
	defer leave()
	nodes, err := b.subscribers(inner, m.Topic)
	switch {
	case err != nil && errors.Is(context.Cause(inner), broker.ErrClosed):
		return broker.Report{}, broker.ErrClosed
	case err != nil:
		return broker.Report{}, err
	}
	id := m.ID
	if id == "" {
		id = rand.Text()
	}
	body, err := encode(m, id)
	if err != nil {
		return broker.Report{}, fmt.Errorf("%w: %w", broker.ErrInvalid, err)
	}
	sending := make(chan struct{}, b.options.Parallel)
	members := make([]delivery.Member, len(nodes))
	for i, n := range nodes {
		members[i] = delivery.Member{ID: n.ID, Send: func(ctx context.Context) delivery.Outcome {
			return b.send(ctx, n, body, sending)
		}}
	}
	targets := delivery.Group(members, func(i int) string { return queueOf(nodes[i]) })
	return broker.Report{ID: id, Deliveries: delivery.Fan(inner, targets)}, nil
}

// subscribers gives the nodes to post to: those of the registry, and those of this broker that its watch has not told
// of yet, so that who subscribes and then publishes reaches itself.
func (b *Broker) subscribers(ctx context.Context, topic string) ([]registry.Node, error) {
	known, err := b.found.nodes(ctx, topic, b.options.RegistryTimeout)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	nodes := make([]registry.Node, 0, len(known))
	listed := map[string]bool{}
	for _, n := range known {
		listed[n.ID] = true
		nodes = append(nodes, n)
	}
	for id, s := range b.subs {
		if s.topic == topic && s.announced && !listed[id] {
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
