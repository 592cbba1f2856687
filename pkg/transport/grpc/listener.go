package grpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/internal/socket"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc/reflection"
)

// The limits of HTTP/2 on a listener of its own port.
const (
	maxStreams    = 250              // calls at a time on a connection
	maxHead       = 32 << 10         // bytes of a request's headers
	h2PingAfter   = 30 * time.Second // silence after which a connection is asked whether it lives
	h2PingTimeout = 15 * time.Second
)

// closeGrace is how long Close waits for calls whose context it has ended.
const closeGrace = time.Second

// Listener serves gRPC: unary calls through the CallHandler, and streams, each of which is a connection, through Accept.
type Listener struct {
	t      *Transport
	addr   string
	ln     net.Listener // nil on another's port
	server *http.Server // likewise

	calls     transport.CallHandler
	endpoints transport.Endpoints // nil where there is no server that tells
	spelled   map[string]string   // endpoints by the names that a .proto file can spell, where these are others
	services  map[string]Handler
	reflected func() (*reflection.Server, error) // nil where there is no server that tells

	start     sync.Once
	stop      sync.Once
	accepted  chan transport.Conn
	done      chan struct{} // closed when nothing more is accepted
	serving   sync.WaitGroup
	exchanges sync.Pool // of *exchange

	mu       sync.Mutex
	closing  bool
	handlers sync.WaitGroup // requests that are being served
}

var (
	_ transport.Listener       = (*Listener)(nil)
	_ transport.CallServer     = (*Listener)(nil)
	_ transport.EndpointServer = (*Listener)(nil)
	_ transport.Shutdowner     = (*Listener)(nil)
)

func (t *Transport) newListener(addr string) *Listener {
	l := &Listener{t: t, addr: addr, accepted: make(chan transport.Conn), done: make(chan struct{})}
	l.services = map[string]Handler{healthService: l.serveHealth}
	maps.Copy(l.services, t.o.Services)
	return l
}

// handler serves gRPC's requests, behind the checks of the authority.
func (l *Listener) handler() http.Handler {
	return hostcheck.Wrap(http.HandlerFunc(l.serveHTTP), hostcheck.Options{Address: l.addr, AllowedHosts: l.t.o.AllowedHosts})
}

// Listen takes addr, "host:port". It gives a *Listener, which takes connections from the first Accept on; until then
// they wait in the system's queue.
func (t *Transport) Listen(ctx context.Context, addr string) (transport.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, hostcheck.Network(addr), addr)
	if err != nil {
		return nil, fmt.Errorf("transport/grpc: %w", err)
	}
	return t.Serve(ln)
}

// Serve gives a *Listener over a socket that listens already: one that the parent process opened. It owns ln from now
// on, and closes it where it fails.
func (t *Transport) Serve(ln net.Listener) (transport.Listener, error) {
	if c := t.o.TLSConfig; c != nil && len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		_ = ln.Close()
		return nil, fmt.Errorf("transport/grpc: listen on %s: the TLS configuration has no certificate (cert-file, key-file)", ln.Addr())
	}
	l := t.newListener(ln.Addr().String())
	l.ln = newLimited(ln, t.o.MaxConns)
	l.server = &http.Server{
		Handler:           l.handler(),
		ReadHeaderTimeout: t.o.DialTimeout,
		IdleTimeout:       t.o.IdleTimeout,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(t.o.Logger.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			SendPingTimeout:      h2PingAfter,
			PingTimeout:          h2PingTimeout,
			WriteByteTimeout:     t.o.WriteTimeout,
		},
	}
	l.server.Protocols.SetHTTP2(true)
	l.server.Protocols.SetUnencryptedHTTP2(true)
	if t.o.TLSConfig != nil {
		l.server.TLSConfig = t.o.TLSConfig.Clone()
	}
	return l, nil
}

// ServeCalls sets the handler of unary calls. Call it before the first Accept.
func (l *Listener) ServeCalls(h transport.CallHandler) { l.calls = h }

// ServeEndpoints sets what tells which endpoints there are, and which of them stream. Without it each method is one that streams, and
// whose name is the endpoint's. Call it before the first Accept.
func (l *Listener) ServeEndpoints(e transport.Endpoints) {
	l.endpoints, l.spelled = e, map[string]string{}
	for _, name := range e.Names() {
		if spelled := strings.Map(spell, name); spelled != name {
			l.spelled[spelled] = name
		}
	}
	l.reflect(e)
}

// spell gives an underscore for what the names of a .proto file do not have.
func spell(r rune) rune {
	if r == '.' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' {
		return r
	}
	return '_'
}

// Accept waits for the next stream. After Close or Shutdown it returns transport.ErrClosed.
func (l *Listener) Accept() (transport.Conn, error) {
	if l.server != nil {
		l.start.Do(func() { l.serving.Go(l.serve) })
	}
	select {
	case <-l.done:
		return nil, transport.ErrClosed
	default:
	}
	select {
	case <-l.done:
		return nil, transport.ErrClosed
	case c := <-l.accepted:
		return c, nil
	}
}

