// Package memory is a broker within a process, for tests and for services that run in one.
//
// Publish returns when each subscriber has handled the message. What is promised: each subscriber of the same [Broker], or
// of a [Broker.View] of it, that stands when Publish is called gets the message at most once, and so does one member of
// each queue, taken at random; another member is tried where that one is busy or refuses unhandled. The Report has the
// errors as the handlers returned them. Nothing is stored, and nothing is delivered twice. The order is that of
// [broker.Broker].
package memory

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
)

// Broker is a broker in memory. Messages are at most broker.MaxMessage bytes.
type Broker struct {
	*bus
	gate *delivery.Gate
}

// bus is what the views of one broker share.
type bus struct {
	mu     sync.Mutex
	topics map[string][]*subscription
	count  int // of all subscriptions so far, to name them
	series *delivery.Series
}

// New gives a broker without subscribers. Whoever makes it closes it.
func New() *Broker {
	return newView(&bus{topics: map[string][]*subscription{}, series: delivery.NewSeries()})
}

func newView(b *bus) *Broker { return &Broker{bus: b, gate: delivery.NewGate()} }

// View gives another broker that reaches the same subscribers, and whose Close ends its own subscriptions alone: one
// for each of several services in a process. It may be used when b is closed.
func (b *Broker) View() *Broker { return newView(b.bus) }

// Open is New for a set of openers. u has no parameters.
func Open(_ context.Context, u *url.URL) (broker.Broker, error) {
	if _, err := opener.Params(u); err != nil {
		return nil, err
	}
	return New(), nil
}

// Publish runs the handlers, each with copies of the messages, and returns when each is done or ctx has ended; handlers
// that run go on then. A ctx without a deadline ends after broker.DefaultTimeout.
func (b *Broker) Publish(ctx context.Context, ms ...*broker.Message) (broker.Report, error) {
	if err := broker.CheckMessages(ms, broker.MaxMessage); err != nil {
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
	ids := b.series.IDs(ms, b.series.Take(len(ms)))
	deliveries, err := delivery.ByTopic(inner, ms, func(topic string, ms []*broker.Message, at delivery.Place) ([]delivery.Target, error) {
		return b.targets(topic, ms, ids, at), nil
	})
	return broker.Report{ID: ids[0], IDs: ids, Deliveries: deliveries}, err
}

// targets gives who gets ms, which are for topic.
func (b *bus) targets(topic string, ms []*broker.Message, ids []string, at delivery.Place) []delivery.Target {
	b.mu.Lock()
	subs := slices.Clone(b.topics[topic])
	b.mu.Unlock()
	members := make([]delivery.Member, len(subs))
	for i, s := range subs {
		members[i] = delivery.Member{ID: s.name, Send: func(ctx context.Context, first, end int) []delivery.Outcome {
			own := make([]broker.Message, end-first)
			for j := range own {
				m := ms[first+j]
				own[j] = broker.Message{Topic: topic, ID: ids[at.Of(first+j)], Header: m.Header.Clone(), Body: append([]byte{}, m.Body...)}
			}
			outs, _ := s.receiver.Deliver(ctx, own)
			return outs
		}}
	}
	return delivery.Group(members, func(i int) string { return subs[i].options.Queue })
}

// Subscribe is broker.Broker's; ctx has no part in it once it has returned.
func (b *Broker) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	if err := broker.CheckTopic(topic); err != nil {
		return nil, err
	}
	o, err := broker.ReadOptions(opts)
	if err != nil {
		return nil, err
	}
	if h == nil {
		return nil, fmt.Errorf("%w: no handler for topic %s", broker.ErrInvalid, topic)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("broker: subscribe to %s: %w", topic, err)
	}
	_, leave, err := b.gate.Enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	s := &subscription{broker: b, topic: topic, options: o, receiver: delivery.NewReceiver(h, o)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	s.name = topic + "-" + strconv.Itoa(b.count)
	b.topics[topic] = append(b.topics[topic], s)
	return s, nil
}

// Close ends the calls that are under way and closes the subscriptions that were made through b.
func (b *Broker) Close() error {
	b.gate.Close()
	b.mu.Lock()
	var subs []*subscription
	for _, all := range b.topics {
		for _, s := range all {
			if s.broker == b {
				subs = append(subs, s)
			}
		}
	}
	b.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range subs {
		wg.Go(func() { _ = s.Close() }) // it has no error to give
	}
	wg.Wait()
	return nil
}

type subscription struct {
	broker   *Broker
	name     string
	topic    string
	options  broker.SubscribeOptions
	receiver *delivery.Receiver
}

func (s *subscription) Topic() string { return s.topic }
func (s *subscription) Queue() string { return s.options.Queue }

func (s *subscription) Close() error {
	s.broker.remove(s)
	s.receiver.Close()
	return nil
}

func (b *bus) remove(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// In place, since publishers work on clones; DeleteFunc clears the tail.
	rest := slices.DeleteFunc(b.topics[s.topic], func(other *subscription) bool { return other == s })
	if len(rest) == 0 {
		delete(b.topics, s.topic)
		return
	}
	b.topics[s.topic] = rest
}
