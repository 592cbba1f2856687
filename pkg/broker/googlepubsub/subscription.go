package googlepubsub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
)

const (
	ackDeadline = 10 * time.Second // of what is made; the client extends it while a handler runs
	abandonTime = 24 * time.Hour   // after which the subscription of a process that died is taken away: the least that Pub/Sub takes
	extendTime  = time.Hour        // for which a message may wait for its handler and run, or four times its time
	leaveTime   = 2 * time.Second  // for taking away what a closed subscription had
	requests    = 4                // of Subscribe, as a rule at most
	maxCounted  = 10_000           // messages whose tries are counted here
)

// subscription receives from one of Pub/Sub's.
type subscription struct {
	b            *Broker
	client       *pubsub.Client
	topic, queue string
	id           string
	pool         *delivery.Pool
	o            broker.SubscribeOptions
	life         context.Context // ends when Close begins
	end          context.CancelFunc
	running      sync.WaitGroup
	once         sync.Once
	over         chan struct{} // closed when Close is done

	mu      sync.Mutex
	tries   map[string]int   // deliveries here, by Pub/Sub's id: it counts only with a dead letter policy
	reasons map[string]error // why the last handler failed, where the dead letter could not be published
}

// subscribe makes a subscription, and what it needs.
func (b *Broker) subscribe(ctx context.Context, topic string, h broker.Handler, o broker.SubscribeOptions) (*subscription, error) {
	client, err := b.get(ctx)
	if err != nil {
		return nil, err
	}
	s := &subscription{
		b: b, client: client, topic: topic, queue: o.Queue, id: ownID(topic), pool: delivery.NewPool(h, o), o: o, over: make(chan struct{}),
		tries: map[string]int{}, reasons: map[string]error{},
	}
	if s.queue != "" {
		s.id = queueID(topic, s.queue)
	}
	s.life, s.end = context.WithCancel(context.Background())
	limit, cancel := context.WithTimeout(ctx, requests*b.o.Timeout)
	defer cancel()
	if err := retry(limit, func() error { return s.make(limit) }); err != nil {
		s.end()
		s.pool.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	s.running.Go(s.keep)
	return s, nil
}

// make makes the subscription, unless it is there.
func (s *subscription) make(ctx context.Context) error {
	admin := s.client.SubscriptionAdminClient
	name := s.b.subscriptionName(s.id)
	want := &pb.Subscription{
		Name: name, Topic: s.b.topicName(s.topic), AckDeadlineSeconds: int32(ackDeadline / time.Second), EnableMessageOrdering: s.b.o.Ordering,
		RetryPolicy:      &pb.RetryPolicy{MinimumBackoff: durationpb.New(s.b.o.RetryWait), MaximumBackoff: durationpb.New(max(time.Minute, s.b.o.RetryWait))},
		ExpirationPolicy: &pb.ExpirationPolicy{}, // never
	}
	if s.queue == "" {
		want.ExpirationPolicy.Ttl = durationpb.New(abandonTime)
		want.MessageRetentionDuration = durationpb.New(abandonTime)
	}
	if !broker.IsDeadTopic(s.topic) {
		want.DeadLetterPolicy = &pb.DeadLetterPolicy{DeadLetterTopic: s.b.topicName(broker.DeadTopic(s.topic)), MaxDeliveryAttempts: int32(s.b.o.Tries)}
	}
	_, err := admin.CreateSubscription(ctx, want, once...)
	if codeOf(err) == codes.NotFound { // the topic, or that of dead letters
		if err = s.b.makeTopic(ctx, s.client, s.topic); err == nil {
			err = s.b.makeTopic(ctx, s.client, broker.DeadTopic(s.topic))
		}
		if err == nil {
			_, err = admin.CreateSubscription(ctx, want, once...)
		}
	}
	if code := codeOf(err); err == nil || code != codes.AlreadyExists && (code != codes.PermissionDenied || s.queue == "") {
		return err
	}
	has, lookErr := admin.GetSubscription(ctx, &pb.GetSubscriptionRequest{Subscription: name}, once...)
	switch {
	case lookErr != nil && codeOf(err) == codes.AlreadyExists && codeOf(lookErr) == codes.PermissionDenied:
		return nil // it is there, and more may not be asked
	case lookErr != nil:
		return err
	case has.Topic != want.Topic:
		return fmt.Errorf("%w: Pub/Sub of %s: subscription %s is for %s, not for %s", broker.ErrInvalid, s.b.o.Project, s.id, has.Topic, want.Topic)
	}
	return nil
}

// keep receives, for ever.
func (s *subscription) keep() {
	for pause := firstPause; s.life.Err() == nil; pause = min(2*pause, 10*lastPause) {
		began := time.Now()
		r := s.client.Subscriber(s.b.subscriptionName(s.id))
		r.ReceiveSettings.MaxOutstandingMessages = s.o.Concurrency
		r.ReceiveSettings.MaxOutstandingBytes = -1
		r.ReceiveSettings.MaxExtension = max(extendTime, 4*s.o.Timeout)
		err := r.Receive(s.life, s.take)
		if s.life.Err() != nil {
			return
		}
		s.b.o.Logger.Warn("a subscription is broken, and begins anew", "topic", s.topic, "queue", s.queue, "error", err)
		if time.Since(began) > time.Minute {
			pause = firstPause
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-s.life.Done():
			return
		}
		if codeOf(err) == codes.NotFound { // somebody has deleted it
			ctx, cancel := context.WithTimeout(s.life, s.b.o.Timeout)
			if err := s.make(ctx); err != nil {
				s.b.o.Logger.Warn("a subscription cannot be made again", "topic", s.topic, "queue", s.queue, "error", s.b.wrap(err))
			}
			cancel()
		}
	}
}

// take is called for each message, on a goroutine of its own. It returns when the message is settled.
func (s *subscription) take(_ context.Context, raw *pubsub.Message) {
	if !s.pool.Take(s.life.Done()) {
		raw.Nack()
		return
	}
	m := decode(raw, s.topic)
	tries := s.count(raw)
	if tries > s.b.o.Tries {
		defer s.pool.Give(1)
		s.dead(raw, m, tries, s.lastReason(raw.ID))
		return
	}
	whole := *m
	if tries == s.b.o.Tries { // it may become a dead letter, and the handler may change what it gets
		whole.Body, whole.Header = bytes.Clone(m.Body), m.Header.Clone()
	}
	settled := make(chan struct{})
	s.pool.Run(m, func(err error) {
		defer close(settled)
		s.settle(raw, &whole, tries, err)
	})
	<-settled
}

// count gives how often a message has been delivered, this time included.
func (s *subscription) count(raw *pubsub.Message) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tries) >= maxCounted {
		clear(s.tries)
	}
	s.tries[raw.ID]++
	if n := raw.DeliveryAttempt; n != nil {
		s.tries[raw.ID] = *n // it knows what other members had
	}
	return s.tries[raw.ID]
}

