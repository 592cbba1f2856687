// Package http is the default broker. It has no server: each subscriber stands in the registry with its topic, and a
// publisher sends the message to each of them: in batches, over a connection of frames, to those that say that they take
// them; to others by a POST for each message, in the form of go-micro v2 to v6, or of v1, so that both may publish to the other.
//
// Publish returns when each subscriber has answered. What is promised: a message is handled at most once by each
// subscriber, and by one member of each queue; another member is tried as long as it is certain that none has handled
// it. The Report has the outcome of each. Nothing is stored: who is away misses the message, and the publisher who wants
// it delivered again publishes it again. The order is that of [broker.Broker]. Subscribers of go-micro always answer 200, so
// that their Delivery says no more than that the message arrived.
//
// Other processes find a subscriber as fast as their registry's Watch tells them of it.
package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/transport"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// Defaults of Options.
const (
	DefaultAddress         = "127.0.0.1:0"
	DefaultTTL             = 60 * time.Second
	DefaultDialTimeout     = 2 * time.Second
	DefaultRegistryTimeout = 5 * time.Second
	DefaultReadTimeout     = 30 * time.Second
	DefaultParallel        = 64
	DefaultMaxConns        = 1024
)

// Options change how a Broker behaves. The zero value of each is its default.
type Options struct {
	// Address is what the broker's own listener binds, at the first Subscribe, unless Attach came before. Default
	// DefaultAddress: loopback alone.
	Address string
	// Announce is what the registry is told in place of the listener's address: "host:port", or "host:0" for the
	// listener's port. It must be set where the listener is bound to all interfaces.
	Announce string
	// TTL is how long a subscription stays in the registry without being renewed, which happens about three times in it.
	// Default DefaultTTL.
	TTL time.Duration
	// MaxMessage bounds a message's body, out and in. Default broker.MaxMessage.
	MaxMessage int
	// DialTimeout bounds connecting to a subscriber. Default DefaultDialTimeout.
	DialTimeout time.Duration
	// RegistryTimeout bounds waiting for the registry: for its first answer, and for each registration. Default
	// DefaultRegistryTimeout.
	RegistryTimeout time.Duration
	// ReadTimeout bounds reading a message's body. Default DefaultReadTimeout.
	ReadTimeout time.Duration
	// Parallel bounds how many subscribers one Publish connects and writes to at once. Waiting for their handlers does not
	// count, so that slow ones do not hold up others. Default DefaultParallel.
	Parallel int
	// MaxConns bounds the connections of the broker's own listener. Default DefaultMaxConns.
	MaxConns int
	// Transport is what batches go over, and what the broker's own listener is opened with, which has to be a Mux. Default:
	// one of package transport/http, with DialTimeout, MaxConns and ReadTimeout.
	Transport transport.Transport
	// NoV1 leaves out the second record of each subscription, by which publishers of go-micro v1 find it.
	NoV1 bool
	// Metadata is added to that of the subscriptions' nodes; it cannot replace the keys that go-micro reads.
	Metadata map[string]string
	// Logger gets failing handlers, refused deliveries and the registry's failures. Default: none.
	Logger *slog.Logger
}

