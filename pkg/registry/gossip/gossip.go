package gossip

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Options of New. The zero value is a member on this machine alone, which finds the others of the machine.
type Options struct {
	// Seeds are addresses, host:port, at which members are met; one that answers is enough. They are tried for ever. Default, for
	// a member on loopback, 127.0.0.1:7946; else none: others find it.
	Seeds []string
	// Bind is where the member listens, host:port, with UDP and TCP. Default loopback, if all seeds are on loopback, else the
	// address of this machine that leads to the seeds; an empty host means that. The default port, and 0, is a free one.
	Bind string
	// Advertise is where others reach it, IP:port. Default what it binds; for 0.0.0.0 the first private address.
	Advertise string
	// Key encrypts and authenticates all that is sent: 16, 24 or 32 bytes, the same for all members. Nil: none.
	Key []byte
	// KeyFile is a file with the key, one line of base64. It is read once, and not given beside Key.
	KeyFile string
	// Insecure allows an address beyond loopback without a key: whoever reaches it may join, and say anything.
	Insecure bool
	// Timeout bounds how long the first request waits to meet a seed. Default 3 s.
	Timeout time.Duration
	// Logger is told of members and messages that were left out, and of what memberlist complains of. Nil: nobody is.
	// It is told too where Insecure lets the member have an address beyond loopback.
	Logger *slog.Logger
}

// The environment that Open reads.
const EnvKey = "MICRO_GOSSIP_KEY" // the key in base64, where the URL names no key-file

const (
	defaultPort    = "7946"
	defaultTimeout = 3 * time.Second
	label          = "micro-registry" // keeps other programs' members apart, whose default port is the same
	retransmits    = 4                // of a message, times the logarithm of the number of members
	leaveTime      = 2 * time.Second
	streamTime     = 5 * time.Second // to connect to a member, and for an exchange with it
	levelQuiet     = slog.LevelInfo
)

// Registry is a member. Its methods may be called concurrently.
type Registry struct {
	o        Options
	log      *journal
	table    *table
	delegate *delegate
	network  *network
	list     *memberlist.Memberlist
	seeker   *seeker
	ip       netip.Addr
	addr     string // that is advertised
	port     uint16 // that is bound

	life   context.Context // ends with Close
	end    context.CancelFunc
	busy   sync.WaitGroup
	closed sync.Once
}

var (
	_ registry.Registry      = (*Registry)(nil)
	_ registry.ChangeWatcher = (*Registry)(nil)
	_ registry.Hoster        = (*Registry)(nil)
)

// New makes a member. It listens at once, and looks for the others behind: the first request waits for them, Timeout at most.
func New(o Options) (*Registry, error) {
	at, err := o.complete()
	if err != nil {
		return nil, err
	}
	r := &Registry{o: o, log: newJournal(o.Logger)}
	if r.network, err = listen(at.Addr().String(), int(at.Port()), r.log); err != nil {
		return nil, err
	}
	if !loopback(at.Addr()) && len(o.Key) == 0 {
		r.log.Warn("insecure: whoever reaches this member may join, and say anything", "address", at.Addr())
	}
	if err := r.start(at.Addr()); err != nil {
		r.network.end()
		if r.list == nil {
			_ = r.network.Shutdown()
		}
		return nil, err
	}
	return r, nil
}

func (r *Registry) start(bound netip.Addr) error {
	host, port := "", 0
	if r.o.Advertise != "" {
		at, _ := netip.ParseAddrPort(r.o.Advertise)
		host, port = at.Addr().String(), int(at.Port())
	}
	r.port = uint16(r.network.GetAutoBindPort())
	if port == 0 {
		port = int(r.port)
	}
	ip, port, err := r.network.FinalAdvertiseAddr(host, port)
	if err != nil {
		return fmt.Errorf("registry: gossip: which address others reach is not known: %w: give advertise", err)
	}
	r.ip, _ = netip.AddrFromSlice(ip)
	r.ip = r.ip.Unmap()
	if r.ip.IsUnspecified() {
		return errors.New("registry: gossip: which address others reach is not known: give advertise")
	}
	r.addr = netip.AddrPortFrom(r.ip, uint16(port)).String()
	m := meta{start: uint64(time.Now().UnixNano())}
	r.table = newTable(memberlist.Node{Name: nameOf(r.addr, m.start), Addr: ip, Port: uint16(port)}, m, r.log)
	r.delegate = newDelegate(r.table, loopback(bound))
	r.life, r.end = context.WithCancel(context.Background())
	r.seeker = newSeeker(r)
	r.table.lost = r.seeker.miss
	if r.list, err = memberlist.Create(r.config(port)); err != nil {
		r.end()
		return fmt.Errorf("registry: gossip: %w", err)
	}
	for _, run := range []func(){r.announce, r.follow, r.seeker.run} {
		r.busy.Go(run)
	}
	if r.delegate.local {
		r.busy.Go(r.seeker.guard)
	}
	for range answerers {
		r.busy.Go(r.answer)
	}
	return nil
}

