package http

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
)

// How a subscription stands in the registry: go-micro's metadata, and one key of ours.
const (
	broadcast      = "ff.http.broadcast" // the version of a subscription without a queue
	metaBrokerHTTP = "http"
	metaSecure     = "secure"
	metaFrames     = "frames" // "true": batches are taken at the node's address
	metaAck        = "ack"    // "true": the subscriber's answer tells what became of the message, and names its node in headerAck
)

// headerAck is the header of an acknowledgement: the id of the node whose handler took the message. By it a publisher tells
// a subscriber from another program that has got its port and answers 200 to anything.
const headerAck = "Micro-Ack"

// closeTimeout bounds taking a subscription out of the registry, which forgets it after its TTL anyway.
const closeTimeout = 2 * time.Second

// minInterval keeps a subscription with a very short TTL from taking a processor for its renewals.
const minInterval = 10 * time.Millisecond

type subscription struct {
	broker   *Broker
	topic    string
	queue    string
	reuse    bool
	node     registry.Node
	second   registry.Node // for go-micro v1's publishers; of no service where there is none
	receiver *delivery.Receiver
	ack      metadata.MD // the header of its replies to batches

	cancel   context.CancelFunc // of renewing
	renewing sync.WaitGroup
	once     sync.Once
	err      error // of Close
}

func (s *subscription) Topic() string { return s.topic }
func (s *subscription) Queue() string { return s.queue }

// Subscribe registers a subscription and renews it until it is closed. The first one opens the broker's listener unless
// Attach came before. ctx bounds the registration, and has no part afterwards. The error wraps broker.ErrInvalid,
// ErrUnavailable or ErrClosed.
func (b *Broker) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	if err := broker.CheckTopic(topic); err != nil {
		return nil, err
	}
	o, err := broker.ReadOptions(opts)
	switch {
	case err != nil:
		return nil, err
	case h == nil:
		return nil, fmt.Errorf("%w: no handler for topic %s", broker.ErrInvalid, topic)
	case o.Queue == broadcast:
		return nil, fmt.Errorf("%w: queue %q means none to the http broker", broker.ErrInvalid, o.Queue)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("broker: subscribe to %s: %w", topic, ctx.Err())
	}
	inner, leave, err := b.gate.Enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	address, err := b.listen(inner)
	if err != nil {
		return nil, err
	}
	s := &subscription{broker: b, topic: topic, queue: o.Queue, reuse: o.Reuse, receiver: delivery.NewReceiver(h, o)}
	s.node = b.node(topic, o.Queue, address)
	s.ack = metadata.Of(mdAck, s.node.ID)
	if !b.options.NoV1 {
		s.second = secondOf(s.node)
	}
	b.mu.Lock()
	b.subs[s.node.ID] = s
	if s.second.Service != "" {
		b.subs[s.second.ID] = s
	}
	b.mu.Unlock()
	if err := b.register(inner, s.node); err != nil {
		b.forget(s)
		s.receiver.Close()
		return nil, err
	}
	b.mu.Lock()
	b.untold[s.node.ID] = s
	b.mu.Unlock()
	// Not b.gate's context: a broker that is closed takes its subscriptions back one by one.
	renewing, cancel := context.WithCancel(context.WithoutCancel(inner))
	s.cancel = cancel
	s.renewing.Go(func() { s.renew(renewing) })
	return s, nil
}

// node gives the record of a new subscription.
func (b *Broker) node(topic, queue, address string) registry.Node {
	n := registry.Node{ID: nodeID(topic), Service: registry.BrokerService, Version: broadcast, Address: address}
	if queue != "" {
		n.Version = queue
	}
	n.Metadata = maps.Clone(b.options.Metadata)
	if n.Metadata == nil {
		n.Metadata = map[string]string{}
	}
	n.Metadata[registry.MetaBroker] = metaBrokerHTTP
	n.Metadata[registry.MetaTopic] = topic
	n.Metadata[registry.MetaStarted] = time.Now().UTC().Format(time.RFC3339Nano)
	n.Metadata[metaSecure] = "false"
	n.Metadata[metaAck] = "true"
	if b.batches {
		n.Metadata[metaFrames] = "true"
	}
	return n
}

