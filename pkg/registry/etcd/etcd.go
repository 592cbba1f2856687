package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// Options of New. The zero value is good for an etcd on this machine.
type Options struct {
	// Endpoints are members of the cluster, host:port. Default 127.0.0.1:2379.
	Endpoints []string
	// Prefix is what all keys begin with. Default "/micro/registry/", which is go-micro's. A '/' is added to both ends where
	// it lacks.
	Prefix string
	// Username and Password are for an etcd with authentication. Both or none are given.
	Username, Password string
	// CredentialsFile is a file that holds both, as "name:password", and is read once. It is not given beside them.
	CredentialsFile string
	// TLS makes the connections TLS, with this configuration. Nil: in the clear.
	TLS *tls.Config
	// Timeout bounds each request. Default 5 s.
	Timeout time.Duration
	// TTL is the longest lease: a killed process's nodes are gone after that, though they were registered for longer. It is
	// rounded up to seconds; etcd has a minimum of its own, 2 s by default. Default 30 s.
	TTL time.Duration
	// Logger is told of etcd's absence and return, of records that were left out and of nodes that were lost. Nil:
	// nobody is.
	Logger *slog.Logger
}

const (
	defaultPort   = "2379"
	defaultPrefix = "/micro/registry/"
	pageSize      = 1000 // keys of one answer
	maxAnswer     = 96 << 20
)

// Registry is a client of an etcd cluster. Its methods may be called concurrently.
type Registry struct {
	o      Options
	host   string // the members, for errors
	client *clientv3.Client
	keeper *keeper
	link   *link
	epoch  atomic.Uint64 // of streams, see streams

	life   context.Context // ends with Close
	end    context.CancelFunc
	closed sync.Once
	err    error // of Close
}

var (
	_ registry.Registry      = (*Registry)(nil)
	_ registry.ChangeWatcher = (*Registry)(nil)
)

// New makes a client. It asks etcd nothing: one that is not there, or takes no login, is the matter of the first request.
func New(o Options) (*Registry, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &Registry{o: o, host: strings.Join(o.Endpoints, ",")}
	var err error
	if r.client, err = dial(o); err != nil {
		return nil, fmt.Errorf("registry: etcd %s: %w", r.host, err)
	}
	r.life, r.end = context.WithCancel(context.Background())
	r.link = follow(r)
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
			return fmt.Errorf("registry: etcd endpoint %q: want host:port", e)
		}
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if o.Prefix = "/" + strings.Trim(o.Prefix, "/") + "/"; o.Prefix == "//" {
		return errors.New("registry: etcd: the prefix has no name")
	}
	if err := access.CompleteLogin(&o.Username, &o.Password, o.CredentialsFile); err != nil {
		return fmt.Errorf("registry: etcd: %w", err)
	}
	for v, d := range map[*time.Duration]time.Duration{&o.Timeout: 5 * time.Second, &o.TTL: 30 * time.Second} {
		if *v == 0 {
			*v = d
		}
		if *v < 0 {
			return errors.New("registry: etcd: a negative duration")
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Register puts n under a lease, which is kept alive until the ttl is over; see the package's doc. A renewal looks
// whether the node still stands as it should, and mends that. Beside the errors of registry.Registrar there is a
// *status.Error of an etcd that refuses for another reason: a login that it does not take (401), keys that the user may
// not write (403), or a store that is full (429).
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

// Get asks etcd for a service's nodes.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	if !registry.ValidName(service) {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	t, _, err := r.read(ctx, service, clientv3.WithSerializable())
	if err != nil {
		return nil, err
	}
	nodes := t.All()
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	return nodes, nil
}

// List asks etcd for all nodes.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	t, _, err := r.read(ctx, "", clientv3.WithSerializable())
	if err != nil {
		return nil, err
	}
	return t.All(), nil
}

// read gives what stands below a service, or below all for the empty name, with its revision. It asks by pages, the first
// with opts.
func (r *Registry) read(ctx context.Context, service string, opts ...clientv3.OpOption) (*record.Table, int64, error) {
	ctx, stop := r.within(ctx)
	defer stop()
	t, revision := record.NewTable(), int64(0)
	from := r.below(service)
	page := []clientv3.OpOption{clientv3.WithRange(clientv3.GetPrefixRangeEnd(from)), clientv3.WithLimit(pageSize)}
	opts = append(opts, page...)
	var skipped []error
	for {
		rsp, err := r.get(ctx, from, opts...)
		if err != nil {
			return nil, 0, err
		}
		for _, kv := range rsp.Kvs {
			if err := r.take(t, kv); err != nil {
				skipped = append(skipped, err)
			}
		}
		if revision == 0 {
			revision = rsp.Header.Revision
			opts = append(page, clientv3.WithRev(revision)) // the same for all pages; a member may not have it yet
		}
		if !rsp.More || len(rsp.Kvs) == 0 {
			break
		}
		from = string(rsp.Kvs[len(rsp.Kvs)-1].Key) + "\x00"
	}
	if len(skipped) > 0 {
		r.o.Logger.Warn("etcd holds records that are no nodes", "etcd", r.host, "records", len(skipped), "first", skipped[0])
	}
	return t, revision, nil
}

// take puts a record into t. One that is no node is left out.
func (r *Registry) take(t *record.Table, kv *mvccpb.KeyValue) error {
	n, err := decode(r.o.Prefix, string(kv.Key), kv.Value)
	if err != nil {
		t.Drop(string(kv.Key))
		return fmt.Errorf("key %q: %w", kv.Key, err)
	}
	t.Put(string(kv.Key), n)
	return nil
}

// below is what the keys of a service's nodes, or of all, begin with.
func (r *Registry) below(service string) string {
	if service == "" {
		return r.o.Prefix
	}
	return servicePrefix(r.o.Prefix, service)
}

// Close withdraws the nodes that were registered here and ends the watches. It is an error if etcd could not be told:
// the nodes lapse then.
func (r *Registry) Close() error {
	r.closed.Do(func() {
		r.end()
		r.err = r.keeper.close()
		_ = r.client.Close() // its only error is that it was closed
		r.link.wait()
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
