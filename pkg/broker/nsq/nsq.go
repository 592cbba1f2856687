package nsq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
)

// Defaults of Options.
const (
	DefaultTimeout        = 5 * time.Second
	DefaultLookupInterval = 5 * time.Second
	DefaultTries          = 5
	DefaultRetryWait      = time.Second
	DefaultAckWait        = time.Minute
)

const (
	minAckWait = time.Second      // that nsqd takes
	maxAckWait = 15 * time.Minute // --max-msg-timeout
	maxRetry   = time.Minute
	maxREQ     = time.Hour // --max-req-timeout
)

// Options of New. The zero value is the nsqd of this machine.
type Options struct {
	// Servers are nsqd's, host:port: messages are published to one of them, and subscriptions connect to all. Default 127.0.0.1:4150,
	// unless Lookupd is set.
	Servers []string
	// Lookupd are nsqlookupd's, host:port of their HTTP, which tell subscriptions of further nsqd's. Without Servers messages are
	// published to those that they list.
	Lookupd []string
	// LookupInterval is how often they are asked. Default DefaultLookupInterval.
	LookupInterval time.Duration
	// Secret is for an nsqd that has an --auth-http-address.
	Secret string
	// TLS makes the connections to nsqd's TLS, with this configuration. Nil: in the clear.
	TLS *tls.Config
	// Name is how nsqd lists the connections. Default "micro".
	Name string
	// Timeout bounds connecting to one nsqd, and each confirmation. Default DefaultTimeout.
	Timeout time.Duration
	// MaxMessage bounds a message's body. Default broker.MaxMessage. An nsqd has a bound of its own, --max-msg-size, 1 MiB by default,
	// for the message as it is sent, which is 4/3 as long and its header; Publish refuses what is over it.
	MaxMessage int
	// Tries is how often a message is delivered to a queue, or to a subscriber without one. Default DefaultTries.
	Tries int
	// RetryWait is after how long a message comes again whose handler failed the first time; the wait doubles each time, up to a
	// minute. Default DefaultRetryWait.
	RetryWait time.Duration
	// AckWait is after how long without a word of it a subscriber counts as dead, and another gets what it had. Handlers
	// may run longer. 1 s to 15 minutes. Default DefaultAckWait.
	AckWait time.Duration
	// Logger is told of NSQ's absence and return, of handlers that failed and of dead letters. Nil: nobody is.
	Logger *slog.Logger
}

// Broker publishes and subscribes over NSQ.
type Broker struct {
	o      Options
	s      settings
	gate   *delivery.Gate
	series *delivery.Series
	lookup *lookup

	mu    sync.Mutex
	nodes map[string]*node // that were published to
	first int              // which of the servers is published to
	subs  map[*subscription]struct{}
}

var _ broker.Broker = (*Broker)(nil)

// New gives a broker, without asking NSQ anything: one that is not there, or does not take the secret, is the matter of the first
// Publish or Subscribe.
func New(o Options) (*Broker, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("%w: nsq: %w", broker.ErrInvalid, err)
	}
	return &Broker{
		o: o, gate: delivery.NewGate(), series: delivery.NewSeries(), lookup: newLookup(o.Lookupd, o.Timeout),
		s:     settings{name: o.Name, secret: o.Secret, tls: o.TLS, timeout: o.Timeout, ackWait: o.AckWait},
		nodes: map[string]*node{}, subs: map[*subscription]struct{}{}, first: rand.IntN(1 << 16),
	}, nil
}

// complete checks o and fills in what is not set.
func (o *Options) complete() error {
	if o.MaxMessage < 0 || o.Timeout < 0 || o.LookupInterval < 0 || o.Tries < 0 || o.RetryWait < 0 || o.AckWait < 0 {
		return errors.New("a limit is negative")
	}
	if len(o.Servers) == 0 && len(o.Lookupd) == 0 {
		o.Servers = []string{"127.0.0.1:" + defaultPort}
	}
	for _, addr := range o.Servers {
		if !validAddr(addr) {
			return fmt.Errorf("server %q: want host:port", addr)
		}
	}
	for _, addr := range o.Lookupd {
		if !validAddr(addr) {
			return fmt.Errorf("lookupd %q: want host:port", addr)
		}
	}
	if strings.ContainsAny(o.Secret, "\r\n") {
		return errors.New("the secret has more than one line")
	}
	fill(&o.Timeout, DefaultTimeout)
	fill(&o.LookupInterval, DefaultLookupInterval)
	fill(&o.Name, "micro")
	fill(&o.MaxMessage, broker.MaxMessage)
	fill(&o.Tries, DefaultTries)
	fill(&o.RetryWait, DefaultRetryWait)
	fill(&o.AckWait, DefaultAckWait)
	if o.AckWait < minAckWait || o.AckWait > maxAckWait {
		return fmt.Errorf("ack-wait %v: want %v to %v", o.AckWait, minAckWait, maxAckWait)
	}
	if o.RetryWait > maxREQ {
		return fmt.Errorf("retry-wait %v: want %v at most", o.RetryWait, maxREQ)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func validAddr(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	n, e := strconv.ParseUint(port, 10, 16)
	return err == nil && e == nil && n > 0 && host != "" && !strings.ContainsAny(addr, "/@, ")
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
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
	case errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, broker.ErrUnavailable):
		return fmt.Errorf("%w: %s: no nsqd has confirmed in time: %w", broker.ErrUnavailable, what, err)
	}
	return err
}

func (b *Broker) forget(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}

// Close ends the calls that are under way, closes the subscriptions, and then the connections.
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
	defer b.mu.Unlock()
	for _, n := range b.nodes {
		n.close()
	}
	return nil
}
