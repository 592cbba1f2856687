package dns

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
)

// Options of New. Zone has to be set.
type Options struct {
	// Servers are the nameservers, host:port, tried in turn. The first takes the updates: it is the zone's primary, or passes
	// them on to it. Default: those of /etc/resolv.conf, which is good for looking up.
	Servers []string
	// Zone is the domain below which nodes stand: "svc.example.org". It need not be the apex of a zone.
	Zone string
	// SRV is the name that is asked for a service that has no node of ours, relative to Zone. "{service}" stands for the service.
	// Default "_{service}._tcp".
	SRV string
	// Services are names of services with SRV records that List and watches of all services have too. DNS has no list of such: the
	// others are found by name alone.
	Services []string
	// Key signs what is asked and told (TSIG, RFC 8945), and checks the answers. Without one nothing is signed, and nodes can be
	// registered on loopback alone.
	Key Key
	// KeyFile is a file that holds the key, and is read once. It is not given beside Key.
	KeyFile string
	// TLS makes it DNS over TLS (RFC 7858), with this configuration. Nil: in the clear.
	TLS *tls.Config
	// TCP leaves UDP out. Updates go by TCP in any case.
	TCP bool
	// Timeout bounds each request. Default 5 s.
	Timeout time.Duration
	// TTL is the longest that a node's record holds without a renewal: a killed process's nodes are gone after that. Default 30 s.
	TTL time.Duration
	// Poll is the longest time between two looks of a watch, which otherwise follow the records' own TTL, and come a second apart at
	// least, or Poll where that is less. Default 5 s.
	Poll time.Duration
	// Skew is how far this machine's clock may be from those of registrars. It is what is added to the life of a record that this
	// Registry sees for the first time; see the package's doc. Default 10 s.
	Skew time.Duration
	// Logger is told of the nameserver's absence and return, of records that were left out or removed, and of nodes that were
	// lost. Nil: nobody is.
	Logger *slog.Logger
}

const (
	plainPort  = "53"
	tlsPort    = "853"
	resolvConf = "/etc/resolv.conf"
	defaultSRV = "_" + placeholder + "._tcp"
)

// Registry is a client of a nameserver. Its methods may be called concurrently.
type Registry struct {
	o        Options
	host     string // the servers, for errors
	zone     string // canonical: lower case, with the dot at the end
	owner    string // who holds the nodes that are registered here
	loopback bool   // no server is elsewhere
	keeper   *keeper
	seen     *sightings
	way      way
	apex     apex

	life   context.Context // ends with Close
	end    context.CancelFunc
	closed sync.Once
	err    error // of Close

	mu   sync.Mutex
	news chan struct{} // closed, and made anew, when something was registered or withdrawn here
	away bool          // the nameserver did not answer last
	good time.Time     // when it did last
}

var (
	_ registry.Registry      = (*Registry)(nil)
	_ registry.ChangeWatcher = (*Registry)(nil)
)

// New makes a client. It asks no nameserver anything: one that is not there, or takes no updates, is the matter of the first
// request.
func New(o Options) (*Registry, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	var owner [16]byte
	_, _ = rand.Read(owner[:])
	r := &Registry{
		o: o, host: strings.Join(o.Servers, ","), zone: wire.CanonicalName(o.Zone), owner: hex.EncodeToString(owner[:]),
		loopback: onLoopback(o.Servers), seen: newSightings(o.Skew), news: make(chan struct{}),
	}
	r.life, r.end = context.WithCancel(context.Background())
	r.keeper = newKeeper(r)
	return r, nil
}

