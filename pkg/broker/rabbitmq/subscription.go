package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cb02dfca/micro/internal/amqpconn"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
)

const (
	firstDelay = 100 * time.Millisecond // before a message is delivered again, and
	delayGrows = 3                      // times that after each further failure, up to
	lastDelay  = 5 * time.Second
	firstPause = 100 * time.Millisecond // before a subscription that could not be set up again is tried once more
	lastPause  = 5 * time.Second
	ahead      = 8   // messages beyond those that are handled, that a member of a queue has at hand at least
	aheadAlone = 256 // and a subscriber that shares with nobody
)

// subscription is a queue at RabbitMQ, its messages, and the handler.
type subscription struct {
	b     *Broker
	topic string
	o     broker.SubscribeOptions
	pool  *delivery.Pool
	life  context.Context // ends with Close
	end   context.CancelFunc
	done  chan struct{} // closed when run has ended

	retries sync.WaitGroup // deliveries that failed, and are being dealt with
}

// consumer is a channel on which RabbitMQ delivers.
type consumer struct {
	session    *amqpconn.Session
	ch         *amqp.Channel
	queue      string // its name at RabbitMQ
	deliveries <-chan amqp.Delivery
	settling   sync.WaitGroup // deliveries that were handed out, and not settled
}

// Subscribe makes the subscription's queue, and binds it: messages that are published after it has returned come. ctx bounds that
// alone. The errors are those of Publish.
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
	what := "subscribe to " + topic
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("broker: %s: %w", what, err)
	}
	inner, leave, err := b.gate.Enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	s := &subscription{b: b, topic: topic, o: o, done: make(chan struct{})}
	c, err := s.open(inner, b.consuming.Session)
	if err != nil {
		return nil, fault(inner, what, err)
	}
	s.pool = delivery.NewPool(h, o)
	s.life, s.end = context.WithCancel(context.Background())
	b.mu.Lock()
	b.subs[s] = true
	b.mu.Unlock()
	go s.run(c)
	return s, nil
}

func (s *subscription) Topic() string { return s.topic }
func (s *subscription) Queue() string { return s.o.Queue }

// Close ends the subscription. What its handlers do not acknowledge goes to another member of the queue, or waits for one.
func (s *subscription) Close() error {
	s.b.mu.Lock()
	delete(s.b.subs, s)
	s.b.mu.Unlock()
	s.end()
	s.pool.Close()
	s.retries.Wait()
	<-s.done
	return nil
}

// open sets the subscription up at RabbitMQ.
func (s *subscription) open(ctx context.Context, session func(context.Context) (*amqpconn.Session, error)) (*consumer, error) {
	link, err := session(ctx)
	if err != nil {
		return nil, err
	}
	if err := declareExchange(s.b, link); err != nil {
		return nil, s.b.consuming.Explain(err)
	}
	if s.o.Queue != "" {
		if err := s.b.await(ctx, link, s.topic, s.o.Queue); err != nil {
			return nil, err
		}
	}
	c := &consumer{session: link}
	if err := link.Do(func() error { return s.consume(c) }); err != nil {
		c.close()
		return nil, s.silent(c, s.b.consuming.Explain(err))
	}
	return c, nil
}

// silent tells of a queue that does not answer.
func (s *subscription) silent(c *consumer, err error) error {
	if s.b.o.QueueType != Quorum || c.queue == "" || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: the quorum queue %s has no leader: start the nodes that are away, or delete it where none comes back", err, c.queue)
}

// close ends the channel: what is not acknowledged goes back to the queue.
func (c *consumer) close() {
	if c.ch != nil {
		_ = c.session.Do(c.ch.Close)
	}
}

func (s *subscription) consume(c *consumer) (err error) {
	if c.ch, err = c.session.Channel(); err != nil {
		return err
	}
	n := max(2*s.o.Concurrency, aheadAlone)
	if s.o.Queue == "" {
		c.queue, err = s.b.declareOwn(c.ch, s.topic)
	} else {
		n = max(2*s.o.Concurrency, s.o.Concurrency+ahead)
		if !broker.IsDeadTopic(s.topic) {
			if c.queue, err = s.b.declareShared(c.ch, broker.DeadTopic(s.topic), deadQueue); err != nil {
				return err
			}
		}
		c.queue, err = s.b.declareShared(c.ch, s.topic, s.o.Queue)
	}
	if err != nil {
		return err
	}
	if err := c.ch.Qos(min(n, math.MaxUint16), 0, false); err != nil {
		return err
	}
	c.deliveries, err = c.ch.Consume(c.queue, "", false, s.o.Queue == "", false, false, nil)
	return err
}

