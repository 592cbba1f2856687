package server

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/codec/raw"
	"github.com/cb02dfca/micro/pkg/registry"
)

// The defaults of a server's limits. Each has an option of its name.
const (
	DefaultMaxCalls        = 1000             // unary calls under way at once
	DefaultMaxStreams      = 1000             // streams under way at once
	DefaultHandlerTimeout  = 30 * time.Second // of a unary handler whose caller set no deadline
	DefaultMaxTimeout      = 5 * time.Minute  // the longest deadline of a unary caller that is believed
	DefaultShutdownTimeout = 30 * time.Second // how long a drain waits for handlers
)

type options struct {
	version         string
	id              string
	codecs          codec.Set
	middleware      []Middleware
	logger          *slog.Logger
	metadata        map[string]string
	health          func() Health
	maxCalls        int
	maxStreams      int
	handlerTimeout  time.Duration
	maxTimeout      time.Duration
	shutdownTimeout time.Duration
}

func defaults(name string) options {
	return options{
		version:         "latest",
		id:              name,
		codecs:          codec.Set{json.Strict(), proto.New(), raw.New()},
		logger:          slog.New(slog.DiscardHandler),
		metadata:        map[string]string{},
		maxCalls:        DefaultMaxCalls,
		maxStreams:      DefaultMaxStreams,
		handlerTimeout:  DefaultHandlerTimeout,
		maxTimeout:      DefaultMaxTimeout,
		shutdownTimeout: DefaultShutdownTimeout,
	}
}

func (o *options) check(name string) error {
	if o.logger == nil {
		o.logger = slog.New(slog.DiscardHandler)
	}
	if !registry.ValidName(name) {
		return fmt.Errorf("server: name %q: want letters, digits, '.', '_' or '-', %d bytes at most", name, registry.MaxName)
	}
	if len(o.codecs) == 0 {
		return fmt.Errorf("server %s: no codecs", name)
	}
	for what, n := range map[string]int64{
		"MaxCalls": int64(o.maxCalls), "MaxStreams": int64(o.maxStreams), "HandlerTimeout": int64(o.handlerTimeout),
		"MaxTimeout": int64(o.maxTimeout), "ShutdownTimeout": int64(o.shutdownTimeout),
	} {
		if n <= 0 {
			return fmt.Errorf("server %s: %s must be more than 0", name, what)
		}
	}
	return nil
}

// Option changes what [New] makes.
type Option func(*options)

// Version sets the service's version. Default "latest".
func Version(v string) Option { return func(o *options) { o.version = v } }

// NodeID sets the id of this copy of the service. Default the service's name.
func NodeID(id string) Option { return func(o *options) { o.id = id } }

// Codecs sets what the server speaks, by content type; the first is the answer to a call without a body. Default JSON
// (which refuses unknown fields), protobuf and raw bytes. A call in an RPC format, which is a codec.Envelope, has the content type of
// the values within for its handler.
func Codecs(set codec.Set) Option { return func(o *options) { o.codecs = set } }

// WithMiddleware wraps every handler, Debug.* excepted: the first given is the outermost. It adds to earlier ones.
func WithMiddleware(m ...Middleware) Option {
	return func(o *options) { o.middleware = append(o.middleware, m...) }
}

// Logger takes what the server has to say: panics, and errors whose text the caller does not get. Default none.
func Logger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

// Metadata sets a label that Debug.Info shows.
func Metadata(key, value string) Option { return func(o *options) { o.metadata[key] = value } }

// HealthFunc answers Debug.Health. Default HealthOK while the server serves. It may be called concurrently.
func HealthFunc(f func() Health) Option { return func(o *options) { o.health = f } }

// MaxCalls bounds the unary calls, and the events that come as calls, under way at once. Default DefaultMaxCalls. A call
// whose handler goes on after its deadline counts until that returns. One more is refused with status.ResourceExhausted, unrun.
func MaxCalls(n int) Option { return func(o *options) { o.maxCalls = n } }

// MaxStreams bounds the streams under way at once, apart from the calls. Default DefaultMaxStreams. One more is refused
// with status.ResourceExhausted, unrun.
func MaxStreams(n int) Option { return func(o *options) { o.maxStreams = n } }

// HandlerTimeout bounds a unary handler whose caller set no deadline: its context ends then. Default DefaultHandlerTimeout.
func HandlerTimeout(d time.Duration) Option { return func(o *options) { o.handlerTimeout = d } }

// MaxTimeout is the longest deadline of a unary caller that is believed; a longer one is taken for this. Default
// DefaultMaxTimeout. Streams have the deadline that their callers set, or none.
func MaxTimeout(d time.Duration) Option { return func(o *options) { o.maxTimeout = d } }

// ShutdownTimeout bounds how long Serve waits for handlers after its context ended. Default DefaultShutdownTimeout. Then
// their contexts end.
func ShutdownTimeout(d time.Duration) Option { return func(o *options) { o.shutdownTimeout = d } }