func (r *Registry) config(port int) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Transport, c.Label = r.table.self.name, r.network, label
	c.AdvertiseAddr, c.AdvertisePort, c.BindPort = r.ip.String(), port, int(r.port)
	c.TCPTimeout = streamTime
	c.RetransmitMult = retransmits
	c.GossipInterval = 100 * time.Millisecond
	c.AwarenessMaxMultiplier = 4 // a busy machine finds the dead later, but not much
	c.SecretKey = r.o.Key
	c.Delegate, c.Events, c.Alive = r.delegate, r.delegate, r.delegate
	c.DelegateProtocolVersion, c.DelegateProtocolMin, c.DelegateProtocolMax = format, format, format
	c.Logger = r.log.library()
	return c
}

// complete checks o, fills in what is not set, and gives the address to bind.
func (o *Options) complete() (at netip.AddrPort, err error) {
	if err := o.readKey(); err != nil {
		return at, fmt.Errorf("registry: gossip: %w", err)
	}
	for _, seed := range o.Seeds {
		if err := registry.ValidHostPort(seed); err != nil || strings.ContainsAny(seed, "/@, ") {
			return at, fmt.Errorf("registry: gossip: seed %q: want host:port", seed)
		}
	}
	if o.Advertise != "" {
		if a, err := netip.ParseAddrPort(o.Advertise); err != nil || a.Addr().IsUnspecified() || a.Addr().Zone() != "" {
			return at, fmt.Errorf("registry: gossip: advertise %q: want IP:port; the port 0 is the one that is bound", o.Advertise)
		}
	}
	if o.Timeout < 0 {
		return at, errors.New("registry: gossip: a negative duration")
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if at, err = o.bind(); err != nil {
		return at, err
	}
	if !loopback(at.Addr()) && len(o.Key) == 0 && !o.Insecure {
		return at, fmt.Errorf("registry: gossip: %s is not loopback, and without a key whoever reaches it may join: set %s or key-file, or insecure=true", at.Addr(), EnvKey)
	}
	if loopback(at.Addr()) && len(o.Seeds) == 0 {
		o.Seeds = []string{net.JoinHostPort("127.0.0.1", defaultPort)}
	}
	return at, nil
}

// bind gives the address to bind.
func (o *Options) bind() (netip.AddrPort, error) {
	host, port := "", "0"
	if o.Bind != "" {
		var err error
		if host, port, err = net.SplitHostPort(o.Bind); err != nil {
			return netip.AddrPort{}, fmt.Errorf("registry: gossip: bind %q: want host:port", o.Bind)
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("registry: gossip: bind %q: want a port up to 65535", o.Bind)
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTime)
	defer cancel()
	if host != "" {
		ips, err := resolve(ctx, host)
		if err != nil || len(ips) == 0 {
			return netip.AddrPort{}, fmt.Errorf("registry: gossip: bind %q: %w", o.Bind, err)
		}
		return netip.AddrPortFrom(ips[0], uint16(number)), nil
	}
	ip, err := o.way(ctx)
	return netip.AddrPortFrom(ip, uint16(number)), err
}

// way gives the address of this machine that leads to the seeds.
func (o *Options) way(ctx context.Context) (netip.Addr, error) {
	here := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	var first error
	for _, seed := range o.Seeds {
		host, port, _ := net.SplitHostPort(seed)
		if isLocal(host) {
			continue
		}
		number, _ := strconv.ParseUint(port, 10, 16)
		ips, err := resolve(ctx, host)
		for _, ip := range ips {
			var own netip.Addr
			if own, err = toward(netip.AddrPortFrom(ip, uint16(number))); err == nil && !loopback(ip) {
				return own, nil
			}
		}
		if first == nil && err != nil {
			first = fmt.Errorf("%w: gossip: there is no way to the seed %s: %s", registry.ErrUnavailable, seed, text(err))
		}
	}
	return here, first
}

// Host gives the address of this machine under which the other members reach it, as registry.Hoster says.
func (r *Registry) Host() (host string, ok bool) {
	if loopback(r.ip) {
		return "", false
	}
	return r.ip.String(), true
}

// Hearsay says that a node which shows here no longer need not be dead: its owner does not learn who has lost sight of it. Package multi asks.
func (r *Registry) Hearsay() bool { return true }

// Register does what registry.Registrar says. Beside its errors there is a *status.Error of a member that has too many nodes
// (429), or whose key is not that of the seeds (401).
func (r *Registry) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	if _, err := newEntry(n, 0); err != nil {
		return err
	}
	if r.seeker.hold() && r.delegate.local { // from now on others are to find it at the door
		if err := r.seeker.now(ctx); err != nil {
			return err
		}
	}
	if err := r.seeker.problem(true); err != nil {
		return err
	}
	return r.table.register(n, ttl)
}

// Deregister takes n away. The error wraps ErrConflict where another member owns it.
func (r *Registry) Deregister(ctx context.Context, n registry.Node) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	return r.table.deregister(n)
}