// run serves the subscription, and sets it up again when it breaks, until Close.
func (s *subscription) run(c *consumer) {
	defer close(s.done)
	for {
		s.serve(c)
		for pause := firstPause; ; pause = min(2*pause, lastPause) {
			if s.life.Err() != nil {
				return
			}
			var err error
			if c, err = s.open(s.life, s.b.consuming.Await); err == nil {
				break
			}
			if s.life.Err() == nil {
				s.b.o.Logger.Warn("the subscription could not be set up again, trying on", "topic", s.topic, "queue", s.o.Queue, "error", err)
			}
			if amqpconn.Sleep(s.life, pause) != nil {
				return
			}
		}
	}
}

// serve handles what comes, until the channel ends, or the subscription: then it waits until all is settled.
func (s *subscription) serve(c *consumer) {
	defer c.close()
	for s.pool.Take(c.session.Done()) {
		select {
		case d, ok := <-c.deliveries:
			if ok {
				s.handle(c, &d)
				continue
			}
			s.pool.Give(1)
			return
		case <-s.life.Done():
			s.pool.Give(1)
			c.settling.Wait()
			return
		}
	}
	if s.life.Err() != nil {
		c.settling.Wait()
	}
}

// handle runs the handler for a delivery, in a place that was taken.
func (s *subscription) handle(c *consumer, d *amqp.Delivery) {
	m, failed := decode(s.topic, d)
	m.Body = append([]byte{}, d.Body...) // the handler may change it, and the message may be needed again
	c.settling.Add(1)
	s.pool.Run(m, func(err error) {
		switch {
		case err == nil:
			_ = d.Ack(false) // on a channel that has ended: it comes again
			c.settling.Done()
		case s.life.Err() != nil && errors.Is(err, broker.ErrClosed):
			_ = d.Nack(false, true)
			c.settling.Done()
		default:
			s.retries.Go(func() {
				defer c.settling.Done()
				s.failed(c, d, failed+1, err)
			})
		}
	})
}

// failed deals with a delivery that failed, for the n-th time: it is put into its queue again after a while, or becomes a dead letter.
// That is confirmed before it is acknowledged, so nothing is lost in between.
func (s *subscription) failed(c *consumer, d *amqp.Delivery, n int, cause error) {
	var err error
	if n < s.b.o.Tries {
		delay := float64(firstDelay) * math.Pow(delayGrows, float64(n-1))
		if err = amqpconn.Sleep(s.life, time.Duration(min(delay, float64(lastDelay)))); err == nil {
			_, err = s.b.publisher.publish(s.life, []publishing{again(c.queue, d, n)})
		}
	} else {
		err = s.bury(d, n, cause)
	}
	if err != nil {
		_ = d.Nack(false, true)
		return
	}
	_ = d.Ack(false)
}

// bury makes a message a dead letter. One that is so already is dropped.
func (s *subscription) bury(d *amqp.Delivery, n int, cause error) error {
	m, _ := decode(s.topic, d)
	log := s.b.o.Logger.With("topic", s.topic, "queue", s.o.Queue, "id", m.ID, "tries", n, "error", cause)
	if broker.IsDeadTopic(s.topic) {
		log.Error("a dead letter could not be handled, and is dropped")
		return nil
	}
	dead := broker.DeadLetter(m, s.o.Queue, n, cause)
	if err := s.keepDead(); err != nil {
		log.Warn("no queue for a dead letter, trying again", "reason", err)
		return err
	}
	ctx, cancel := context.WithTimeout(s.life, broker.DefaultTimeout)
	defer cancel()
	if _, err := s.b.publisher.publish(ctx, []publishing{encode(s.b.o.Exchange, dead, dead.ID, dead.Body, time.Now())}); err != nil {
		return err
	}
	log.Warn("a message is a dead letter", "dead", dead.Topic)
	return nil
}

// keepDead makes the queue that keeps the topic's dead letters, unless it is there.
func (s *subscription) keepDead() error {
	link, err := s.b.consuming.Session(s.life)
	if err != nil {
		return err
	}
	if err := s.b.await(s.life, link, broker.DeadTopic(s.topic), deadQueue); err != nil {
		return err
	}
	return s.b.consuming.Explain(briefly(link, func(ch *amqp.Channel) error {
		_, err := s.b.declareShared(ch, broker.DeadTopic(s.topic), deadQueue)
		return err
	}))
}
