// Package server serves calls, streams and events: handlers by name, behind middleware and limits.
//
// Handlers are plain functions. [Handle] and its siblings take typed ones; [Server.Register] takes every method of a
// struct; [Server.Handle] takes a [Handler], which sees messages as they came. All are registered before [Server.Serve].
package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// ErrServing is returned by registrations that come after Serve.
var ErrServing = errors.New("server: handlers are registered before Serve")

// Server serves one service. Make it with [New].
type Server struct {
	options
	name    string
	started time.Time

	mu            sync.Mutex
	endpoints     map[string]*endpoint
	subscriptions []*Subscription
	setup         error // what registrations refused, so that Serve fails even where nobody looked at their errors
	serving       bool

	stopping atomic.Bool
	calls    gate
	streams  gate
	debug    gate
}

// endpoint is a registered Endpoint, ready to run.
type endpoint struct {
	Endpoint
	handler Handler
	stats   stats
}

// New makes a server of the service name.
func New(name string, opts ...Option) (*Server, error) {
	o := defaults(name)
	for _, opt := range opts {
		opt(&o)
	}
	if err := o.check(name); err != nil {
		return nil, err
	}
	s := &Server{options: o, name: name, started: time.Now(), endpoints: map[string]*endpoint{}}
	s.calls = gate{limit: int64(o.maxCalls), what: "concurrent calls"}
	s.streams = gate{limit: int64(o.maxStreams), what: "concurrent streams"}
	s.debug = gate{limit: debugCalls, what: "concurrent Debug calls"}
	s.registerDebug()
	return s, nil
}

// Err gives what registrations have refused so far; Serve would fail with it.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setup
}

// Name is the service's name.
func (s *Server) Name() string { return s.name }

// Handle registers h under e.Name. It refuses an invalid or taken name, and every name below "Debug."; Serve then
// fails with the same error.
func (s *Server) Handle(e Endpoint, h Handler) error {
	if strings.HasPrefix(e.Name, "Debug.") {
		return s.refuse(fmt.Errorf("server %s: endpoint %q: Debug.* is the framework's", s.name, e.Name))
	}
	return s.handle(e, h, s.middleware)
}

func (s *Server) handle(e Endpoint, h Handler, middleware []Middleware) error {
	if e.Kind == "" {
		e.Kind = Unary
	}
	switch {
	case !registry.ValidName(e.Name):
		return s.refuse(fmt.Errorf("server %s: endpoint %q: want letters, digits, '.', '_' or '-', %d bytes at most", s.name, e.Name, registry.MaxName))
	case h == nil:
		return s.refuse(fmt.Errorf("server %s: endpoint %q: no handler", s.name, e.Name))
	case !slices.Contains([]Kind{Unary, ServerStream, ClientStream, Bidi}, e.Kind):
		return s.refuse(fmt.Errorf("server %s: endpoint %q: unknown kind %q", s.name, e.Name, e.Kind))
	case e.Kind != Unary && e.Idempotent:
		return s.refuse(fmt.Errorf("server %s: endpoint %q: a stream is never sent again, so it cannot be idempotent", s.name, e.Name))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving {
		return fmt.Errorf("%w: endpoint %q", ErrServing, e.Name)
	}
	if _, taken := s.endpoints[e.Name]; taken {
		s.setup = errors.Join(s.setup, fmt.Errorf("server %s: endpoint %q is registered twice", s.name, e.Name))
		return s.setup
	}
	s.endpoints[e.Name] = &endpoint{Endpoint: e, handler: wrap(h, middleware)}
	return nil
}

// refuse remembers what is wrong with a registration, for Serve.
func (s *Server) refuse(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setup = errors.Join(s.setup, err)
	return err
}

func wrap(h Handler, middleware []Middleware) Handler {
	for _, m := range slices.Backward(middleware) {
		h = m(h)
	}
	return h
}

// Subscription is a topic's handler. Whoever owns the broker feeds it: package micro does for its services.
type Subscription struct {
	Topic   string
	Queue   string
	Options []broker.SubscribeOption

	server  *Server
	handler Handler
	stats   stats
}

// Subscribe registers h for the messages of topic. The options go to the broker.
func (s *Server) Subscribe(topic string, h Handler, opts ...broker.SubscribeOption) error {
	o, err := broker.ReadOptions(opts)
	if err == nil {
		err = broker.CheckTopic(topic)
	}
	if err == nil && h == nil {
		err = errors.New("no handler")
	}
	if err != nil {
		return s.refuse(fmt.Errorf("server %s: subscription: %w", s.name, err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving {
		return fmt.Errorf("%w: subscription of %q", ErrServing, topic)
	}
	s.subscriptions = append(s.subscriptions, &Subscription{
		Topic: topic, Queue: o.Queue, Options: opts, server: s, handler: wrap(h, s.middleware),
	})
	return nil
}

// Subscriptions gives what Subscribe registered.
func (s *Server) Subscriptions() []*Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.subscriptions)
}

// Endpoints gives what was registered, sorted by name, without Debug.*.
func (s *Server) Endpoints() []Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Endpoint
	for _, name := range slices.Sorted(maps.Keys(s.endpoints)) {
		if !strings.HasPrefix(name, "Debug.") {
			list = append(list, s.endpoints[name].Endpoint)
		}
	}
	return list
}

// Serve answers the connections of l until ctx ends. Then new calls are refused, those under way are waited for up to
// ShutdownTimeout, the rest have their contexts ended, and Serve returns nil; an error tells how many it cut. A server
// serves once. Serve owns l and closes it.
func (s *Server) Serve(ctx context.Context, l transport.Listener) error {
	s.mu.Lock()
	again, err := s.serving, s.setup
	s.serving = true
	s.mu.Unlock()
	if again || err != nil {
		return errors.Join(err, errIf(again, "server: Serve was called twice"), l.Close())
	}
	base, cut := context.WithCancel(context.Background())
	defer cut()
	r := &serving{Server: s, base: base, conns: map[transport.Conn]struct{}{}}
	if cs, ok := l.(transport.CallServer); ok {
		cs.ServeCalls(r.answer)
	}
	r.work.Go(func() { r.accept(l) })
	<-ctx.Done()
	return r.stop(l, cut)
}

func errIf(cond bool, text string) error {
	if cond {
		return errors.New(text)
	}
	return nil
}

// Stop makes the server refuse new calls, unrun, while Serve goes on with those under way: the first half of a drain.
func (s *Server) Stop() { s.stopping.Store(true) }

// gate counts what is under way and refuses beyond a limit.
type gate struct {
	limit int64
	count atomic.Int64
	what  string
}

func (g *gate) enter() error {
	if g.count.Add(1) > g.limit {
		g.count.Add(-1)
		return status.Refuse(status.ResourceExhausted, "overloaded: %d %s are under way", g.limit, g.what)
	}
	return nil
}

func (g *gate) leave() { g.count.Add(-1) }
