package client

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/codec/raw"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/transport"
)

// The defaults of a client.
const (
	DefaultTimeout  = 5 * time.Second  // of a whole call, all its attempts included
	DefaultAttempts = 10               // nodes that a call tries, where none of them has run it
	DefaultResends  = 2                // times that an idempotent call is sent again which may have run, or whose server asks for it
	DefaultIdle     = 90 * time.Second // how long a connection is kept that nobody uses
)

type options struct {
	registry    registry.Finder
	selector    selector.Selector
	transport   transport.Transport
	openers     transport.Openers
	broker      broker.Broker
	codecs      codec.Set
	timeout     time.Duration
	idle        time.Duration
	connections int
	middleware  []Middleware
	logger      *slog.Logger
}

func defaults() options {
	return options{
		codecs:      codec.Set{proto.New(), raw.New(), json.New()},
		timeout:     DefaultTimeout,
		idle:        DefaultIdle,
		connections: 1,
		logger:      slog.New(slog.DiscardHandler),
	}
}

// Option changes what [New] makes.
type Option func(*options)

// WithRegistry makes the client find nodes in r, balanced by the default strategy. r stays the caller's to close.
func WithRegistry(r registry.Finder) Option { return func(o *options) { o.registry = r } }

// WithSelector makes the client take nodes from s, in place of WithRegistry. s stays the caller's to close.
func WithSelector(s selector.Selector) Option { return func(o *options) { o.selector = s } }

// WithTransport makes the client dial with t.
func WithTransport(t transport.Transport) Option { return func(o *options) { o.transport = t } }

// WithTransports lets the client dial by further transports, each opened when it is first needed and closed with the client:
// nodes whose record names another one than that of WithTransport (registry.MetaTransport), and addresses that begin with a
// scheme, "ws://10.0.0.5:8080". A node that names one which is not in set is dialled by WithTransport's; but one whose protocol
// is gRPC (registry.MetaProtocol) is not called without the transport of scheme "grpc".
func WithTransports(set transport.Openers) Option { return func(o *options) { o.openers = set } }

// WithBroker makes the client publish through b. b stays the caller's to close.
func WithBroker(b broker.Broker) Option { return func(o *options) { o.broker = b } }

// WithCodecs sets what the client speaks. A value goes out by the first codec that can carry it. Default protobuf, raw
// bytes, JSON: in this order, so that messages of protobuf are not sent as JSON. An RPC format, which is a codec.Envelope, is used
// by calls that name it with ContentType.
func WithCodecs(set codec.Set) Option { return func(o *options) { o.codecs = set } }

// WithTimeout bounds every call whose context has no sooner deadline. Default DefaultTimeout.
func WithTimeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// WithIdle sets how long a connection is kept that nobody uses. Default DefaultIdle.
func WithIdle(d time.Duration) Option { return func(o *options) { o.idle = d } }

// MaxConnections is the most that WithConnections takes.
const MaxConnections = 1024

// WithConnections sets how many connections to an address unary calls may share. Default 1. They are opened as calls come that
// are under way at the same time: a lone caller goes on using one. One is the cheapest in CPU time, since many calls then go
// out in one write. More help where calls carry large bodies that wait for each other, where both machines have cores to
// spare for reading and writing, and where a network gives a single connection less than its bandwidth. From 1 to
// MaxConnections.
func WithConnections(n int) Option { return func(o *options) { o.connections = n } }

// WithMiddleware wraps every call and the opening of every stream: the first given is the outermost.
func WithMiddleware(m ...Middleware) Option {
	return func(o *options) { o.middleware = append(o.middleware, m...) }
}

// WithLogger takes what the client has to say. Default none.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

// usualOptions are those of a call that is given none. They are not changed.
var usualOptions = callOptions{attempts: DefaultAttempts, resends: DefaultResends}

// callOptions is what the options of one call say.
type callOptions struct {
	timeout     time.Duration
	address     string
	node        string
	filters     []selector.Filter
	key         string
	idempotent  bool
	attempts    int
	resends     int
	contentType string
	header      metadata.MD
	observe     func(Event)
	err         error
}

// CallOption changes one call, stream or publication.
type CallOption func(*callOptions)

// Timeout bounds the call, all attempts included; a stream from its opening to its end. Zero or less is refused.
func Timeout(d time.Duration) CallOption {
	return func(o *callOptions) {
		if o.timeout = d; d <= 0 {
			o.err = fmt.Errorf("client: timeout %v, want more than 0", d)
		}
	}
}

// Address sends the call to an address, asking no registry.
func Address(addr string) CallOption { return func(o *callOptions) { o.address = addr } }

// Node sends the call to the node with that id. The last one counts.
func Node(id string) CallOption { return func(o *callOptions) { o.node = id } }

// Filter narrows the choice of nodes. It adds to earlier ones.
func Filter(f ...selector.Filter) CallOption {
	return func(o *callOptions) { o.filters = append(o.filters, f...) }
}

// Key is what selector.ConsistentHash goes by.
func Key(key string) CallOption { return func(o *callOptions) { o.key = key } }

// Idempotent declares that the call may run twice. It is then sent again where its outcome is not known, and where the server's error
// asks for that, after the time that it gives (see [status.RetryDelay]). Endpoints that their server declares idempotent need no such
// word.
func Idempotent() CallOption { return func(o *callOptions) { o.idempotent = true } }

// Attempts bounds how many nodes are tried. Default DefaultAttempts; 1 is no second try.
func Attempts(n int) CallOption {
	return func(o *callOptions) {
		if o.attempts = n; n < 1 {
			o.err = fmt.Errorf("client: %d attempts, want 1 or more", n)
		}
	}
}

// ContentType sends the values by the codec of that content type. With that of an RPC format, the call travels in its envelope;
// middleware and the Response have the value alone.
func ContentType(ct string) CallOption { return func(o *callOptions) { o.contentType = ct } }

// Header sets a pair of the call's metadata, beside what its context carries.
func Header(key, value string) CallOption {
	return func(o *callOptions) {
		md, err := o.header.Set(key, value)
		if err != nil {
			o.err = err
			return
		}
		o.header = md
	}
}

// Observe tells f of the call's phases as they end. f is called by the caller's goroutine.
func Observe(f func(Event)) CallOption { return func(o *callOptions) { o.observe = f } }
