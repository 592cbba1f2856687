package googlepubsub

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/textproto"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	gax "github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/cb02dfca/micro/pkg/broker"
)

// Of one request, by Pub/Sub's limits of 1000 messages and 10 MB.
const (
	maxPart    = 1000
	maxPartLen = 8 << 20
	maxKey     = 256
	maxValue   = 1024
)

const (
	firstPause = 20 * time.Millisecond
	lastPause  = time.Second
)

// Attributes that are not metadata, as go-micro spells them.
const (
	attrTopic = "Micro-Topic"
	attrID    = "Micro-ID"
)

// once keeps the client from trying again itself: it would do so for a minute.
var once = []gax.CallOption{gax.WithRetry(func() gax.Retryer { return nil })}

// Publish hands the messages to Pub/Sub and returns when it has stored them; see the package's doc. An error wraps ErrUnavailable where
// Pub/Sub does not answer, and ErrInvalid where a header has a value of more than 1024 bytes; it is a *status.Error where Pub/Sub refuses:
// credentials that lack or are not let in (401), a topic that they do not permit (403), a quota that is used up (429).
func (b *Broker) Publish(ctx context.Context, ms ...*broker.Message) (broker.Report, error) {
	if err := broker.CheckMessages(ms, b.o.MaxMessage); err != nil {
		return broker.Report{}, err
	}
	what := "publish to " + ms[0].Topic
	if err := ctx.Err(); err != nil {
		return broker.Report{}, fmt.Errorf("broker: %s: %w", what, err)
	}
	inner, leave, err := b.gate.Enter(ctx)
	if err != nil {
		return broker.Report{}, err
	}
	defer leave()
	ids := b.series.IDs(ms, b.series.Take(len(ms)))
	reqs, err := b.requests(ms, ids)
	if err != nil {
		return broker.Report{}, err
	}
	if err := b.publish(inner, reqs); err != nil {
		return broker.Report{}, b.failure(ctx, what, err)
	}
	return broker.Report{ID: ids[0], IDs: ids}, nil
}

// request is the messages of a topic that are published together.
type request struct {
	topic string
	msgs  []*pb.PubsubMessage
	size  int
}

// requests gives what publishes messages: those of a topic in their order.
func (b *Broker) requests(ms []*broker.Message, ids []string) (reqs []*request, err error) {
	open := map[string]*request{}
	for i, m := range ms {
		out, size, err := b.encode(m, ids[i])
		if err != nil {
			return nil, err
		}
		r := open[m.Topic]
		if r == nil || len(r.msgs) == maxPart || r.size+size > maxPartLen {
			r = &request{topic: m.Topic}
			open[m.Topic] = r
			reqs = append(reqs, r)
		}
		r.msgs, r.size = append(r.msgs, out), r.size+size
	}
	return reqs, nil
}

// encode gives what is sent of a message.
func (b *Broker) encode(m *broker.Message, id string) (out *pb.PubsubMessage, size int, err error) {
	out = &pb.PubsubMessage{Data: m.Body, Attributes: make(map[string]string, m.Header.Len()+2)}
	if b.o.Ordering {
		out.OrderingKey = b.series.Base()
	}
	out.Attributes[attrTopic], out.Attributes[attrID] = m.Topic, id
	for key, value := range m.Header.All() {
		if len(key) > maxKey || len(value) > maxValue {
			return nil, 0, fmt.Errorf("%w: header %q has %d bytes: Pub/Sub carries %d in a name and %d in a value", broker.ErrInvalid, key, len(value), maxKey, maxValue)
		}
		out.Attributes[textproto.CanonicalMIMEHeaderKey(key)] = value
	}
	const around = 64
	return out, len(m.Body) + len(m.Header) + len(m.Topic) + len(id) + around*(len(out.Attributes)+1), nil
}

// decode gives the message that came.
func decode(raw *pubsub.Message, topic string) *broker.Message {
	m := &broker.Message{Topic: topic, ID: raw.ID, Body: raw.Data}
	if m.Body == nil {
		m.Body = []byte{}
	}
	for key, value := range raw.Attributes {
		switch lower := strings.ToLower(key); lower {
		case "micro-topic": // whatever it says itself
		case "micro-id":
			m.ID = value
		default:
			if md, err := m.Header.Set(lower, value); err == nil { // what is no metadata is left out
				m.Header = md
			}
		}
	}
	return m
}

// publish sends requests, in their order.
func (b *Broker) publish(ctx context.Context, reqs []*request) error {
	client, err := b.get(ctx)
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	for _, r := range reqs {
		if err := b.send(limit, client, r); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
	return nil
}

// send publishes one request. It makes the topic.
func (b *Broker) send(ctx context.Context, client *pubsub.Client, r *request) error {
	return retry(ctx, func() error {
		_, err := client.TopicAdminClient.Publish(ctx, &pb.PublishRequest{Topic: b.topicName(r.topic), Messages: r.msgs}, once...)
		if codeOf(err) != codes.NotFound {
			return err
		}
		if err := b.makeTopic(ctx, client, r.topic); err != nil {
			return err
		}
		return errNewTopic
	})
}

// errNewTopic is of a topic that was just made.
var errNewTopic = grpcstatus.Error(codes.Unavailable, "the topic is new, and not known everywhere")

// retry calls f, again and again while ctx lasts and its error may pass.
func retry(ctx context.Context, f func() error) error {
	var last error // before ctx ended
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if !passing(err) {
			return last
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return last
		}
	}
}
