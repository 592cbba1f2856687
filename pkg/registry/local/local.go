// Package local is the registry of one user on one machine: one file a node, in a private folder, without any network.
//
// A node's owner keeps a lock on the node's file (flock(2), LockFileEx on Windows). The kernel lets go of it when the
// owner ends, however it ends; so a file whose lock is free belongs to a dead owner. Whoever finds one removes it. A
// node that leaves a set of this registry has been withdrawn, or its owner is gone: unlike a node that a network
// registry loses, it is not merely out of reach. The one exception is a file that somebody else deleted, which its owner
// puts back: [Registry.Died] tells one from the other.
//
// On Linux a watch rests on inotify(7), which tells of a killed owner at once, as its descriptors are closed. Where
// events are not to be had the folder is polled.
//
// A record names the boot and the network namespace of its owner, and shows in these alone: containers may share the
// folder, but not 127.0.0.1.
package local

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/registry"
)

// DefaultPollInterval is how often a watch looks into the folder where there are no events.
const DefaultPollInterval = 200 * time.Millisecond

// MaxFiles is how many entries of the folder are read; what is beyond is left out, and logged.
const MaxFiles = 16 << 10

// Options are a registry's. The zero value is ready for use.
type Options struct {
	// Dir is the folder. It is made, for its owner alone, where it is missing. It must belong to the user, must not be
	// writable by everybody or a symbolic link, and must lie on this machine: not on NFS and its like.
	//
	// Default: micro in $XDG_RUNTIME_DIR, or in /run/user/UID where that stands; else micro-UID in os.TempDir. On
	// Windows micro\registry in %LocalAppData%. A default folder must be closed to other users altogether.
	Dir string
	// PollInterval is how often a watch looks into the folder where there are no events. Default DefaultPollInterval.
	PollInterval time.Duration
	// Poll makes watches poll even where there are events.
	Poll bool
	// Logger takes what is odd about the folder: files of others, files that are no records, a lack of inotify
	// instances. Each is said once. Default: nothing is logged.
	Logger *slog.Logger
}

// Registry is the registry. Use New or Open.
type Registry struct {
	dir      place
	poll     time.Duration // between two looks of a watch without events
	noEvents bool
	log      *slog.Logger
	space    space
	read     reader

	done chan struct{}  // closed by Close
	wg   sync.WaitGroup // the keeper and the watching

	mu     sync.Mutex // held while the folder is written
	closed bool
	held   map[string]*held // the nodes registered here, by id
	keeper *keeper          // nil before the first Register

	watchMu  sync.Mutex
	watching *watching // nil while nobody watches
}

var (
	_ registry.Registry      = (*Registry)(nil)
	_ registry.ChangeWatcher = (*Registry)(nil)
)

// New opens the registry, and makes its folder if need be. The error wraps registry.ErrUnavailable: no folder can be
// used, and why.
func New(o Options) (*Registry, error) {
	if o.PollInterval < 0 {
		return nil, fmt.Errorf("registry: local: a poll interval of %v: want more than 0, or 0 for %v", o.PollInterval, DefaultPollInterval)
	}
	if o.PollInterval == 0 {
		o.PollInterval = DefaultPollInterval
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := choose(o.Dir, o.Logger)
	if err != nil {
		return nil, err
	}
	r := &Registry{
		dir:      dir,
		poll:     o.PollInterval,
		noEvents: o.Poll,
		log:      o.Logger.With("registry", "local", "dir", dir.path),
		space:    thisSpace(),
		done:     make(chan struct{}),
		held:     map[string]*held{},
	}
	r.read.init(r.space, r.log)
	return r, nil
}

// Open opens the registry by URL: "local://", or "local://?dir=/path" for a folder of one's own.
func Open(_ context.Context, u *url.URL) (registry.Registry, error) {
	params, err := opener.Params(u, "dir")
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if u.Host != "" || u.User != nil || u.Opaque != "" || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("registry: %s: want local:// or local://?dir=/path", opener.Redacted(u))
	}
	r, err := New(Options{Dir: params["dir"]})
	if err != nil {
		return nil, err // not a Registry that holds a nil *Registry
	}
	return r, nil
}

// Dir is the folder in use.
func (r *Registry) Dir() string { return r.dir.path }

// Get gives the nodes of a service, as registry.Finder says. It reads the folder anew.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	nodes, err := r.find(ctx, service)
	if err != nil {
		return nil, err
	}
	nodes = slices.DeleteFunc(nodes, func(n registry.Node) bool { return n.Service != service })
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	return nodes, nil
}

// List gives all nodes, as registry.Finder says. It reads the folder anew.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	return r.find(ctx, "")
}

// find gives all nodes, or at least those of a service.
func (r *Registry) find(ctx context.Context, service string) ([]registry.Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("registry: local: %w", err)
	}
	select {
	case <-r.done:
		return nil, registry.ErrClosed
	default:
	}
	seen, err := r.read.scan(r.dir, service)
	if err != nil {
		return nil, err
	}
	registry.Sort(seen.nodes)
	return seen.nodes, nil
}

// Close withdraws the nodes registered here, ends the watches, and waits for what it started.
func (r *Registry) Close() error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.done)
		for _, h := range r.held {
			r.withdraw(h)
		}
	}
	r.mu.Unlock()
	r.endWatching()
	r.wg.Wait()
	return nil
}