// secondOf gives the record by which go-micro v1's publishers find a subscription, which look under another name. Others leave it out.
func secondOf(n registry.Node) registry.Node {
	topic := n.Metadata[registry.MetaTopic]
	return registry.Node{
		ID: nodeID(topic), Service: registry.BrokerServiceV1, Version: n.Version, Address: n.Address,
		Metadata: map[string]string{
			registry.MetaBroker: metaBrokerHTTP, registry.MetaTopic: topic, metaSecure: n.Metadata[metaSecure], registry.MetaHidden: "true",
		},
	}
}

// isSecond reports whether n is a record that secondOf made.
func isSecond(n registry.Node) bool {
	return n.Service == registry.BrokerServiceV1 && n.Metadata[registry.MetaHidden] == "true"
}

// nodeID gives the topic and 128 random bits, which only those can know who may read the registry. It is one DNS label's
// 63 bytes at most and a valid name, since it becomes part of a DNS name with mDNS: a long topic is cut.
func nodeID(topic string) string {
	name := strings.ReplaceAll(topic, "/", "-")
	name = strings.ReplaceAll(name, "..", ".-")
	name = name[:min(len(name), 26)]
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", name, id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// register announces n and says whose fault a failure is.
func (b *Broker) register(ctx context.Context, n registry.Node) error {
	bounded, cancel := context.WithTimeout(ctx, b.options.RegistryTimeout)
	defer cancel()
	err := b.registry.Register(bounded, n, b.options.TTL)
	topic := n.Metadata[registry.MetaTopic]
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), broker.ErrClosed):
		return broker.ErrClosed
	case errors.Is(err, registry.ErrInvalid):
		return fmt.Errorf("%w: topic %s cannot be registered: %w", broker.ErrInvalid, topic, err)
	}
	return fmt.Errorf("%w: the registry does not take the subscription to %s: %w", broker.ErrUnavailable, topic, err)
}

// renew registers again and again, about three times in a TTL, and sooner after a failure. It is also what registers the second record, for
// which nobody waits.
func (s *subscription) renew(ctx context.Context) {
	s.renewSecond(ctx)
	interval := max(s.broker.options.TTL/3, minInterval)
	pause, failures := interval, 0
	for sleep(ctx, jitter(pause)) {
		err := s.broker.register(ctx, s.node)
		if err == nil {
			s.renewSecond(ctx)
		}
		switch {
		case err == nil && failures > 0:
			s.broker.options.Logger.Info("broker: subscription is registered again", "topic", s.topic, "failures", failures)
			pause, failures = interval, 0
		case err == nil:
		case ctx.Err() != nil:
			return
		default:
			if failures++; failures == 1 {
				s.broker.options.Logger.Warn("broker: subscription cannot be renewed, trying on", "topic", s.topic, "err", err)
			}
			pause = min(interval, time.Second<<min(failures-1, 10))
		}
	}
}

// renewSecond registers the second record. What fails there fails with the first one, or is the next renewal's to do.
func (s *subscription) renewSecond(ctx context.Context) {
	if s.second.Service == "" {
		return
	}
	if err := s.broker.register(ctx, s.second); err != nil && ctx.Err() == nil {
		s.broker.options.Logger.Debug("broker: subscription is not registered for go-micro v1", "topic", s.topic, "err", err)
	}
}

// Close takes the record out of the registry first, so that a publisher who still has it meets a subscription that
// works, or one that says that it is gone.
func (s *subscription) Close() error {
	s.once.Do(func() {
		s.cancel()
		s.renewing.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := s.broker.registry.Deregister(ctx, s.node); err != nil && !errors.Is(err, registry.ErrClosed) {
			s.err = fmt.Errorf("broker: the subscription to %s stays in the registry for up to %v: %w", s.topic, s.broker.options.TTL, err)
		}
		if s.second.Service != "" {
			_ = s.broker.registry.Deregister(ctx, s.second) // its error is that of the first
		}
		s.broker.forget(s)
		s.receiver.Close()
	})
	return s.err
}

func (b *Broker) forget(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s.node.ID)
	delete(b.subs, s.second.ID)
	delete(b.untold, s.node.ID)
}
