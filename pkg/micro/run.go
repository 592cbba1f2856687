package micro

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	brokerhttp "github.com/cb02dfca/micro/pkg/broker/http"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/transport"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// registerTimeout bounds one registration, renewal or removal.
const registerTimeout = 5 * time.Second

// Run is the service's whole life. It runs the BeforeStart hooks, listens, accepts calls, subscribes, registers and runs
// the AfterStart hooks; then serves until ctx ends or, unless Signals is off, SIGINT or SIGTERM comes. Then it runs the
// BeforeStop hooks, leaves the registry, waits out Grace for callers who have not heard, refuses new calls, waits for
// those under way up to ShutdownTimeout, closes subscriptions and connections, and runs the AfterStop hooks.
//
// It returns nil where all of that went well, calls under way included. A second signal ends the process at once, as if
// nobody had asked for the first. A service is run once.
func (s *Service) Run(ctx context.Context) error {
	if err := s.start(); err != nil {
		return err
	}
	if s.signals {
		var restore context.CancelFunc
		ctx, restore = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer restore()
		defer context.AfterFunc(ctx, restore)() // the next signal has its usual effect
	}
	defer collector.hold(s.minHeap)()
	r := &run{Service: s}
	err := r.up(ctx)
	if err == nil {
		r.serve(ctx)
	}
	if err = errors.Join(err, r.down(), s.Close(), r.afterStop()); err != nil {
		return fmt.Errorf("micro: service %s: %w", s.name, err)
	}
	return nil
}

// run is one Run: what was started, so that down ends it in the opposite order.
type run struct {
	*Service
	listening  bool
	registered bool
	started    bool // the AfterStart hooks have begun
	subs       []broker.Subscription
	stopServe  context.CancelFunc
	served     chan error
}

// up starts everything, up to the first thing that fails.
func (r *run) up(ctx context.Context) error {
	if err := r.Service.server.Err(); err != nil {
		return err
	}
	if err := runHooks(ctx, "BeforeStart", r.beforeStart); err != nil {
		return err
	}
	l, err := r.listen(ctx)
	if err != nil {
		return err
	}
	node := r.describe(r.announced(l.Addr()))
	if err := registry.Validate(node); err != nil {
		return errors.Join(err, l.Close())
	}
	if mux, ok := l.(brokerhttp.Mux); ok && r.attach != nil {
		if err := r.attach(announcing{mux, node.Address, r.Service.server}); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	serveCtx, stop := context.WithCancel(context.Background())
	r.stopServe, r.served, r.listening = stop, make(chan error, 1), true
	go func() { r.served <- r.Service.server.Serve(serveCtx, l) }() // down waits for it
	for _, sub := range r.Service.server.Subscriptions() {
		opened, err := r.broker.Subscribe(ctx, sub.Topic, sub.Handle, sub.Options...)
		if err != nil {
			return fmt.Errorf("subscribing to %q: %w", sub.Topic, err)
		}
		r.subs = append(r.subs, opened)
	}
	r.warnOpen(l.Addr())
	r.setNode(node)
	if err := r.register(ctx); err != nil {
		return err
	}
	r.started = true
	return runHooks(ctx, "AfterStart", r.afterStart)
}

// announcing is a listener that gives the address that callers are told.
type announcing struct {
	brokerhttp.Mux
	address string
	server  *server.Server
}

// HandleCalls implements brokerhttp.CallMux. What is wrong with a mount, Serve tells.
func (a announcing) HandleCalls(route transport.Router) {
	_ = a.server.Mount("micro-subscription", route)
}

func (a announcing) Addr() string { return a.address }

func (s *Service) setNode(n registry.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node = n
}

// listen takes the address, or the listener that the process was given.
func (r *run) listen(ctx context.Context) (transport.Listener, error) {
	if r.inherited != nil {
		return r.wrapInherited()
	}
	addr := r.address
	if addr == "" {
		addr = DefaultAddress
		if h, ok := r.registry.(registry.Hoster); ok {
			if host, ok := h.Host(); ok {
				addr = net.JoinHostPort(host, "0")
			}
		}
	}
	l, err := r.transport.Listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, err)
	}
	return l, nil
}

