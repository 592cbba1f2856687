package zookeeper

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// Options of New. The zero value is good for a ZooKeeper on this machine.
type Options struct {
	// Endpoints are servers of the ensemble, host:port. Default 127.0.0.1:2181.
	Endpoints []string
	// Prefix is the path below which all stands. Default "/micro-registry", which is go-micro's.
	Prefix string
	// Username and Password are given to ZooKeeper as its scheme "digest". What is written then is the user's alone to change. Both or
	// none are given.
	Username, Password string
	// CredentialsFile is a file that holds both, as "name:password", and is read once. It is not given beside them.
	CredentialsFile string
	// TLS makes the connections TLS, with this configuration. Nil: in the clear.
	TLS *tls.Config
	// Timeout bounds each request, and a registration as a whole. Default 5 s.
	Timeout time.Duration
	// TTL is the longest session: a killed process's nodes are gone after that, though they were registered for longer. ZooKeeper
	// has bounds of its own, 2 and 20 of its ticks: 4 s and 40 s by default. Default 30 s.
	TTL time.Duration
	// Logger is told of ZooKeeper's absence and return, of records that were left out and of nodes that were lost. Nil: nobody
	// is.
	Logger *slog.Logger
}

const (
	defaultPort   = "2181"
	defaultPrefix = "/micro-registry"
	readTTL       = 10 * time.Second // of the session that reads: a server that is silent for two thirds of that is left
)

// Registry is a client of a ZooKeeper ensemble. Its methods may be called concurrently.
type Registry struct {
	o      Options
	host   string // the servers, for errors
	reader *link
	keeper *keeper

	life   context.Context // ends with Close
	end    context.CancelFunc
	closed sync.Once
	err    error // of Close

	mu   sync.Mutex
	gone bool // a link found no server, and none has found one since
}

var (
	_ registry.Registry      = (*Registry)(nil)
	_ registry.ChangeWatcher = (*Registry)(nil)
)

// New makes a client. It asks ZooKeeper nothing: one that is not there is the matter of the first request.
func New(o Options) (*Registry, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &Registry{o: o, host: strings.Join(o.Endpoints, ",")}
	r.life, r.end = context.WithCancel(context.Background())
	r.reader = newLink(r, readTTL, true)
	r.keeper = newKeeper(r)
	return r, nil
}

// complete checks o and fills in what is not set.
func (o *Options) complete() error {
	if len(o.Endpoints) == 0 {
		o.Endpoints = []string{"127.0.0.1:" + defaultPort}
	}
	for _, e := range o.Endpoints {
		if err := registry.ValidHostPort(e); err != nil || strings.ContainsAny(e, "/@, ") {
			return fmt.Errorf("registry: ZooKeeper endpoint %q: want host:port", e)
		}
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	o.Prefix = "/" + strings.Trim(o.Prefix, "/")
	for name := range strings.SplitSeq(o.Prefix[1:], "/") {
		if !registry.ValidName(name) {
			return fmt.Errorf("registry: ZooKeeper: prefix %q: want names of letters, digits, '.', '_' and '-' between its slashes", o.Prefix)
		}
	}
	if err := access.CompleteLogin(&o.Username, &o.Password, o.CredentialsFile); err != nil {
		return fmt.Errorf("registry: ZooKeeper: %w", err)
	}
	if strings.Contains(o.Username, ":") {
		return errors.New("registry: ZooKeeper: a user's name has no colon")
	}
	for v, d := range map[*time.Duration]time.Duration{&o.Timeout: 5 * time.Second, &o.TTL: 30 * time.Second} {
		if *v == 0 {
			*v = d
		}
		if *v < 0 {
			return errors.New("registry: ZooKeeper: a negative duration")
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Register puts n under a session, which lasts until the ttl is over; see the package's doc. A renewal looks whether the
// node still stands as it should, and mends that. Beside the errors of registry.Registrar there is a *status.Error of a
// ZooKeeper that refuses for another reason: it wants a user (401), or the user may not write there (403).
func (r *Registry) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	value, err := record.Encode(n)
	if err != nil {
		return err
	}
	if ttl < 0 {
		return fmt.Errorf("%w: ttl %v is negative", registry.ErrInvalid, ttl)
	}
	return r.keeper.register(ctx, n, value, ttl)
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

// Get asks ZooKeeper for a service's nodes: a request for their names, and one for each node.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	if !registry.ValidName(service) {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	nodes, err := r.list(ctx, service)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	return nodes, nil
}

// List asks ZooKeeper for all nodes, as Get does for each service.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	return r.list(ctx, "")
}

// list gives the nodes of a service, or of all.
func (r *Registry) list(ctx context.Context, service string) ([]registry.Node, error) {
	t := newTree(r, service, nil)
	err := r.said(t.look(ctx, map[string]struct{}{t.root: {}}))
	if err != nil {
		return nil, err
	}
	return t.table.All(), nil
}

// Close withdraws the nodes that were registered here and ends the watches. It is an error if ZooKeeper could not be told:
// the nodes lapse then.
func (r *Registry) Close() error {
	r.closed.Do(func() {
		r.end()
		r.err = r.keeper.close()
		r.reader.close()
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

// away takes in that a link finds no server.
func (r *Registry) away(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.gone {
		r.o.Logger.Warn("ZooKeeper is away", "zookeeper", r.host, "error", err)
	}
	r.gone = true
}

// back takes in that a link has found one.
func (r *Registry) back() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		r.o.Logger.Info("ZooKeeper is back", "zookeeper", r.host)
	}
	r.gone = false
}
