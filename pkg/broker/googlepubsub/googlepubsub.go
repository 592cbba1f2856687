package googlepubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
)

// Defaults of Options.
const (
	DefaultTimeout   = 5 * time.Second
	DefaultTries     = 5
	DefaultRetryWait = time.Second
)

// Pub/Sub's limits.
const (
	minTries     = 5
	maxTries     = 100
	maxRetryWait = 10 * time.Minute
	maxBody      = 9 << 20 // of 10 MB for a request
)

// Options of New. Project alone is needed, and not even that where EnvProject is set.
type Options struct {
	// Project is the id of Google's project. Default the environment's EnvProject.
	Project string
	// CredentialsFile is a key of a service account, or what else Google's libraries take. Default what those look for: EnvCredentials, the
	// login of gcloud, the machine's own account.
	CredentialsFile string
	// Emulator is the host:port of Pub/Sub's emulator, which is spoken to in the clear and without credentials. Default the
	// environment's EnvEmulator.
	Emulator string
	// Ordering has messages come in order; see the package's doc.
	Ordering bool
	// Timeout bounds each request, and how long Publish tries; Subscribe, which makes several, tries four times as long. Default DefaultTimeout.
	Timeout time.Duration
	// MaxMessage bounds a message's body, 9 MiB at most. Default broker.MaxMessage.
	MaxMessage int
	// Tries is how often a message is delivered to a queue, or to a subscriber without one, 5 to 100. Default DefaultTries. Queues
	// that are there keep theirs, for what Pub/Sub itself counts.
	Tries int
	// RetryWait is after how long, at least, a message comes again whose handler failed, up to 10 minutes. It grows with each time. Default
	// DefaultRetryWait. Queues that are there keep theirs.
	RetryWait time.Duration
	// Logger is told of handlers that failed, of dead letters, and of subscriptions that break. Nil: nobody is.
	Logger *slog.Logger
}

// Broker publishes and subscribes over Pub/Sub.
type Broker struct {
	o      Options
	gate   *delivery.Gate
	series *delivery.Series
	turn   chan struct{} // has an element while the client is made

	mu     sync.Mutex
	client *pubsub.Client
	closed bool
	subs   map[*subscription]struct{}
}

var _ broker.Broker = (*Broker)(nil)

// New gives a broker, without asking Google anything: credentials that lack, or are not let in, are the matter of the first Publish or
// Subscribe.
func New(o Options) (*Broker, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("%w: googlepubsub: %w", broker.ErrInvalid, err)
	}
	return &Broker{o: o, gate: delivery.NewGate(), series: delivery.NewSeries(), turn: make(chan struct{}, 1), subs: map[*subscription]struct{}{}}, nil
}

// complete checks o and fills in what is not set.
func (o *Options) complete() error {
	if o.Timeout < 0 || o.MaxMessage < 0 || o.Tries < 0 || o.RetryWait < 0 {
		return errors.New("a limit is negative")
	}
	fill(&o.Project, os.Getenv(EnvProject))
	fill(&o.Emulator, os.Getenv(EnvEmulator))
	fill(&o.Timeout, DefaultTimeout)
	fill(&o.MaxMessage, broker.MaxMessage)
	fill(&o.Tries, DefaultTries)
	fill(&o.RetryWait, DefaultRetryWait)
	switch {
	case o.Project == "":
		return fmt.Errorf("no project: want googlepubsub://project, or %s set", EnvProject)
	case strings.ContainsAny(o.Project, "/ ,"):
		return fmt.Errorf("project %q: want its id", o.Project)
	case o.Tries < minTries || o.Tries > maxTries:
		return fmt.Errorf("tries %d: want %d to %d", o.Tries, minTries, maxTries)
	case o.RetryWait > maxRetryWait:
		return fmt.Errorf("retry-wait %v: want %v at most", o.RetryWait, maxRetryWait)
	case o.MaxMessage > maxBody:
		return fmt.Errorf("max-message %d: Pub/Sub carries %d at most", o.MaxMessage, maxBody)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// get gives the client, which is made at the first call: credentials are looked for then.
func (b *Broker) get(ctx context.Context) (*pubsub.Client, error) {
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	b.mu.Lock()
	client, closed := b.client, b.closed
	b.mu.Unlock()
	if client != nil || closed {
		if closed {
			return nil, broker.ErrClosed
		}
		return client, nil
	}
	connect := grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: b.o.Timeout}
	connect.Backoff.BaseDelay, connect.Backoff.MaxDelay = 100*time.Millisecond, 2*time.Second
	opts := []option.ClientOption{option.WithUserAgent("micro"), option.WithGRPCDialOption(grpc.WithConnectParams(connect)),
		option.WithGRPCDialOption(grpc.WithChainStreamInterceptor(patient))}
	switch {
	case b.o.Emulator != "":
		opts = append(opts, option.WithEndpoint(b.o.Emulator), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	case b.o.CredentialsFile != "":
		//lint:ignore SA1019 it warns of files from strangers; this one is named by whoever runs the program, and may be of any kind
		opts = append(opts, option.WithCredentialsFile(b.o.CredentialsFile))
	}
	// The client outlives ctx.
	made, err := pubsub.NewClient(context.WithoutCancel(ctx), b.o.Project, opts...)
	if err != nil {
		return nil, b.noClient(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.client = made
	return made, nil
}

// patient has a stream of messages wait for the connection: the client would try again after half a minute, also where that is back.
func patient(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return open(ctx, desc, cc, method, append(opts, grpc.WaitForReady(true))...)
}

func (b *Broker) topicName(topic string) string {
	return "projects/" + b.o.Project + "/topics/" + topicID(topic)
}

func (b *Broker) subscriptionName(id string) string {
	return "projects/" + b.o.Project + "/subscriptions/" + id
}

// makeTopic makes a topic, unless it is there.
func (b *Broker) makeTopic(ctx context.Context, client *pubsub.Client, topic string) error {
	_, err := client.TopicAdminClient.CreateTopic(ctx, &pb.Topic{Name: b.topicName(topic)}, once...)
	if codeOf(err) == codes.AlreadyExists {
		return nil
	}
	return err
}

// Subscribe is broker.Broker's; ctx has no part in it once it has returned. The errors are those of Publish.
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
	inner, leave, err := b.gate.Enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	s, err := b.subscribe(inner, topic, h, o)
	if err != nil {
		return nil, b.failure(ctx, "subscribe to "+topic, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[s] = struct{}{}
	return s, nil
}

// failure gives what a method returns for an error of it.
func (b *Broker) failure(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(err, broker.ErrClosed) || b.gate.Context().Err() != nil:
		return broker.ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("broker: %s: %w", what, ctx.Err())
	}
	return b.wrap(err)
}

func (b *Broker) forget(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}

// Close ends the calls that are under way, closes the subscriptions, and then the client.
func (b *Broker) Close() error {
	b.gate.Close() // nobody is inside Publish or Subscribe after it, but dead letters are still published
	var wg sync.WaitGroup
	b.mu.Lock()
	for s := range b.subs {
		wg.Go(func() { _ = s.Close() }) // it has no error to give
	}
	b.mu.Unlock()
	wg.Wait()
	b.mu.Lock()
	client := b.client
	b.client, b.closed = nil, true
	b.mu.Unlock()
	if client == nil {
		return nil
	}
	if err := client.Close(); err != nil && codeOf(err) != codes.Canceled {
		return fmt.Errorf("broker: Pub/Sub of %s: %w", b.o.Project, err)
	}
	return nil
}
