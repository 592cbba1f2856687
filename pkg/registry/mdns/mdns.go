// Package mdns is a registry without a server: nodes announce themselves, and are asked for, by multicast DNS
// (RFC 6762). In the default [Host] scope nothing leaves this machine and nothing from outside is believed; in [LAN]
// scope the nodes of a local network find each other. It is one of the two parts of the default registry.
//
// It speaks the form of go-micro's mDNS registry, under "micro.", and sees go-micro's nodes as they see its own. The
// same nodes are shown to avahi-browse and dns-sd as _micro._tcp.local (RFC 6763).
//
// mDNS proves nothing about who answers: in LAN scope any machine of the link can claim any service. A node is a hint
// where to call; who stands there, TLS must tell.
//
// A node that leaves says so. One that is killed stays until its records' time to live is over, 30 s by default. A node's
// endpoints are left out where they would make its record larger than a packet: ask the node itself.
package mdns

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/wire"
)

// Scope is how far a registry speaks and hears.
type Scope int

const (
	// Host is this machine: multicast leaves by loopback only, and only senders and nodes with an address of this
	// machine are believed.
	Host Scope = iota
	// LAN is every network that the machine is connected to, up to the next router.
	LAN
)

// Defaults of [Options].
const (
	DefaultDomain = "micro"
	DefaultTTL    = 30 * time.Second
)

// Options are the settings of [New]. The zero value is good.
type Options struct {
	// Scope is Host by default.
	Scope Scope
	// Domain is the DNS domain under which nodes stand, "micro" by default, which is go-micro's. Registries of
	// different domains do not see each other.
	Domain string
	// Interfaces names the network interfaces to use beside loopback; empty: all that are up and take multicast.
	Interfaces []string
	// TTL is how long others keep a node that says nothing more, from 1 s to 120 s; 30 s by default. A shorter lease
	// shortens it. With more than a hundred nodes known it grows, so that a crowd does not fill the network.
	TTL time.Duration
	// NoDNSSD leaves out the records for avahi-browse and dns-sd.
	NoDNSSD bool
	// Logger gets what nobody is there to be told; silent by default.
	Logger *slog.Logger
}

// Registry is a registry by multicast DNS. It opens no socket before it is used: asking opens one for the answer,
// Register and Watch one that stays until Close.
type Registry struct {
	opts   Options
	domain string // "micro."
	log    *slog.Logger
	guard  guard
	hub    *hub.Hub // own nodes, and while someone watches those that were heard of

	life context.Context // ends with Close
	kill context.CancelFunc
	work sync.WaitGroup // goroutines

	mu       sync.Mutex
	closed   bool
	endpoint *endpoint // nil until Register or Watch
	table    table
	cache    *cache             // nil while nobody needs it
	watched  map[string]*follow // by service; "": all
	queries  map[string]*query
	running  int       // queries
	planned  time.Time // when the endpoint will next look at the times
}

var (
	_ registry.Registry      = (*Registry)(nil)
	_ registry.ChangeWatcher = (*Registry)(nil)
)

// New makes a registry. It touches no network: that multicast is impossible shows at the first use, as an error that
// wraps registry.ErrUnavailable and says of each interface why. The error of New is of the options.
func New(o Options) (*Registry, error) {
	if o.Domain == "" {
		o.Domain = DefaultDomain
	}
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Domain = strings.TrimSuffix(o.Domain, ".")
	switch {
	case o.Scope != Host && o.Scope != LAN:
		return nil, fmt.Errorf("mdns: scope %d is neither Host nor LAN", o.Scope)
	case o.TTL < minTTL || o.TTL > maxTTL:
		return nil, fmt.Errorf("mdns: ttl %v is not between %v and %v", o.TTL, minTTL, maxTTL)
	case !validDomain(o.Domain):
		return nil, fmt.Errorf("mdns: %q is not a domain: want letters, digits and '-', 63 bytes at most between dots", o.Domain)
	}
	life, kill := context.WithCancel(context.Background())
	return &Registry{
		opts: o, domain: o.Domain + ".", log: o.Logger, guard: guard{scope: o.Scope, names: o.Interfaces},
		hub: hub.New(), life: life, kill: kill,
		table: table{nodes: map[string]*own{}}, watched: map[string]*follow{}, queries: map[string]*query{},
	}, nil
}

func validDomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if !registry.ValidName(label) || len(label) > 63 || strings.Contains(label, "_") {
			return false
		}
	}
	return len(s) <= 64
}

// Open opens "mdns://", with the parameters scope (host or lan), domain, and iface (names with commas between).
func Open(_ context.Context, u *url.URL) (registry.Registry, error) {
	params, err := opener.Params(u, "scope", "domain", "iface")
	if err != nil {
		return nil, fmt.Errorf("mdns: %w", err)
	}
	if u.Host != "" || strings.Trim(u.Path, "/") != "" || u.Opaque != "" {
		return nil, fmt.Errorf("mdns: %s: mDNS has no server to name, want mdns:// with parameters alone", opener.Redacted(u))
	}
	o := Options{Domain: params["domain"]}
	switch scope := params["scope"]; scope {
	case "", "host":
	case "lan":
		o.Scope = LAN
	default:
		return nil, fmt.Errorf("mdns: scope %q: want host or lan", scope)
	}
	if names := params["iface"]; names != "" {
		o.Interfaces = strings.Split(names, ",")
	}
	r, err := New(o)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// usable gives why a call cannot go on.
func (r *Registry) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.life.Err() != nil {
		return registry.ErrClosed
	}
	return nil
}

