package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/amqpconn"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
)

// The kinds of queues that named subscriptions may have.
const (
	Classic = "classic" // on one node
	Quorum  = "quorum"  // on a majority of a cluster's nodes
)

const (
	defaultExchange = "micro"
	defaultTries    = 5
	maxTries        = 1000
	maxExchange     = 64
)

// Options of New. The zero value is good for a RabbitMQ on this machine as it comes.
type Options struct {
	// Addrs are nodes of one RabbitMQ, host:port, tried in turn. Default 127.0.0.1:5672, with TLS 5671.
	Addrs []string
	// VHost is the virtual host. Default "/".
	VHost string
	// Username and Password are the login. Both or none are given; without, it is guest, as RabbitMQ comes.
	Username, Password string
	// CredentialsFile is a file that holds both, as "name:password", and is read once. It is not given beside them.
	CredentialsFile string
	// TLS makes the connections TLS, with this configuration. Nil: in the clear.
	TLS *tls.Config
	// Timeout bounds each attempt to connect. Default 5 s.
	Timeout time.Duration
	// Exchange is the topic exchange that messages go through. Default "micro", which is go-micro's.
	Exchange string
	// QueueType is what kind of queue a named subscription has: Classic, or Quorum. It must stay what a queue was made with.
	// Default Classic.
	QueueType string
	// Tries is after how many deliveries that failed a message is a dead letter. Default 5.
	Tries int
	// MaxMessage bounds a body, in bytes. Default broker.MaxMessage.
	MaxMessage int
	// Logger is told of RabbitMQ's absence and return, of handlers that fail and of dead letters. Nil: nobody is.
	Logger *slog.Logger
}

// Broker is a client of RabbitMQ. Its methods may be called concurrently.
type Broker struct {
	o    Options
	gate *delivery.Gate
	ids  *delivery.Series
	// Publishers and subscribers have a connection each: RabbitMQ stops reading one that publishes when it is short of memory,
	// and acknowledgements are to reach it then.
	publishing, consuming *amqpconn.Link
	publisher             *publisher

	mu   sync.Mutex
	subs map[*subscription]bool
}

var _ broker.Broker = (*Broker)(nil)

// New makes a client. It asks RabbitMQ nothing: one that is not there, or takes no login, is the matter of the first Publish or
// Subscribe.
func New(o Options) (*Broker, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	conn := amqpconn.Options{
		Addrs: o.Addrs, VHost: o.VHost, Username: o.Username, Password: o.Password, CredentialsFile: o.CredentialsFile,
		TLS: o.TLS, Timeout: o.Timeout, Logger: o.Logger, Name: "micro publisher",
	}
	if err := conn.Complete(); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	b := &Broker{o: o, gate: delivery.NewGate(), ids: delivery.NewSeries(), subs: map[*subscription]bool{}}
	b.publishing = amqpconn.New(conn)
	conn.Name = "micro subscriber"
	b.consuming = amqpconn.New(conn)
	b.publisher = newPublisher(b)
	return b, nil
}

// complete checks o and fills in what is not set. What is of the connection, amqpconn does.
func (o *Options) complete() error {
	if o.Exchange == "" {
		o.Exchange = defaultExchange
	}
	if len(o.Exchange) > maxExchange || strings.HasPrefix(o.Exchange, "amq.") || !broker.ValidTopic(o.Exchange) {
		return fmt.Errorf("rabbitmq: exchange %q: want letters, digits, '.', '_', '-' or '/', %d bytes at most, and not amq. first", o.Exchange, maxExchange)
	}
	if o.QueueType == "" {
		o.QueueType = Classic
	}
	if o.QueueType != Quorum && o.QueueType != Classic {
		return fmt.Errorf("rabbitmq: queue type %q: want %s or %s", o.QueueType, Classic, Quorum)
	}
	if o.Tries == 0 {
		o.Tries = defaultTries
	}
	if o.Tries < 1 || o.Tries > maxTries {
		return fmt.Errorf("rabbitmq: %d tries: want 1 to %d", o.Tries, maxTries)
	}
	if o.MaxMessage < 0 {
		return errors.New("rabbitmq: a negative limit of messages")
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = broker.MaxMessage
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Publish hands the messages to RabbitMQ, and returns when it has confirmed all of them. The Report has no Deliveries: nil where a
// queue took a message, and empty where nobody is there to get any. An error wraps broker.ErrUnavailable where RabbitMQ is away,
// or went before it had confirmed: then it tells whether it is known what became of the messages. A RabbitMQ that refuses gives
// a *status.Error: a login that it does not take (401), an exchange that the user may not write to (403).
func (b *Broker) Publish(ctx context.Context, ms ...*broker.Message) (broker.Report, error) {
	if err := broker.CheckMessages(ms, b.o.MaxMessage); err != nil {
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
	ids := b.ids.IDs(ms, b.ids.Take(len(ms)))
	report := broker.Report{ID: ids[0], IDs: ids}
	unheard, err := b.publisher.publish(inner, encodeAll(b.o.Exchange, ms, ids))
	if err != nil {
		what := "publish to " + ms[0].Topic
		if len(ms) > 1 {
			what = fmt.Sprintf("%s, %d messages", what, len(ms))
		}
		return report, fault(inner, what, err)
	}
	if unheard == len(ms) {
		report.Deliveries = []broker.Delivery{}
	}
	return report, nil
}

// away is an error that is to wrap broker.ErrUnavailable.
type away struct{ error }

func (a away) Unwrap() error { return a.error }

// fault gives an error of what was done within ctx in the terms of package broker.
func fault(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(err, amqpconn.ErrClosed), errors.Is(context.Cause(ctx), broker.ErrClosed):
		return fmt.Errorf("%w: %s", broker.ErrClosed, what)
	case amqpconn.Refused(err):
		return fmt.Errorf("broker: %s: %w", what, err)
	case errors.As(err, new(*amqpconn.Error)), errors.As(err, new(away)):
		return fmt.Errorf("%w: %s: %w", broker.ErrUnavailable, what, err)
	}
	return fmt.Errorf("broker: %s: %w", what, err)
}

// Close ends what is under way, closes the subscriptions, and says goodbye to RabbitMQ. What it has not confirmed fails.
func (b *Broker) Close() error {
	b.gate.Close()
	b.mu.Lock()
	subs := b.subs
	b.subs = map[*subscription]bool{}
	b.mu.Unlock()
	var closing sync.WaitGroup
	for s := range subs {
		closing.Go(func() { _ = s.Close() }) // it has no error to give
	}
	closing.Wait()
	b.consuming.Close()
	b.publisher.close()
	b.publishing.Close()
	return nil
}