// warnOpen tells of a service that a network reaches over HTTP without TLS: that is what serves a network which is trusted, and ought to be
// known where it is not.
func (r *run) warnOpen(address string) {
	t, ok := r.transport.(*transporthttp.Transport)
	if !ok || t.Scheme() != "http" {
		return
	}
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && ip != nil && !ip.IsLoopback() {
		r.logger.Warn("whoever reaches the address may call, in the clear: transport https, with client-ca-file, is for networks that are not trusted", "address", address)
	}
}

// announced gives the address that callers are told. A service that listens on all interfaces needs one to name.
func (r *run) announced(listening string) string {
	if r.advertise != "" {
		return r.advertise
	}
	host, port, err := net.SplitHostPort(listening)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return listening
	}
	if h, ok := r.registry.(registry.Hoster); ok {
		if name, ok := h.Host(); ok {
			return net.JoinHostPort(name, port)
		}
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// register lists the node, unless its health check fails: then it is tried again with the next renewal.
func (r *run) register(ctx context.Context) error {
	if r.checkHealth(ctx) != nil {
		return r.unlist(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	if err := r.registry.Register(ctx, r.Node(), r.ttl); err != nil {
		return fmt.Errorf("registering %s: %w", r.id, err)
	}
	r.registered = true
	return nil
}

// unlist takes the node off the list, where it is on it.
func (r *run) unlist(ctx context.Context) error {
	if !r.registered {
		return nil
	}
	r.registered = false
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	if err := r.registry.Deregister(ctx, r.Node()); err != nil && !errors.Is(err, registry.ErrClosed) {
		return fmt.Errorf("deregistering %s: %w", r.id, err)
	}
	return nil
}

func (r *run) checkHealth(ctx context.Context) (err error) {
	if r.health != nil {
		err = r.health(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if (err == nil) != (r.unhealthy == nil) {
		r.logger.Warn("health changed", "service", r.name, "error", err)
	}
	r.unhealthy = err
	return err
}

// serve renews the registration until ctx ends, or serving does.
func (r *run) serve(ctx context.Context) {
	for {
		jitter := time.Duration((0.8 + 0.4*rand.Float64()) * float64(r.interval))
		pause := time.NewTimer(min(jitter, (r.interval+r.ttl)/2))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case err := <-r.served:
			pause.Stop()
			r.served <- err // for down
			return
		case <-pause.C:
		}
		if err := r.register(ctx); err != nil && ctx.Err() == nil {
			r.logger.Error("renewal failed, trying again", "service", r.name, "node", r.id, "error", err)
		}
	}
}

// down stops what up started, in the opposite order, and keeps on whatever fails.
func (r *run) down() error {
	ctx := context.Background()
	errs := []error{}
	if r.started {
		errs = append(errs, runEveryHook(ctx, "BeforeStop", r.beforeStop))
	}
	if r.registered {
		errs = append(errs, r.unlist(ctx))
		time.Sleep(r.grace) // callers that heard of the node a moment ago still reach it
	}
	if r.listening {
		r.Service.server.Stop()
	}
	var closing sync.WaitGroup
	for _, sub := range r.subs {
		closing.Go(func() { _ = sub.Close() })
	}
	if r.listening {
		r.stopServe()
		errs = append(errs, <-r.served)
	}
	closing.Wait()
	return errors.Join(errs...)
}

func (r *run) afterStop() error {
	if !r.listening {
		return nil // it never started
	}
	return runEveryHook(context.Background(), "AfterStop", r.Service.afterStop)
}

// runEveryHook runs all hooks, whatever they return.
func runEveryHook(ctx context.Context, what string, hooks []Hook) error {
	var errs []error
	for _, h := range hooks {
		errs = append(errs, runHooks(ctx, what, []Hook{h}))
	}
	return errors.Join(errs...)
}