func (l *Listener) serve() {
	var err error
	if l.t.o.TLSConfig != nil {
		err = l.server.ServeTLS(l.ln, "", "")
	} else {
		err = l.server.Serve(l.ln)
	}
	if !errors.Is(err, http.ErrServerClosed) && !l.stopped() {
		l.t.o.Logger.Error("transport/grpc: the listener has failed", "address", l.addr, "error", err)
	}
}

// Addr is the address that was taken, "127.0.0.1:8080".
func (l *Listener) Addr() string { return l.addr }

// stopped reports whether nothing more is accepted.
func (l *Listener) stopped() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// finish stops accepting.
func (l *Listener) finish() {
	l.stop.Do(func() { close(l.done) })
	l.start.Do(func() {}) // a later Accept must not start serving
	if l.ln != nil {
		_ = l.ln.Close()
	}
}

// Close stops accepting, and frees the address. On a port of its own it breaks the calls and streams, too, and waits for
// them up to a second; another's port ends its connections itself.
func (l *Listener) Close() error {
	l.finish()
	if l.server != nil {
		_ = l.server.Close()
	}
	l.serving.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	if !l.settle(ctx) {
		l.t.o.Logger.Warn("transport/grpc: closed while calls are still running", "address", l.addr)
	}
	return nil
}

// Shutdown stops accepting and frees the address, lets the calls and streams under way finish, and answers others with UNAVAILABLE. It
// returns when all have ended, or with ctx's error.
func (l *Listener) Shutdown(ctx context.Context) error {
	l.finish()
	if l.server != nil {
		_ = l.server.Shutdown(ctx) // GOAWAY; its error is ctx's
		l.serving.Wait()
	}
	l.settle(ctx)
	return ctx.Err()
}

// settle waits for the requests that are being served, and reports whether they have ended before ctx did.
func (l *Listener) settle(ctx context.Context) bool {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	ended := make(chan struct{})
	go func() { // outlives this function only where a handler outlives its context
		l.handlers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// enter counts a request in; false when the listener is closed.
func (l *Listener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing {
		l.handlers.Add(1)
	}
	return !l.closing
}

// serveHTTP serves a request that passed the checks of its authority.
func (l *Listener) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if !l.t.Asks(r) { // on a port of its own
		hostcheck.Refuse(w, status.New(status.UnsupportedMedia, "gRPC is spoken here, and nothing else: want Content-Type %s", mediaType))
		return
	}
	x, _ := l.exchanges.Get().(*exchange)
	if x == nil {
		x = newExchange()
	}
	x.begin(l, w, r)
	if l.stopped() || !l.enter() {
		x.fail(status.Refuse(status.Unavailable, "the server is shutting down"))
		return
	}
	defer l.handlers.Done()
	if l.route(x) {
		x.clear()
		l.exchanges.Put(x)
	}
}

// route serves a request, and reports whether nobody else has x any more.
func (l *Listener) route(x *exchange) bool {
	if e := x.read(); e != nil {
		x.fail(e)
		return true
	}
	path := strings.TrimPrefix(x.r.URL.Path, "/")
	at := strings.LastIndexByte(path, '/')
	if at < 0 {
		x.fail(status.New(status.Unimplemented, "path %.100q is no method: want one such as /greeter.Say/Hello", x.r.URL.Path))
		return true
	}
	if h := l.services[path[:at]]; h != nil {
		l.serveHandler(x, h, path[at+1:])
		return true
	}
	name, stream, known := l.find(path[:at] + "." + path[at+1:])
	switch {
	case !known:
		x.fail(status.Refuse(status.Unimplemented, "there is no method %.100q", x.r.URL.Path))
	case stream:
		x.serveStream(name)
		return false // a handler may still hold the connection, which is x's
	case l.calls == nil:
		x.fail(status.Refuse(status.Unimplemented, "no calls are served here"))
	default:
		x.serveCall(name)
	}
	return true
}

// find gives the endpoint that a method names: what stands before the handler's name may be a service's name, a package, or nothing.
func (l *Listener) find(name string) (endpoint string, stream, known bool) {
	if l.endpoints == nil {
		return name, true, true
	}
	asked := name
	for {
		endpoint = name
		if stream, known = l.endpoints.Lookup(endpoint); !known {
			if endpoint = l.spelled[name]; endpoint != "" {
				stream, known = l.endpoints.Lookup(endpoint)
			}
		}
		if known {
			return endpoint, stream, true
		}
		_, rest, more := strings.Cut(name, ".")
		if !more {
			return l.findReflected(asked)
		}
		name = rest
	}
}

// limited closes connections beyond a number of them at once: a peer learns that without waiting.
type limited struct {
	net.Listener
	room chan struct{}
}

func newLimited(ln net.Listener, limit int) *limited {
	return &limited{ln, make(chan struct{}, limit)}
}

// Accept waits for the next connection within the limit.
func (l *limited) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.room <- struct{}{}:
			return &limitedConn{Conn: socket.Conn(nc), leave: func() { <-l.room }}, nil
		default:
			_ = nc.Close()
		}
	}
}

// limitedConn counts itself out when it is closed.
type limitedConn struct {
	net.Conn
	once  sync.Once
	leave func()
}

func (c *limitedConn) Close() error {
	c.once.Do(c.leave)
	return c.Conn.Close()
}
