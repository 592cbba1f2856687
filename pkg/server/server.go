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
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
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
	mounts        map[string]transport.Router // by a key of the header; not changed since Serve
	subscriptions []*Subscription
	setup         error // what registrations refused, so that Serve fails even where nobody looked at their errors
	serving       bool

	replies     []metadata.MD      // the headers of answers, by codec
	envelopes   []codec.Envelope   // those among the codecs, by codec; nil for others
	recognizers []codec.Recognizer // those among the codecs
	quick       *transport.Pace    // of what needs no handler
	exchanges   sync.Pool          // *Call, of calls and events
	contexts    sync.Pool          // *callctx.Slab

	stopping atomic.Bool
	calls    gate
	streams  gate
	debug    gate
}

// endpoint is a registered Endpoint, ready to run.
type endpoint struct {
	Endpoint
	handler Handler
	pace    *transport.Pace
	plain   atomic.Pointer[route] // of its latest plain call
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
	s := &Server{
		options: o, name: name, started: time.Now(), endpoints: map[string]*endpoint{}, quick: transport.NewPace(transport.PaceInline),
		calls:   gate{limit: int64(o.maxCalls), what: "concurrent calls"},
		streams: gate{limit: int64(o.maxStreams), what: "concurrent streams"},
		debug:   gate{limit: debugCalls, what: "concurrent Debug calls"},
	}
	for _, cd := range s.codecs {
		env, _ := cd.(codec.Envelope)
		s.replies, s.envelopes = append(s.replies, replyHeader(cd)), append(s.envelopes, env)
		if rec, ok := cd.(codec.Recognizer); ok {
			s.recognizers = append(s.recognizers, rec)
		}
	}
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
// fails with the same error. The options change e, as they do for handlers that are registered by their types.
func (s *Server) Handle(e Endpoint, h Handler, opts ...EndpointOption) error {
	for _, opt := range opts {
		opt(&e)
	}
	if isDebug(e.Name) {
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
	case e.Kind != Unary && e.mode != transport.PaceAdaptive:
		return s.refuse(fmt.Errorf("server %s: endpoint %q: a stream has a goroutine of its own, so Inline and Blocking say nothing of it", s.name, e.Name))
	case e.pooled && !e.poolable:
		return s.refuse(fmt.Errorf("server %s: endpoint %q: Pooled is for unary handlers with types", s.name, e.Name))
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
	s.endpoints[e.Name] = &endpoint{Endpoint: e, handler: wrap(h, middleware), pace: transport.NewPace(e.mode)}
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

// Endpoints gives what was registered, sorted by name, without Debug.*.
func (s *Server) Endpoints() []Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Endpoint
	for _, name := range s.names() {
		if !isDebug(name) {
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
	r := &serving{Server: s, base: base, topics: s.topics(), routes: routes{known: map[string]*transport.Route{}}, conns: map[transport.Conn]struct{}{}}
	if cs, ok := l.(transport.CallServer); ok {
		cs.ServeCalls(r.answer)
	}
	if es, ok := l.(transport.EndpointServer); ok {
		es.ServeEndpoints(served{s})
	}
	r.work.Go(func() { r.accept(l) })
	<-ctx.Done()
	return r.stop(l, cut)
}

// served is the server as a transport.EndpointServer sees it.
type served struct{ server *Server }

// names are those of the endpoints, in order. They are not changed once the server serves.
func (s *Server) names() []string { return slices.Sorted(maps.Keys(s.endpoints)) }

func (s served) Service() string { return s.server.name }
func (s served) Names() []string { return s.server.names() }

func (s served) Lookup(name string) (stream, known bool) {
	ep := s.server.endpoints[name]
	return ep != nil && ep.Kind != Unary, ep != nil
}

func errIf(cond bool, text string) error {
	if cond {
		return errors.New(text)
	}
	return nil
}

// Mount gives the unary calls that come over frames and whose header has the key, one of the framework's, to route: they are not the
// server's, and pass its middleware, limits and counters by. The HTTP broker receives its batches so. It comes before
// Serve; a key that is not the framework's, or is mounted already, is refused.
func (s *Server) Mount(key string, route transport.Router) error {
	if !transport.Reserved(key) || route == nil {
		return s.refuse(fmt.Errorf("server %s: Mount %q: want a header of the framework's, and a router", s.name, key))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving {
		return fmt.Errorf("%w: mount of %q", ErrServing, key)
	}
	if _, taken := s.mounts[key]; taken {
		s.setup = errors.Join(s.setup, fmt.Errorf("server %s: %q is mounted twice", s.name, key))
		return s.setup
	}
	if s.mounts == nil {
		s.mounts = map[string]transport.Router{}
	}
	s.mounts[key] = route
	return nil
}

// Stop makes the server refuse new calls, unrun, while Serve goes on with those under way: the first half of a drain.
func (s *Server) Stop() { s.stopping.Store(true) }

// gate counts what is under way and refuses beyond a limit. It has its line of the cache for itself: each call writes to it,
// from whatever core it runs on.
type gate struct {
	_     [64]byte
	limit int64
	count atomic.Int64
	what  string
	_     [64]byte
}

func (g *gate) enter() error {
	if g.count.Add(1) > g.limit {
		g.count.Add(-1)
		return status.Refuse(status.ResourceExhausted, "overloaded: %d %s are under way", g.limit, g.what)
	}
	return nil
}

func (g *gate) leave() { g.count.Add(-1) }