// Get gives the nodes that this member knows.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	if err := r.knows(ctx); err != nil {
		return nil, err
	}
	return r.table.hub.Get(service)
}

// List gives the nodes that this member knows.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	if err := r.knows(ctx); err != nil {
		return nil, err
	}
	return r.table.hub.List(), nil
}

// Watch does what registry.Finder says. It yields an error where no seed answers, and nobody else is known.
func (r *Registry) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return watching(ctx, r, service, r.table.hub.Watch)
}

// WatchChanges is Watch by changes, as registry.ChangeWatcher says.
func (r *Registry) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return watching(ctx, r, service, r.table.hub.WatchChanges)
}

func watching[T any](ctx context.Context, r *Registry, service string, watch func(context.Context, string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if r.usable(ctx) != nil {
			return
		}
		for news, err := range watch(ctx, service) {
			if r.life.Err() != nil || !yield(news, err) {
				return
			}
		}
	}
}

// Close withdraws the nodes that were registered here, by leaving, and ends the watches. It gives no error: where the others
// could not be told they find out within seconds.
func (r *Registry) Close() error {
	r.shut(true)
	return nil
}

// shut ends the member, as one that leaves or as one that is killed.
func (r *Registry) shut(leave bool) {
	r.closed.Do(func() {
		r.end()
		r.table.close()
		r.network.end()
		r.seeker.closeDoor()
		r.busy.Wait()
		if leave && r.table.others() > 0 {
			if err := r.list.Leave(leaveTime); err != nil {
				r.log.Info("the others could not be told that this member leaves", "error", err)
			}
		}
		_ = r.list.Shutdown() // it never fails
	})
}

func (r *Registry) usable(ctx context.Context) error {
	if r.life.Err() != nil {
		return registry.ErrClosed
	}
	return ctx.Err()
}

// ready waits until the others were met, or that took too long.
func (r *Registry) ready(ctx context.Context) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	select {
	case <-r.seeker.first:
		return nil
	default:
	}
	timer := time.NewTimer(r.o.Timeout)
	defer timer.Stop()
	select {
	case <-r.seeker.first:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.life.Done():
	}
	return r.usable(ctx)
}

// knows is ready, with an error where what is known is next to nothing.
func (r *Registry) knows(ctx context.Context) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	select {
	case <-r.seeker.first:
		return r.seeker.problem(false)
	default:
		return fmt.Errorf("%w: %s is not answering: no answer in time", registry.ErrUnavailable, strings.Join(r.o.Seeds, ","))
	}
}
