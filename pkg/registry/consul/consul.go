package consul

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/pkg/registry"
)

// Options of New. The zero value is good for an agent on this machine.
type Options struct {
	// Address is the agent, host:port. Default 127.0.0.1:8500.
	Address string
	// Token is for a Consul with ACLs.
	Token string
	// TokenFile is a file that holds the token, and is read once. It is not given beside Token.
	TokenFile string
	// TLS makes the connections TLS, with this configuration. Nil: in the clear.
	TLS *tls.Config
	// Timeout bounds each request, but for the time that Consul is asked to wait for a change. Default 5 s.
	Timeout time.Duration
	// TTL is the longest of a check: a killed process's nodes are gone after that, though they were registered for longer.
	// A second at least. Default 30 s.
	TTL time.Duration
	// Logger is told of Consul's absence and return, of records that were left out and of nodes that were lost. Nil:
	// nobody is.
	Logger *slog.Logger
}

const defaultPort = "8500"

// Registry is a client of a Consul agent. Its methods may be called concurrently.
type Registry struct {
	o      Options
	host   string // for errors
	scheme string
	client *http.Client
	owner  string // that nodes which are registered here name
	keeper *keeper

	life   context.Context // ends with Close
	end    context.CancelFunc
	closed sync.Once
	err    error // of Close

	mu   sync.Mutex
	away bool // it failed when it was last asked
}

var (
	_ registry.Registry      = (*Registry)(nil)
	_ registry.ChangeWatcher = (*Registry)(nil)
)

// New makes a client. It asks Consul nothing: one that is not there, or takes no token, is the matter of the first request.
func New(o Options) (*Registry, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &Registry{o: o, host: o.Address, scheme: "http", client: newClient(o.TLS), owner: random()}
	if o.TLS != nil {
		r.scheme = "https"
	}
	r.life, r.end = context.WithCancel(context.Background())
	r.keeper = newKeeper(r)
	return r, nil
}

// complete checks o and fills in what is not set.
func (o *Options) complete() error {
	if o.Address == "" {
		o.Address = "127.0.0.1:" + defaultPort
	}
	if err := registry.ValidHostPort(o.Address); err != nil || strings.ContainsAny(o.Address, "/@,?# ") {
		return fmt.Errorf("registry: consul address %q: want host:port", o.Address)
	}
	if o.TokenFile != "" {
		if o.Token != "" {
			return errors.New("registry: consul: both a token and a token file are given")
		}
		var err error
		if o.Token, err = access.ReadToken(o.TokenFile); err != nil {
			return fmt.Errorf("registry: consul: %w", err)
		}
	}
	if strings.ContainsFunc(o.Token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return errors.New("registry: consul: the token holds white space or what is not ASCII")
	}
	for v, d := range map[*time.Duration]time.Duration{&o.Timeout: 5 * time.Second, &o.TTL: 30 * time.Second} {
		if *v == 0 {
			*v = d
		}
		if *v < 0 {
			return errors.New("registry: consul: a negative duration")
		}
	}
	if o.TTL < time.Second {
		return fmt.Errorf("registry: consul: ttl %v: want a second at least", o.TTL)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func random() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

// Register puts n with a check, which is passed until the ttl is over; see the package's doc. A renewal looks whether the
// node still stands as it should, and mends that. Beside the errors of registry.Registrar there is a *status.Error of a
// Consul that refuses for another reason: no token, a wrong one or one that may not write the service (403), or too many
// requests (429).
func (r *Registry) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	if ttl < 0 {
		return fmt.Errorf("%w: ttl %v is negative", registry.ErrInvalid, ttl)
	}
	check := ttl
	if ttl == 0 || ttl > r.o.TTL {
		check = r.o.TTL
	}
	reg, err := encode(n, r.owner, check)
	if err != nil {
		return err
	}
	return r.keeper.register(ctx, reg, ttl)
}

// Deregister takes n away. The error wraps ErrConflict where another owner holds it.
func (r *Registry) Deregister(ctx context.Context, n registry.Node) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	if validID(n.ID) != nil || registry.Validate(registry.Node{ID: n.ID, Service: n.Service, Address: "any"}) != nil {
		return nil // no registry holds such a node
	}
	return r.keeper.deregister(ctx, n)
}

// Get asks Consul for a service's nodes.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	if !registry.ValidName(service) {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	ctx, stop := r.within(ctx)
	defer stop()
	s := newSet(r)
	if _, err := s.read(ctx, service, query{}); err != nil {
		return nil, err
	}
	nodes := s.table.All()
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	return nodes, nil
}

// List asks Consul for all services, and for the nodes of each.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	ctx, stop := r.within(ctx)
	defer stop()
	names, _, err := r.names(ctx, query{})
	if err != nil {
		return nil, err
	}
	s := newSet(r)
	if err := s.readAll(ctx, names, query{}); err != nil {
		return nil, err
	}
	return s.table.All(), nil
}

// Close withdraws the nodes that were registered here and ends the watches. It is an error if Consul could not be told: the
// nodes lapse then.
func (r *Registry) Close() error {
	r.closed.Do(func() {
		r.end()
		r.err = r.keeper.close()
		r.client.CloseIdleConnections()
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
