// Package micro makes services: a server, a client, and the life that joins them to a registry and a broker.
//
//	svc, err := micro.New("greeter", micro.Version("1.2.0"))
//	micro.Handle(svc, "Say.Hello", hello)
//	err = svc.Run(ctx)
//
// Without options a service needs nothing else running: it is found on this machine by the files and the loopback mDNS
// of [DefaultRegistry], speaks HTTP on a free port of loopback, and publishes from process to process.
package micro

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	brokerhttp "github.com/cb02dfca/micro/pkg/broker/http"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/transport"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// Service is one service of a program: several may live in one process. Make it with [New], give it its handlers, and
// [Service.Run] it once.
type Service struct {
	options
	server *server.Server
	client *client.Client
	attach func(brokerhttp.Mux) error // of the broker that New made: it receives on the service's own port

	mu        sync.Mutex
	node      registry.Node
	unhealthy error
	running   bool
	closed    bool
}

// New makes the service name. It opens what it was not given; Close, or the end of Run, closes that again.
func New(name string, opts ...Option) (*Service, error) {
	s := &Service{options: defaults()}
	s.name = name
	for _, opt := range opts {
		opt(&s.options)
	}
	if err := s.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("micro: service %s: %w", name, err), s.closeOpened())
	}
	return s, nil
}

// build opens the parts, innermost first.
func (s *Service) build() error {
	if err := s.check(); err != nil {
		return err
	}
	if s.id == "" {
		s.id = s.name + "-" + randomHex(4)
	}
	if err := s.buildDrivers(); err != nil {
		return err
	}
	opts := []server.Option{
		server.Version(s.version), server.NodeID(s.id), server.Logger(s.logger),
		server.ShutdownTimeout(s.shutdownTimeout), server.HealthFunc(s.healthNow),
	}
	for k, v := range s.metadata {
		opts = append(opts, server.Metadata(k, v))
	}
	srv, err := server.New(s.name, append(opts, s.options.server...)...)
	if err != nil {
		return err
	}
	cl, err := client.New(append([]client.Option{client.WithTransports(s.transports),
		client.WithTransport(s.transport), client.WithBroker(s.broker), client.WithSelector(s.options.selector), client.WithLogger(s.logger),
	}, s.options.client...)...)
	if err != nil {
		return err
	}
	s.server, s.client = srv, cl
	return nil
}

// buildDrivers opens the registry, the transport, the broker and the selector where no option set them.
func (s *Service) buildDrivers() error {
	if s.registry == nil {
		u := &url.URL{Scheme: "default"}
		if s.scope != "" {
			u.RawQuery = url.Values{"scope": {s.scope}}.Encode()
		}
		r, err := openDefault(context.Background(), u, s.logger)
		if err != nil {
			return err
		}
		s.registry, s.opened = r, append(s.opened, r)
	}
	if s.transport == nil {
		t, err := transporthttp.New(transporthttp.Options{Logger: s.logger})
		if err != nil {
			return err
		}
		s.transport = t
	}
	if len(s.beside) > 0 {
		t, ok := s.transport.(*transporthttp.Transport)
		if !ok {
			return errors.New("Beside is for services that speak HTTP, and Transport sets another")
		}
		s.transport = t.With(s.beside...)
	}
	if s.broker == nil || s.brokerURL != "" {
		if err := s.openBroker(); err != nil {
			return err
		}
	}
	if s.options.selector == nil {
		sel, err := selector.New(s.registry)
		if err != nil {
			return err
		}
		s.options.selector, s.opened = sel, append(s.opened, sel)
	}
	return nil
}