// Register announces n, or renews it, as registry.Registrar says. The error wraps registry.ErrInvalid also where the
// address is no IP address with a port, a part of a name is longer than DNS allows, or the metadata does not fit into a
// packet. Two owners of one id are not told: others see whom they heard first, or last on this machine.
func (r *Registry) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	if err := registry.Validate(n); err != nil {
		return err
	}
	rec, err := wire.NewRecord(n, r.domain)
	if err != nil {
		return err
	}
	e, err := r.listen(ctx)
	if err != nil {
		return err
	}
	return e.register(rec, ttl)
}

// Deregister takes a node back, if it was registered here.
func (r *Registry) Deregister(ctx context.Context, n registry.Node) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	e := r.endpoint
	rec := r.table.remove(n, time.Now())
	if rec != nil {
		r.forget(rec.Node)
		clear(r.queries) // those under way may have found it
	}
	r.mu.Unlock()
	if rec != nil {
		e.bid(rec)
	}
	return nil
}

// Get gives the nodes of a service: those that a Watch holds, else those that answer by the time the first answer and
// what came with it are read. A name that nobody answers to takes 250 ms.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	if !wire.Askable(service, r.domain) {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	if r.follows(service) {
		if nodes, err := r.hub.Get(service); err == nil {
			return nodes, nil
		}
	}
	q, err := r.ask(ctx, service)
	if err != nil {
		return nil, err
	}
	if err := r.await(ctx, q.first); err != nil {
		return nil, err
	}
	nodes := r.merge(service, q)
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	return nodes, nil
}

// List gives the nodes of all services: those that a Watch of all holds, else those that answer until no more come,
// 30 to 250 ms, or 500 ms where answers keep coming.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	if r.follows("") {
		return r.hub.List(), nil
	}
	q, err := r.ask(ctx, "")
	if err != nil {
		return nil, err
	}
	if err := r.await(ctx, q.done); err != nil {
		return nil, err
	}
	return r.merge("", q), nil
}

// await waits for a question.
func (r *Registry) await(ctx context.Context, until <-chan struct{}) error {
	select {
	case <-until:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.life.Done():
	}
	return r.usable(ctx)
}

// merge gives what a question found and what was registered here, sorted. Of a node that was registered here, here is
// known best.
func (r *Registry) merge(service string, q *query) []registry.Node {
	found := q.nodes()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []registry.Node{}
	for _, n := range found {
		if r.table.nodes[n.ID] == nil {
			out = append(out, n)
		}
	}
	for _, o := range r.table.nodes {
		if service == "" || service == o.rec.Node.Service {
			out = append(out, o.rec.Node)
		}
	}
	registry.Sort(out)
	return out
}

// Watch does what registry.Finder says. The first set comes with the first answer, or of all services when no more
// answers come.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return watch(ctx, r, service, func() iter.Seq2[[]registry.Node, error] { return r.hub.Watch(ctx, service) })
}

// WatchChanges is Watch by changes, as registry.ChangeWatcher says.
func (r *Registry) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return watch(ctx, r, service, func() iter.Seq2[registry.Change, error] { return r.hub.WatchChanges(ctx, service) })
}

// watch gives what a watch of the hub yields, once the set is known, and keeps that up to date meanwhile.
func watch[T any](ctx context.Context, r *Registry, service string, read func() iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		end, ok := r.begin(ctx, service, func(err error) bool { return yield(none, err) })
		if !ok {
			return
		}
		defer end()
		for news, err := range read() {
			if !yield(news, err) {
				return
			}
		}
	}
}

// rejoin is how long a watch waits between tries where multicast is impossible.
const rejoin = 3 * time.Second

// begin makes the set of a service known, trying again where multicast is impossible, which it tells once. It reports
// false when the watch is over.
func (r *Registry) begin(ctx context.Context, service string, tell func(error) bool) (end func(), ok bool) {
	for told := false; r.usable(ctx) == nil; {
		end, err := r.follow(ctx, service)
		if err == nil {
			return end, true
		}
		if errors.Is(err, registry.ErrClosed) || ctx.Err() != nil {
			return nil, false
		}
		if !told && !tell(err) {
			return nil, false
		}
		told = true
		select {
		case <-time.After(rejoin):
		case <-ctx.Done():
		case <-r.life.Done():
		}
	}
	return nil, false
}

// Close takes back what was registered, which takes 10 ms, ends the watches, and waits for what was started.
func (r *Registry) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		r.work.Wait()
		return nil
	}
	r.closed = true
	e := r.endpoint
	r.mu.Unlock()
	r.kill()
	r.hub.Close()
	if e != nil {
		e.close(false)
	}
	r.work.Wait()
	return nil
}