// complete checks o and fills in what is not set.
func (o *Options) complete() error {
	if len(o.Servers) == 0 {
		config, err := wire.ClientConfigFromFile(resolvConf)
		if err != nil || len(config.Servers) == 0 {
			return fmt.Errorf("registry: dns: no nameserver is given, and %s has none", resolvConf)
		}
		for _, s := range config.Servers {
			o.Servers = append(o.Servers, net.JoinHostPort(s, config.Port))
		}
	}
	for _, s := range o.Servers {
		if err := registry.ValidHostPort(s); err != nil || strings.ContainsAny(s, "/@, ") {
			return fmt.Errorf("registry: dns server %q: want host:port", s)
		}
	}
	if err := o.names(); err != nil {
		return err
	}
	for _, name := range o.Services {
		if !registry.ValidName(name) {
			return fmt.Errorf("registry: dns: %q is no name of a service", name)
		}
	}
	if o.KeyFile != "" {
		if o.Key != (Key{}) {
			return errors.New("registry: dns: both a key and a key file are given")
		}
		var err error
		if o.Key, err = ReadKey(o.KeyFile); err != nil {
			return fmt.Errorf("registry: dns: %w", err)
		}
	}
	if o.Key != (Key{}) {
		if err := o.Key.complete(); err != nil {
			return fmt.Errorf("registry: dns: %w", err)
		}
	}
	for v, d := range map[*time.Duration]time.Duration{&o.Timeout: 5 * time.Second, &o.TTL: 30 * time.Second, &o.Poll: 5 * time.Second, &o.Skew: 10 * time.Second} {
		if *v == 0 {
			*v = d
		}
		if *v < 0 {
			return errors.New("registry: dns: a negative duration")
		}
	}
	if o.TTL < minTTL || o.TTL > maxTTL {
		return fmt.Errorf("registry: dns: a ttl of %v, want one from %v to %v", o.TTL, minTTL, maxTTL)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// onLoopback reports whether what is sent to the servers stays on this machine.
func onLoopback(servers []string) bool {
	for _, s := range servers {
		host, _, _ := net.SplitHostPort(s)
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// Register puts n's records, and renews them until the ttl is over; see the package's doc. A renewal mends what was changed by
// others. Beside the errors of registry.Registrar there is a *status.Error of a nameserver that refuses for another reason: a key
// that it does not know or that is wrong (401), a zone that may not be updated so (403), or at all (501).
func (r *Registry) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	data, err := encode(n)
	if err != nil {
		return err
	}
	if ttl < 0 {
		return fmt.Errorf("%w: ttl %v is negative", registry.ErrInvalid, ttl)
	}
	if err := r.mayUpdate(); err != nil {
		return err
	}
	return r.keeper.register(ctx, n.Clone(), data, ttl)
}

// Deregister takes n away. The error wraps ErrConflict where another owner holds it.
func (r *Registry) Deregister(ctx context.Context, n registry.Node) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	if registry.Validate(registry.Node{ID: n.ID, Service: n.Service, Address: "any"}) != nil {
		return nil // no registry holds such a node
	}
	return r.keeper.deregister(ctx, n)
}

// mayUpdate refuses to send updates that nothing protects over a network.
func (r *Registry) mayUpdate() error {
	if r.o.Key.Name != "" || r.loopback {
		return nil
	}
	return r.refuse(status.New(status.Unauthenticated, "updates to a nameserver on another machine need a TSIG key: set tsig-file, %s or %s", EnvKeyFile, EnvKey))
}

// Get asks for a service's nodes.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	if !registry.ValidName(service) {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	found, err := r.look(ctx, service)
	if err != nil {
		return nil, err
	}
	if len(found.nodes) == 0 {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	return found.nodes, nil
}

// List asks for the nodes of all services that were registered as this package does, and of those that Options.Services names. Other
// services that have nothing but an SRV record are not among them: DNS does not tell their names.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	found, err := r.look(ctx, "")
	if err != nil {
		return nil, err
	}
	return found.nodes, nil
}

// Close withdraws the nodes that were registered here and ends the watches. It is an error if the nameserver could not be told:
// the nodes lapse then.
func (r *Registry) Close() error {
	r.closed.Do(func() {
		r.end()
		r.err = r.keeper.close()
	})
	return r.err
}

// within gives a context that also ends with r.
func (r *Registry) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	drop := context.AfterFunc(r.life, cancel)
	return ctx, func() { drop(); cancel() }
}

func (r *Registry) usable(ctx context.Context) error {
	if r.life.Err() != nil {
		return registry.ErrClosed
	}
	return ctx.Err()
}

// tellWatches makes this Registry's watches look at once.
func (r *Registry) tellWatches() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.news)
	r.news = make(chan struct{})
}

func (r *Registry) whenNews() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.news
}

// heard notes whether the nameserver answered, and tells the logger where that is new.
func (r *Registry) heard(err error) {
	away := errors.Is(err, registry.ErrUnavailable)
	if err != nil && !away {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case away && !r.away:
		r.o.Logger.Warn("the nameserver is away", "dns", r.host, "error", err)
	case !away && r.away:
		r.seen.resume(r.good)
		r.o.Logger.Info("the nameserver is back", "dns", r.host)
	}
	if r.away = away; !away {
		r.good = time.Now()
	}
}