// openBroker opens the broker that the environment names, or the default. The HTTP broker receives on the service's own
// port.
func (s *Service) openBroker() error {
	o := brokerhttp.Options{Logger: s.logger}
	if t, ok := s.transport.(*transporthttp.Transport); ok {
		o.Transport = t // the one with the service's limits
	}
	set := broker.Openers{"http": brokerhttp.Open(s.registry, o)}
	for scheme, open := range s.brokers {
		set[scheme] = open
	}
	url := s.brokerURL
	if url == "" {
		url = "http"
	}
	b, err := set.Open(context.Background(), url)
	if err != nil {
		return fmt.Errorf("opening the broker: %w", err)
	}
	s.broker, s.opened = b, append(s.opened, b)
	if hb, ok := b.(*brokerhttp.Broker); ok && url == "http" { // with a host it has an address of its own
		s.attach = hb.Attach
	}
	return nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Name is the service's name.
func (s *Service) Name() string { return s.name }

// Server is where handlers that [Handle] cannot express are registered.
func (s *Service) Server() *server.Server { return s.server }

// Client calls other services, and publishes. It may be used before Run, and by handlers.
func (s *Service) Client() *client.Client { return s.client }

// Registry is the service's registry.
func (s *Service) Registry() registry.Registry { return s.registry }

// Broker is the service's broker.
func (s *Service) Broker() broker.Broker { return s.broker }

// Node is the service's record as it is registered: complete from AfterStart on.
func (s *Service) Node() registry.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node.Clone()
}

// Close frees what New opened, for a service that is not run. Run does it by itself.
func (s *Service) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	return errors.Join(s.client.Close(), s.closeOpened())
}

// closeOpened closes what the service opened, the latest first.
func (s *Service) closeOpened() error {
	var errs []error
	for i := len(s.opened) - 1; i >= 0; i-- {
		errs = append(errs, s.opened[i].Close())
	}
	s.opened = nil
	return errors.Join(errs...)
}

// healthNow is what Debug.Health answers.
func (s *Service) healthNow() server.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.unhealthy != nil:
		return server.Health{Status: server.HealthFailing, Detail: s.unhealthy.Error()}
	case s.node.Address == "":
		return server.Health{Status: server.HealthStarting}
	}
	return server.Health{Status: server.HealthOK}
}

// describe makes the node's record for the address that callers dial.
func (s *Service) describe(address string) registry.Node {
	n := registry.Node{
		ID: s.id, Service: s.name, Version: s.version, Address: address,
		Metadata: map[string]string{registry.MetaStarted: time.Now().UTC().Format(time.RFC3339Nano)},
	}
	if t, ok := s.transport.(transport.Schemed); ok {
		n.Metadata[registry.MetaTransport] = t.Scheme()
		if t.Scheme() == "grpc" {
			n.Metadata[registry.MetaProtocol] = "grpc" // as go-micro v2 has it
		}
	}
	if _, ok := s.transport.(*transporthttp.Transport); ok {
		n.Metadata[registry.MetaProtocol] = "mucp"
		n.Metadata[registry.MetaUpgrade] = "micro"
	}
	var idempotent []string
	for _, e := range s.server.Endpoints() {
		re := registry.Endpoint{Name: e.Name, Metadata: e.Metadata}
		if e.Kind != server.Unary {
			re.Metadata = map[string]string{"stream": "true", "kind": string(e.Kind)}
			for k, v := range e.Metadata {
				re.Metadata[k] = v
			}
		}
		n.Endpoints = append(n.Endpoints, re)
		if e.Idempotent {
			idempotent = append(idempotent, e.Name)
		}
	}
	if len(idempotent) > 0 {
		n.Metadata[registry.MetaIdempotent] = joinWithin(idempotent, registry.MaxMetaValue)
	}
	for k, v := range s.metadata {
		n.Metadata[k] = v
	}
	return n
}

// joinWithin joins names by commas, as many as fit into limit bytes: an endpoint that is left out is not sent again.
func joinWithin(names []string, limit int) string {
	var b strings.Builder
	for _, name := range names {
		if b.Len()+1+len(name) > limit {
			break
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name)
	}
	return b.String()
}

// start marks the service as run, which it is once.
func (s *Service) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running || s.closed {
		return fmt.Errorf("micro: service %s: a service is run once", s.name)
	}
	s.running = true
	return nil
}

// runHooks runs hooks in order, up to the first that fails.
func runHooks(ctx context.Context, what string, hooks []Hook) error {
	for _, h := range hooks {
		if err := h(ctx); err != nil {
			return fmt.Errorf("%s hook: %w", what, err)
		}
	}
	return nil
}
