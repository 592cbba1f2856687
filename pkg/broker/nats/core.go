package nats

import (
	"context"
	"sync"

	natsgo "github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/natsconn"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/broker/internal/envelope"
)

// core is a subscription of core NATS.
type core struct {
	b            *Broker
	topic, queue string
	subject      string
	pool         *delivery.Pool
	sub          *natsconn.Subscription
	closing      sync.Once
}

func newCore(ctx context.Context, b *Broker, topic string, h broker.Handler, o broker.SubscribeOptions) (subscription, error) {
	s := &core{b: b, topic: topic, queue: o.Queue, subject: subjectOf(topic), pool: delivery.NewPool(h, o)}
	var err error
	if s.sub, err = b.conn.Subscribe(ctx, s.subject, o.Queue, b.o.PendingBytes, s.take); err != nil {
		s.pool.Close()
		return nil, err
	}
	return s, nil
}

// take is called for one message after the other.
func (s *core) take(raw *natsgo.Msg) {
	m, err := envelope.Decode(raw.Data)
	if err != nil {
		s.b.o.Logger.Warn("a message is no envelope, and is left out", "topic", s.topic, "error", err)
		return
	}
	m.Topic = s.topic // whatever it says itself
	if !s.pool.Take(nil) {
		return
	}
	id := m.ID
	s.pool.Run(m, func(err error) {
		if err != nil {
			s.b.o.Logger.Warn("a handler failed, and its message is lost", "topic", s.topic, "queue", s.queue, "id", id, "error", err)
		}
	})
}

func (s *core) Topic() string { return s.topic }
func (s *core) Queue() string { return s.queue }

func (s *core) connected() {}

func (s *core) dropped(sub *natsgo.Subscription) bool {
	if sub == nil || sub.Subject != s.subject || sub.Queue != s.queue {
		return false
	}
	n, _ := sub.Dropped()
	s.b.o.Logger.Warn("a subscription is too slow, and messages are dropped", "topic", s.topic, "queue", s.queue, "dropped", n)
	return true
}

func (s *core) Close() error {
	s.closing.Do(func() {
		if n := s.sub.Waiting(); n > 0 {
			s.b.o.Logger.Warn("a subscription is closed, and messages that waited are dropped", "topic", s.topic, "queue", s.queue, "dropped", n)
		}
		s.sub.Close()
		s.b.forget(s)
	})
	s.pool.Close()
	return nil
}
