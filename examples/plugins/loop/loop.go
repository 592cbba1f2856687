// Package loop is a broker that was written outside the framework: it calls the subscribers of its own process. It uses
// the framework's public packages alone, and passes its suite.
//
// A message reaches each subscription that stands when it is published, and one member of each queue. It is delivered
// once, or not at all: the report tells which.
package loop

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"sync"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/status"
)

// Broker is the broker. Make it with New.
type Broker struct {
	mu     sync.Mutex
	subs   []*subscription
	turn   int // which member of a queue is next
	made   int // subscriptions so far
	closed bool
}

// New makes a broker without subscribers.
func New() *Broker { return &Broker{} }

// Open is New for a broker.Openers.
func Open(context.Context, *url.URL) (broker.Broker, error) { return New(), nil }

var _ broker.Broker = (*Broker)(nil)

// subscription is one handler of a topic.
type subscription struct {
	broker.SubscribeOptions
	broker  *Broker
	name    string
	topic   string
	handler broker.Handler
	slots   chan struct{} // one for each handler that may run
	ctx     context.Context
	cancel  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

func (s *subscription) Topic() string { return s.topic }
func (s *subscription) Queue() string { return s.SubscribeOptions.Queue }

// Subscribe implements broker.Broker.
func (b *Broker) Subscribe(ctx context.Context, topic string, h broker.Handler, opts ...broker.SubscribeOption) (broker.Subscription, error) {
	o, err := broker.ReadOptions(opts)
	if err == nil {
		err = broker.CheckTopic(topic)
	}
	if err == nil && h == nil {
		err = fmt.Errorf("%w: no handler", broker.ErrInvalid)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, broker.ErrClosed
	}
	b.made++
	s := &subscription{
		SubscribeOptions: o, broker: b, name: fmt.Sprintf("%s-%d", topic, b.made), topic: topic, handler: h,
		slots: make(chan struct{}, o.Concurrency),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	b.subs = append(b.subs, s)
	return s, nil
}

// Publish implements broker.Broker. A subscription gets its messages one after the other.
func (b *Broker) Publish(ctx context.Context, ms ...*broker.Message) (broker.Report, error) {
	if err := broker.CheckMessages(ms, broker.MaxMessage); err != nil {
		return broker.Report{}, err
	}
	if err := ctx.Err(); err != nil {
		return broker.Report{}, err
	}
	ids := make([]string, len(ms))
	numbers := map[*subscription][]int{} // of the messages that it gets
	for i, m := range ms {
		if ids[i] = m.ID; m.ID == "" {
			ids[i] = rand.Text()
		}
		targets, err := b.targets(m.Topic)
		if err != nil {
			return broker.Report{}, err
		}
		for _, s := range targets {
			numbers[s] = append(numbers[s], i)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, broker.DefaultTimeout)
	defer cancel()
	report := broker.Report{ID: ids[0], IDs: ids, Deliveries: []broker.Delivery{}}
	var all sync.WaitGroup
	var mu sync.Mutex
	for s, list := range numbers {
		all.Go(func() {
			for _, i := range list {
				m := ms[i]
				own := &broker.Message{Topic: m.Topic, ID: ids[i], Header: m.Header.Clone(), Body: append([]byte(nil), m.Body...)}
				d := broker.Delivery{Subscriber: s.name, Queue: s.Queue(), Err: s.deliver(ctx, own), First: i, Last: i}
				mu.Lock()
				report.Deliveries = append(report.Deliveries, d)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return report, nil
}

// targets gives the subscriptions that get the next message of topic: of each queue, the member whose turn it is.
func (b *Broker) targets(topic string) ([]*subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, broker.ErrClosed
	}
	var targets []*subscription
	queues := map[string][]*subscription{}
	for _, s := range b.subs {
		switch {
		case s.topic != topic:
		case s.Queue() == "":
			targets = append(targets, s)
		default:
			queues[s.Queue()] = append(queues[s.Queue()], s)
		}
	}
	b.turn++
	for _, members := range queues {
		targets = append(targets, members[b.turn%len(members)])
	}
	return targets, nil
}

// deliver runs the handler, and returns when it has returned, or when nobody waits for it any longer: it runs on then.
func (s *subscription) deliver(ctx context.Context, m *broker.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return broker.ErrBusy
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.slots
		return broker.ErrClosed
	}
	s.running.Add(1)
	s.mu.Unlock()
	own, cancel := context.WithTimeout(s.ctx, s.Timeout)
	result := make(chan error, 1)
	go func() {
		defer s.running.Done()
		defer cancel()
		err := s.run(own, m)
		<-s.slots // before the publisher knows, so that its next message finds the place
		result <- err
	}()
	select {
	case err := <-result:
		if errors.Is(err, context.DeadlineExceeded) && errors.Is(own.Err(), context.DeadlineExceeded) {
			return s.late(own) // it gave up with its context
		}
		return err
	case <-own.Done():
		select {
		case err := <-result:
			if !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return s.late(own)
		default:
			return s.late(own)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// late is the error of a handler whose context has ended.
func (s *subscription) late(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return status.New(status.HandlerTimeout, "the handler has not returned within %v", s.Timeout)
	}
	return broker.ErrClosed
}

func (s *subscription) run(ctx context.Context, m *broker.Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the handler panicked: %v", p)
		}
	}()
	return s.handler(ctx, m)
}

// Close implements broker.Subscription.
func (s *subscription) Close() error {
	s.broker.mu.Lock()
	for i, other := range s.broker.subs {
		if other == s {
			s.broker.subs = append(s.broker.subs[:i:i], s.broker.subs[i+1:]...)
			break
		}
	}
	s.broker.mu.Unlock()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	return nil
}

// Close implements broker.Broker.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.closed = true
	subs := b.subs
	b.mu.Unlock()
	for _, s := range subs {
		_ = s.Close()
	}
	return nil
}