// withDefaults fills the zero values, or tells which value is wrong.
func (o Options) withDefaults() (Options, error) {
	if o.TTL < 0 || o.DialTimeout < 0 || o.RegistryTimeout < 0 || o.ReadTimeout < 0 || o.MaxMessage < 0 || o.Parallel < 0 || o.MaxConns < 0 {
		return o, fmt.Errorf("%w: options of the http broker: a limit is negative", broker.ErrInvalid)
	}
	fill(&o.Address, DefaultAddress)
	fill(&o.TTL, DefaultTTL)
	fill(&o.MaxMessage, broker.MaxMessage)
	fill(&o.DialTimeout, DefaultDialTimeout)
	fill(&o.RegistryTimeout, DefaultRegistryTimeout)
	fill(&o.ReadTimeout, DefaultReadTimeout)
	fill(&o.Parallel, DefaultParallel)
	fill(&o.MaxConns, DefaultMaxConns)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Metadata = maps.Clone(o.Metadata)
	return o, nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Broker publishes and subscribes over HTTP.
type Broker struct {
	registry  registry.Registry
	options   Options
	gate      *delivery.Gate
	found     *directory
	client    *http.Client
	transport transport.Transport
	series    *delivery.Series

	listening sync.Mutex // one opens the listener
	listener  io.Closer  // the broker's own; nil with Attach
	address   string     // what the registry is told; empty before Attach or the first Subscribe
	batches   bool       // calls arrive at that address too

	mu     sync.Mutex
	subs   map[string]*subscription
	untold map[string]*subscription // those that are registered, and that the watch has not been seen to tell of

	sending  sync.WaitGroup // goroutines that send batches
	guard    sync.Mutex     // of the below
	lanes    map[laneKey]*lane
	sweeping *time.Timer
}

// New gives a broker over reg, which stays the caller's to close, after the broker.
func New(reg registry.Registry, o Options) (*Broker, error) {
	if reg == nil {
		return nil, fmt.Errorf("%w: the http broker wants a registry", broker.ErrInvalid)
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.Transport == nil {
		if o.Transport, err = newTransport(o); err != nil {
			return nil, fmt.Errorf("%w: the http broker's transport: %w", broker.ErrInvalid, err)
		}
	}
	gate := delivery.NewGate()
	b := &Broker{
		registry:  reg,
		options:   o,
		gate:      gate,
		found:     newDirectory(gate.Context(), reg, o.Logger),
		client:    newClient(o),
		transport: o.Transport,
		series:    delivery.NewSeries(),
		subs:      map[string]*subscription{},
		untold:    map[string]*subscription{},
		lanes:     map[laneKey]*lane{},
	}
	b.sweeping = time.AfterFunc(time.Hour, b.sweep)
	b.sweeping.Stop()
	return b, nil
}

// newTransport makes the default of Options.Transport.
func newTransport(o Options) (transport.Transport, error) {
	to := transporthttp.Options{
		DialTimeout: o.DialTimeout, MaxConns: o.MaxConns, BodyIdle: min(o.ReadTimeout, 10*time.Second), BodyTimeout: o.ReadTimeout, Logger: o.Logger,
	}
	if host, _, err := net.SplitHostPort(o.Announce); err == nil {
		to.AllowedHosts = []string{host}
	}
	return transporthttp.New(to)
}

// Open gives an opener for a set, whose brokers stand on reg. The URL's host, where it has one, is Options.Address; the
// parameters announce, ttl ("60s") and max-message (bytes) are the options of these names, v1=false is NoV1; base has the rest.
func Open(reg registry.Registry, base Options) broker.Opener {
	return func(_ context.Context, u *url.URL) (broker.Broker, error) {
		params, err := opener.Params(u, "announce", "ttl", "max-message", "v1")
		if err != nil {
			return nil, err
		}
		o := base
		if u.Host != "" {
			o.Address = u.Host
		}
		if v, ok := params["announce"]; ok {
			o.Announce = v
		}
		if v, ok := params["ttl"]; ok {
			if o.TTL, err = time.ParseDuration(v); err != nil || o.TTL <= 0 {
				return nil, fmt.Errorf("%w: %s: ttl %q, want a duration such as 60s", broker.ErrInvalid, opener.Redacted(u), v)
			}
		}
		if v, ok := params["max-message"]; ok {
			if o.MaxMessage, err = strconv.Atoi(v); err != nil || o.MaxMessage <= 0 {
				return nil, fmt.Errorf("%w: %s: max-message %q, want a number of bytes", broker.ErrInvalid, opener.Redacted(u), v)
			}
		}
		if v, ok := params["v1"]; ok {
			with, err := strconv.ParseBool(v)
			if err != nil {
				return nil, fmt.Errorf("%w: %s: v1 %q, want true or false", broker.ErrInvalid, opener.Redacted(u), v)
			}
			o.NoV1 = !with
		}
		b, err := New(reg, o)
		if err != nil {
			return nil, err // not a Broker that holds a nil *Broker
		}
		return b, nil
	}
}

// Close ends the calls of Publish that are under way, takes all subscriptions back as their Close does, and frees the
// listener. What was attached answers 503 from then on.
func (b *Broker) Close() error {
	b.gate.Close() // nobody is inside Subscribe after it
	b.mu.Lock()
	subs := make([]*subscription, 0, len(b.subs))
	for id, s := range b.subs {
		if id == s.node.ID { // it may be there by its second, too
			subs = append(subs, s)
		}
	}
	b.mu.Unlock()
	errs := make([]error, len(subs))
	var wg sync.WaitGroup
	for i, s := range subs {
		wg.Go(func() { errs[i] = s.Close() })
	}
	wg.Wait()
	b.listening.Lock()
	defer b.listening.Unlock()
	if b.listener != nil {
		errs = append(errs, b.listener.Close())
		b.listener = nil
	}
	b.closeLanes()
	b.found.wait()
	b.client.CloseIdleConnections()
	return errors.Join(errs...)
}
