package micro

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/transport"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// The defaults of a service's life.
const (
	DefaultAddress          = "127.0.0.1:0"          // loopback, any free port
	DefaultRegisterTTL      = 30 * time.Second       // how long a node is listed that no longer renews
	DefaultRegisterInterval = 10 * time.Second       // between renewals, drawn from 80 to 120 percent of it
	DefaultShutdownTimeout  = 30 * time.Second       // how long a drain waits for handlers
	DefaultGrace            = 100 * time.Millisecond // between deregistering and refusing calls
)

// Hook runs at a point of a service's life.
type Hook func(ctx context.Context) error

type options struct {
	name      string
	version   string
	id        string
	address   string
	advertise string
	metadata  map[string]string
	registry  registry.Registry
	scope     string
	broker    broker.Broker
	transport transport.Transport
	beside    []transporthttp.Beside
	// transports are what other services' nodes may be called by, beside the service's own.
	transports transport.Openers
	selector   selector.Selector
	logger     *slog.Logger
	inherited  net.Listener
	brokerURL  string // of FromEnv, to be opened over the registry
	brokers    broker.Openers

	ttl, interval   time.Duration
	health          func(ctx context.Context) error
	shutdownTimeout time.Duration
	grace           time.Duration
	signals         bool
	minHeap         int

	beforeStart, afterStart, beforeStop, afterStop []Hook

	server []server.Option
	client []client.Option
	opened []interface{ Close() error } // what options opened, and the service closes
	errs   []error
}

func defaults() options {
	return options{
		version: "latest", metadata: map[string]string{}, logger: slog.New(slog.DiscardHandler),
		ttl: DefaultRegisterTTL, interval: DefaultRegisterInterval,
		shutdownTimeout: DefaultShutdownTimeout, grace: DefaultGrace, signals: true,
		minHeap: DefaultMinHeap,
	}
}

// ownLabels are the node's labels that say what it speaks and since when: the service sets them itself.
var ownLabels = []string{registry.MetaProtocol, registry.MetaTransport, registry.MetaUpgrade, registry.MetaStarted, registry.MetaIdempotent}

func (o *options) check() error {
	errs := o.errs
	if o.logger == nil {
		o.logger = slog.New(slog.DiscardHandler)
	}
	if o.ttl <= 0 || o.interval <= 0 || o.interval >= o.ttl {
		errs = append(errs, fmt.Errorf("register interval %v must be more than 0 and less than the TTL, %v", o.interval, o.ttl))
	}
	for _, key := range ownLabels {
		if _, set := o.metadata[key]; set {
			errs = append(errs, fmt.Errorf("metadata %q is the framework's", key))
		}
	}
	if o.shutdownTimeout <= 0 || o.grace < 0 {
		errs = append(errs, fmt.Errorf("shutdown timeout %v must be more than 0, grace %v not less", o.shutdownTimeout, o.grace))
	}
	if o.minHeap < 0 {
		errs = append(errs, fmt.Errorf("MinHeap %d must not be less than 0", o.minHeap))
	}
	if o.scope != "" && o.registry != nil {
		errs = append(errs, errors.New("LAN is the default registry's, and Registry sets another"))
	}
	return errors.Join(errs...)
}

// Option changes what [New] makes.
type Option func(*options)

// Version sets the service's version. Default "latest".
func Version(v string) Option { return func(o *options) { o.version = v } }

// NodeID sets the node's id, which no other node may have. Default the name and eight random hexadecimal digits.
func NodeID(id string) Option { return func(o *options) { o.id = id } }

// Address sets where the service listens. Default loopback, any free port; where the registry's nodes are found from
// other machines ([registry.Hoster]), the interface that it announces.
func Address(addr string) Option { return func(o *options) { o.address = addr } }

// Advertise sets the address that callers are told, where it is not the one listened on.
func Advertise(addr string) Option { return func(o *options) { o.advertise = addr } }

// Metadata sets a label of the node. Those that say what the node speaks and since when are the framework's, and
// refused: "protocol", "transport", "upgrade", "started", "idempotent".
func Metadata(key, value string) Option { return func(o *options) { o.metadata[key] = value } }

// Registry sets service discovery. r stays the caller's to close. Default the files of this machine and mDNS on loopback.
func Registry(r registry.Registry) Option { return func(o *options) { o.registry = r } }

// LAN lets the default registry announce to, and find on, the local network. The service then binds the interface that
// it announces, in the clear and for everyone there.
func LAN() Option { return func(o *options) { o.scope = "lan" } }

// Broker sets publish/subscribe. b stays the caller's to close. Default the HTTP broker, on the service's own port.
func Broker(b broker.Broker) Option { return func(o *options) { o.broker = b } }

// Transport sets what calls travel over. Default HTTP.
func Transport(t transport.Transport) Option { return func(o *options) { o.transport = t } }

// Beside serves further protocols on the service's port, beside HTTP: gRPC, by a Transport of package transport/grpc, and WebSocket. It
// adds to earlier ones. A transport that is not package transport/http's cannot share its port.
func Beside(b ...transporthttp.Beside) Option {
	return func(o *options) { o.beside = append(o.beside, b...) }
}

// Selector sets load balancing. s stays the caller's to close. Default the less busy of two random nodes.
func Selector(s selector.Selector) Option { return func(o *options) { o.selector = s } }

// Logger takes what the service and its parts have to say. Default none.
func Logger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

// RegisterTTL sets how long the node is listed when it no longer renews.
func RegisterTTL(d time.Duration) Option { return func(o *options) { o.ttl = d } }

// RegisterInterval sets the time between renewals. It must be less than the TTL.
func RegisterInterval(d time.Duration) Option { return func(o *options) { o.interval = d } }

// HealthCheck is asked before each registration. While it fails the node is not listed, and Debug.Health tells why.
func HealthCheck(f func(ctx context.Context) error) Option { return func(o *options) { o.health = f } }

// ShutdownTimeout sets how long a drain waits for handlers before their contexts end.
func ShutdownTimeout(d time.Duration) Option { return func(o *options) { o.shutdownTimeout = d } }

// Grace sets how long a service that is no longer listed goes on taking calls from those who have not heard.
func Grace(d time.Duration) Option { return func(o *options) { o.grace = d } }

// Signals says whether SIGINT and SIGTERM drain the service; the second one ends the process at once. Default true.
func Signals(on bool) Option { return func(o *options) { o.signals = on } }

// BeforeStart runs f before the service listens. A hook that fails ends Run. Hooks run in the order they were given.
func BeforeStart(f Hook) Option { return func(o *options) { o.beforeStart = append(o.beforeStart, f) } }

// AfterStart runs f when the service is listed. A hook that fails stops it again.
func AfterStart(f Hook) Option { return func(o *options) { o.afterStart = append(o.afterStart, f) } }

// BeforeStop runs f before the service leaves the list.
func BeforeStop(f Hook) Option { return func(o *options) { o.beforeStop = append(o.beforeStop, f) } }

// AfterStop runs f when everything has ended. Stop hooks all run, whatever the others returned.
func AfterStop(f Hook) Option { return func(o *options) { o.afterStop = append(o.afterStop, f) } }

// ServerOptions go to the service's server: middleware, codecs, limits.
func ServerOptions(opts ...server.Option) Option {
	return func(o *options) { o.server = append(o.server, opts...) }
}

// ClientOptions go to the service's client: middleware, timeouts.
func ClientOptions(opts ...client.Option) Option {
	return func(o *options) { o.client = append(o.client, opts...) }
}
