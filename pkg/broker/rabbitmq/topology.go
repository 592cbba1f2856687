package rabbitmq

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cb02dfca/micro/internal/amqpconn"
	"github.com/cb02dfca/micro/pkg/broker"
)

const (
	// crashes is how often RabbitMQ gives a message of a quorum queue to members that go without an answer, before it makes it a
	// dead letter by itself. It is RabbitMQ 4's own default, which would drop the message where no exchange is named for it.
	crashes = 20
	// deadQueue is the queue that keeps dead letters.
	deadQueue = "dead"
	// written is after what time a new quorum queue is on disk for good, at a server that is forgetful: Ra keeps the names of its
	// logs in a DETS table, which writes what it has been given within 3 s.
	written = 3200 * time.Millisecond
)

// declareExchange makes the exchange, unless it is there. One that is there with other properties is taken as it is: go-micro makes
// one that does not outlive its server.
func declareExchange(b *Broker, s *amqpconn.Session) error {
	err := briefly(s, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(b.o.Exchange, amqp.ExchangeTopic, true, false, false, false, nil)
	})
	switch {
	case amqpconn.Differs(err):
		b.o.Logger.Warn("the exchange is there with other properties: it may be gone, and its bindings with it, when rabbitmq is restarted",
			"exchange", b.o.Exchange, "error", b.publishing.Explain(err))
		return nil
	case amqpconn.Forbidden(err): // whoever may not make it may use it
		return briefly(s, func(ch *amqp.Channel) error {
			if ch.ExchangeDeclarePassive(b.o.Exchange, amqp.ExchangeTopic, true, false, false, false, nil) != nil {
				return err
			}
			return nil
		})
	}
	return err
}

// briefly uses a channel that a failure may end.
func briefly(s *amqpconn.Session, use func(*amqp.Channel) error) error {
	return s.Do(func() error {
		ch, err := s.Channel()
		if err != nil {
			return err
		}
		defer func() { _ = ch.Close() }()
		return use(ch)
	})
}

// queueName gives the name at RabbitMQ of a queue of a topic's subscribers. ':' stands in no topic and no queue.
func queueName(exchange, topic, queue string) string {
	name := exchange + ":" + topic + ":" + queue
	if len(name) > maxShort {
		sum := sha256.Sum256([]byte(name))
		name = name[:maxShort-17] + ":" + hex.EncodeToString(sum[:8])
	}
	return name
}

// declareShared makes the durable queue of a topic's subscribers, unless it is there, and binds it.
func (b *Broker) declareShared(ch *amqp.Channel, topic, queue string) (name string, err error) {
	if name, err = b.declareQueue(ch, topic, queue); err != nil {
		return name, err
	}
	return name, ch.QueueBind(name, topic, b.o.Exchange, false, nil)
}

func (b *Broker) declareQueue(ch *amqp.Channel, topic, queue string) (name string, err error) {
	args := amqp.Table{"x-queue-type": b.o.QueueType}
	if b.o.QueueType == Quorum {
		if broker.IsDeadTopic(topic) {
			args["x-delivery-limit"] = int32(1 << 30) // it is the last place
		} else {
			args["x-delivery-limit"] = int32(crashes)
			args["x-dead-letter-exchange"], args["x-dead-letter-routing-key"] = b.o.Exchange, broker.DeadTopic(topic)
		}
	}
	name = queueName(b.o.Exchange, topic, queue)
	_, err = ch.QueueDeclare(name, true, false, false, false, args)
	return name, err
}

// await makes a topic's queue, where it is a quorum queue that is not there yet and the server is forgetful, and waits until the
// server would not forget it if it were killed. The queue is bound after that: nothing gets into it before.
func (b *Broker) await(ctx context.Context, s *amqpconn.Session, topic, queue string) error {
	if b.o.QueueType != Quorum || !forgetful(s) {
		return nil
	}
	made := false
	queues := map[string]string{topic: queue}
	if !broker.IsDeadTopic(topic) {
		queues[broker.DeadTopic(topic)] = deadQueue
	}
	for t, q := range queues {
		there := briefly(s, func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(queueName(b.o.Exchange, t, q), true, false, false, false, nil)
			return err
		})
		if !amqpconn.Missing(there) { // another failure comes again when the queue is to be used
			continue
		}
		made = true
		if err := briefly(s, func(ch *amqp.Channel) error { _, err := b.declareQueue(ch, t, q); return err }); err != nil {
			return b.consuming.Explain(err)
		}
	}
	if !made {
		return nil
	}
	return amqpconn.Sleep(ctx, written)
}

// forgetful reports whether a server that is killed forgets the log of a quorum queue that is new, and the queue never answers
// again. That ended with Ra 2.11: https://github.com/rabbitmq/ra/pull/443.
func forgetful(s *amqpconn.Session) bool {
	version, _ := s.Properties["version"].(string)
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	return err == nil && n < 4
}

// declareOwn makes the queue of a subscription without a name, which goes with it.
func (b *Broker) declareOwn(ch *amqp.Channel, topic string) (name string, err error) {
	name = queueName(b.o.Exchange, topic, strings.ToLower(rand.Text()))
	if _, err = ch.QueueDeclare(name, false, true, true, false, amqp.Table{"x-queue-type": Classic}); err != nil {
		return name, err
	}
	return name, ch.QueueBind(name, topic, b.o.Exchange, false, nil)
}