// settle tells Pub/Sub what became of a message.
func (s *subscription) settle(raw *pubsub.Message, m *broker.Message, tries int, err error) {
	switch {
	case err == nil:
		s.finish(raw)
	case errors.Is(err, broker.ErrClosed) && s.life.Err() != nil:
		raw.Nack() // another may have it
	case tries >= s.b.o.Tries:
		s.dead(raw, m, tries, err)
	default:
		s.b.o.Logger.Info("a handler failed, and its message comes again", "topic", s.topic, "queue", s.queue, "id", m.ID, "delivery", tries, "error", err)
		raw.Nack()
	}
}

func (s *subscription) finish(raw *pubsub.Message) {
	s.mu.Lock()
	delete(s.tries, raw.ID)
	delete(s.reasons, raw.ID)
	s.mu.Unlock()
	raw.Ack()
}

// dead makes a dead letter of a message. Where that cannot be published the message comes again.
func (s *subscription) dead(raw *pubsub.Message, m *broker.Message, tries int, cause error) {
	tries = min(tries, s.b.o.Tries)
	log := []any{"topic", s.topic, "queue", s.queue, "id", m.ID, "deliveries", tries, "error", cause}
	if broker.IsDeadTopic(s.topic) {
		s.b.o.Logger.Error("a dead letter was not handled, and is dropped", log...)
		s.finish(raw)
		return
	}
	letter := broker.DeadLetter(m, s.queue, tries, cause)
	ctx, cancel := context.WithTimeout(context.Background(), s.b.o.Timeout)
	defer cancel()
	reqs, err := s.b.requests([]*broker.Message{letter}, []string{letter.ID})
	if err == nil {
		err = s.b.publish(ctx, reqs)
	}
	if err != nil {
		s.b.o.Logger.Error("a dead letter cannot be published, and its message comes again", append(log, "why", s.b.wrap(err))...)
		s.mu.Lock()
		s.reasons[raw.ID] = cause
		s.mu.Unlock()
		raw.Nack()
		return
	}
	s.b.o.Logger.Warn("a message was not handled, and is a dead letter", append(log, "dead", letter.Topic)...)
	s.finish(raw)
}

// lastReason is why a message that has had its tries was not acknowledged.
func (s *subscription) lastReason(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reasons[id]; err != nil {
		return err
	}
	return errors.New("the subscriber that had it went away, or did not answer")
}

func (s *subscription) Topic() string { return s.topic }
func (s *subscription) Queue() string { return s.queue }

// Close gives back what is not handled when its handlers have returned.
func (s *subscription) Close() error {
	s.once.Do(func() {
		s.end()
		s.pool.Close()
		s.running.Wait()
		s.b.forget(s)
		if s.queue == "" {
			ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
			defer cancel()
			err := s.client.SubscriptionAdminClient.DeleteSubscription(ctx, &pb.DeleteSubscriptionRequest{Subscription: s.b.subscriptionName(s.id)})
			if err != nil && codeOf(err) != codes.NotFound {
				s.b.o.Logger.Warn("a subscription cannot be deleted, and goes by itself after a day", "topic", s.topic, "error", s.b.wrap(err))
			}
		}
		close(s.over)
	})
	<-s.over
	return nil
}
