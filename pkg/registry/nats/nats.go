package nats

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

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/natsconn"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// Options of New. The zero value is good for a NATS on this machine.
type Options struct {
	// Servers are members of the cluster, host:port, tried in turn. Default 127.0.0.1:4222.
	Servers []string
	// Prefix is what the subjects begin with. Default "micro.nats", which is go-micro's. Registries of different prefixes do not see
	// each other.
	Prefix string
	// Username and Password are given both or not at all, Token or CredentialsFile in place of them: a file of one line, "name:password",
	// or one of NATS's own form.
	Username, Password, Token, CredentialsFile string
	// TLS makes the connections TLS, with this configuration. Nil: in the clear, unless the server insists.
	TLS *tls.Config
	// Timeout bounds connecting, and each confirmation of NATS. Default 5 s.
	Timeout time.Duration
	// TTL is the longest lease: a killed process's nodes are gone after that, though they were registered for longer. Each node is
	// announced three times in it. From 1 s to 1 h, default 30 s.
	TTL time.Duration
	// Logger is told of NATS's absence and return, of records that were left out and of nodes that were lost. Nil:
	// nobody is.
	Logger *slog.Logger
}

const (
	defaultPrefix = "micro.nats"
	defaultTTL    = 30 * time.Second
	minLease      = time.Second
	maxLease      = time.Hour
	inboxSize     = 16 << 10 // messages that wait to be read; when it is full they are dropped, and everything is asked for anew
)

// Registry is a registry by messages over NATS. Its methods may be called concurrently.
type Registry struct {
	o      Options
	conn   *natsconn.Conn
	nc     atomic.Pointer[nats.Conn] // nil until there was a connection
	owner  string                    // tells the nodes of this Registry from those of others
	inbox  string                    // what the subjects begin with that answers come to
	in     chan *nats.Msg            // all that comes, in its order
	nudge  chan struct{}             // of one element: the loop is to look at its times
	keeper *keeper
	view   *view

	life   context.Context // ends with Close
	end    context.CancelFunc
	work   sync.WaitGroup // goroutines
	closed sync.Once
	err    error // of Close
}

var (
	_ registry.Registry      = (*Registry)(nil)
	_ registry.ChangeWatcher = (*Registry)(nil)
)

// words are how natsconn names errors.
func words() natsconn.Words {
	return natsconn.Words{Interface: "registry", Unavailable: registry.ErrUnavailable, Closed: registry.ErrClosed}
}

// New makes a client. It asks NATS nothing: one that is not there, or takes no login, is the matter of the first request.
func New(o Options) (*Registry, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	inbox := nats.NewInbox() // of a text that nobody else has
	r := &Registry{o: o, owner: strings.TrimPrefix(inbox, nats.InboxPrefix), inbox: inbox, in: make(chan *nats.Msg, inboxSize), nudge: make(chan struct{}, 1)}
	r.keeper, r.view = newKeeper(r), newView(r)
	var err error
	r.conn, err = natsconn.New(natsconn.Options{
		Servers: o.Servers, Username: o.Username, Password: o.Password, Token: o.Token, CredentialsFile: o.CredentialsFile,
		TLS: o.TLS, Timeout: o.Timeout, Logger: o.Logger, NoEcho: true, Words: words(), Up: r.up, Down: r.down, Failed: r.failed,
	})
	if err != nil {
		return nil, err
	}
	r.life, r.end = context.WithCancel(context.Background())
	r.work.Go(r.run)
	return r, nil
}

// complete checks o and fills in what is not set. What concerns the connection natsconn checks.
func (o *Options) complete() error {
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	for token := range strings.SplitSeq(o.Prefix, ".") {
		if !registry.ValidName(token) {
			return fmt.Errorf("registry: nats: prefix %q: want names of letters, digits, '-' and '_' with '.' between", o.Prefix)
		}
	}
	if o.TTL == 0 {
		o.TTL = defaultTTL
	}
	if o.TTL < minLease || o.TTL > maxLease {
		return fmt.Errorf("registry: nats: ttl %v is not between %v and %v", o.TTL, minLease, maxLease)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Register announces n, and goes on announcing it until the ttl is over; see the package's doc. Beside the errors of
// registry.Registrar there is a *status.Error of a NATS that refuses: a login that it does not take (401), subjects that the user may
// not publish to (403), a record over its max_payload (413).
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
	return r.keeper.register(ctx, n.Clone(), value, ttl)
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

// Get gives a service's nodes: at once where they are followed, because somebody watches them or has asked in the last minute; else
// those that answer until no more come, 30 to 250 ms. That nobody is there to answer is known at once.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	if !registry.ValidName(service) {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	nodes, err := r.find(ctx, service)
	if err == nil && len(nodes) == 0 {
		err = fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	return nodes, err
}

// List gives the nodes of all services, as Get does.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	return r.find(ctx, "")
}

// find gives the nodes of a service, or of all, once they are known.
func (r *Registry) find(ctx context.Context, service string) ([]registry.Node, error) {
	f := r.view.follow(service)
	defer r.view.unfollow(f)
	ctx, stop := r.within(ctx)
	defer stop()
	late := time.NewTimer(r.conn.Timeout() + maxBusy)
	defer late.Stop()
	for {
		if _, err := r.conn.Get(ctx); err != nil {
			return nil, r.ended(err)
		}
		nodes, settled, err := r.view.read(f)
		if err != nil || settled == nil {
			return nodes, err
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return nil, r.ended(ctx.Err())
		case <-late.C:
			return nil, r.conn.Error(nats.ErrTimeout)
		}
	}
}

// Close withdraws the nodes that were registered here and ends the watches. It is an error if NATS could not be told:
// the nodes lapse then.
func (r *Registry) Close() error {
	r.closed.Do(func() {
		r.view.close()
		r.err = r.keeper.close()
		r.conn.Close()
		r.work.Wait()
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

// ended makes the end of a context that ended with r an ErrClosed.
func (r *Registry) ended(err error) error {
	if errors.Is(err, context.Canceled) && r.life.Err() != nil {
		return registry.ErrClosed
	}
	return err
}
