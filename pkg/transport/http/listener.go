package http

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/link"
)

// The limits of HTTP/2 on a listener.
const (
	maxStreams    = 250              // requests at a time on a connection
	h2PingAfter   = 30 * time.Second // silence after which a connection is asked whether it lives
	h2PingTimeout = 15 * time.Second
)

// closeGrace is how long Close waits for plain calls whose context it has ended.
const closeGrace = time.Second

// Listener serves one port: plain HTTP through the CallHandler, upgraded connections through Accept, and what
// HandleHTTP mounted.
type Listener struct {
	t      *Transport
	ln     *limitListener
	server *http.Server
	calls  transport.CallHandler
	names  transport.Endpoints // nil where nobody has told
	mounts []mount
	beside []transport.Listener // of other protocols

	start    sync.Once
	stop     sync.Once
	accepted chan transport.Conn
	back     chan net.Conn // connections that net/http gets once more
	done     chan struct{} // closed when nothing more is accepted
	serving  sync.WaitGroup
	messages sync.Pool // *exchange

	mu       sync.Mutex
	conns    map[*link.Conn]struct{} // upgraded ones that live
	mucp     map[*mucpConn]struct{}  // those of go-micro clients
	closing  bool                    // no plain call begins any more
	handlers sync.WaitGroup          // plain calls and upgrades under way
}

type mount struct {
	match   func(*http.Request) bool
	handler http.Handler
}

var (
	_ transport.Listener       = (*Listener)(nil)
	_ transport.CallServer     = (*Listener)(nil)
	_ transport.EndpointServer = (*Listener)(nil)
	_ transport.Shutdowner     = (*Listener)(nil)
)

// Listen takes addr, "host:port". It gives a *Listener, which takes connections from the first Accept on; until then
// they wait in the system's queue.
func (t *Transport) Listen(ctx context.Context, addr string) (transport.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, hostcheck.Network(addr), addr)
	if err != nil {
		return nil, fmt.Errorf("transport/http: %w", err)
	}
	return t.Serve(ln)
}

// Serve gives a *Listener over a socket that listens already: one that the parent process opened. It owns ln from now
// on, and closes it where it fails.
func (t *Transport) Serve(ln net.Listener) (transport.Listener, error) {
	if c := t.o.TLSConfig; c != nil && len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		_ = ln.Close()
		return nil, fmt.Errorf("transport/http: listen on %s: the TLS configuration has no certificate (cert-file, key-file)", ln.Addr())
	}
	l := &Listener{
		t:        t,
		ln:       newLimitListener(ln, t.o.MaxConns, t.o.Logger),
		accepted: make(chan transport.Conn),
		done:     make(chan struct{}),
		conns:    make(map[*link.Conn]struct{}),
		mucp:     make(map[*mucpConn]struct{}),
		back:     make(chan net.Conn),
	}
	l.messages.New = func() any { return new(exchange) }
	handler := hostcheck.Wrap(http.HandlerFunc(l.route), hostcheck.Options{Address: l.Addr(), AllowedHosts: t.o.AllowedHosts})
	handler = l.timed(handler)
	for _, b := range t.o.Beside {
		handler = l.fork(b, handler)
	}
	l.server = l.newServer(handler)
	return l, nil
}

// fork has requests for another protocol served beside the others.
func (l *Listener) fork(b Beside, others http.Handler) http.Handler {
	beside, asked := b.Beside(l.Addr())
	l.beside = append(l.beside, beside)
	if _, lasting := b.(Lasting); !lasting {
		asked = l.timed(asked)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.Asks(r) {
			asked.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})
}

func (l *Listener) newServer(handler http.Handler) *http.Server {
	o := &l.t.o
	s := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: o.HeaderTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.MaxHeader,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			SendPingTimeout:      h2PingAfter,
			PingTimeout:          h2PingTimeout,
			WriteByteTimeout:     o.WriteTimeout,
		},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	if o.TLSConfig != nil {
		s.TLSConfig = o.TLSConfig.Clone()
		s.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	}
	return s
}

// ServeCalls sets the handler of plain HTTP calls, and of those of the protocols beside. Call it before the first Accept.
func (l *Listener) ServeCalls(h transport.CallHandler) {
	l.calls = h
	for _, b := range l.beside {
		if cs, ok := b.(transport.CallServer); ok {
			cs.ServeCalls(h)
		}
	}
}

// ServeEndpoints tells which endpoints stream, which go-micro's clients do not always say, and gives it to the protocols beside. Call it
// before the first Accept.
func (l *Listener) ServeEndpoints(e transport.Endpoints) {
	l.names = e
	for _, b := range l.beside {
		if es, ok := b.(transport.EndpointServer); ok {
			es.ServeEndpoints(e)
		}
	}
}

// HandleHTTP gives the requests that match to h, behind the listener's checks of Host and Origin. Where several match,
// the first mounted has it; requests for the upgrade are matched too. The times of reading the body are the listener's; its
// size, and the time of writing the answer, are h's to limit. Call it before the first Accept.
func (l *Listener) HandleHTTP(match func(*http.Request) bool, h http.Handler) {
	l.mounts = append(l.mounts, mount{match, h})
}

// Accept waits for the next upgraded connection. After Close or Shutdown it returns transport.ErrClosed.
func (l *Listener) Accept() (transport.Conn, error) {
	l.start.Do(l.begin)
	select {
	case <-l.done:
		return nil, transport.ErrClosed
	default:
	}
	select {
	case <-l.done:
		return nil, transport.ErrClosed
	case c := <-l.accepted:
		select {
		case <-l.done: // Shutdown may already have told those that it knew
			turnAway(c)
			return nil, transport.ErrClosed
		default:
			return c, nil
		}
	}
}

// turnAway closes a connection that came too late.
func turnAway(c transport.Conn) {
	if polite, ok := c.(interface{ TurnAway() }); ok {
		polite.TurnAway() // tells that nothing ran
		return
	}
	_ = c.Close()
}

func (l *Listener) begin() {
	l.serving.Go(l.serve)
	l.serving.Go(func() { _ = l.server.Serve(&returned{l}) }) // it ends with the server
	for _, b := range l.beside {
		l.serving.Go(func() { l.acceptBeside(b) })
	}
}

// acceptBeside takes the connections of another protocol.
func (l *Listener) acceptBeside(beside transport.Listener) {
	for {
		c, err := beside.Accept()
		if err != nil {
			return
		}
		select {
		case l.accepted <- c:
		case <-l.done:
			turnAway(c)
		}
	}
}

func (l *Listener) serve() {
	var err error
	if l.t.o.TLSConfig != nil {
		err = l.server.ServeTLS(l.ln, "", "")
	} else {
		err = l.server.Serve(l.ln)
	}
	select {
	case <-l.done: // finish closes the socket before net/http knows of it
	default:
		l.t.o.Logger.Error("transport/http: the listener has failed", "address", l.Addr(), "error", err)
	}
}

// Addr is the address that was taken, "127.0.0.1:8080".
func (l *Listener) Addr() string { return l.ln.Addr().String() }

// Close stops accepting, frees the address, and closes the plain HTTP connections: the contexts of their calls end, and
// Close waits up to a second for the calls. Accepted connections live on.
func (l *Listener) Close() error {
	l.finish()
	l.server.Close()
	for _, c := range l.mucpConns() {
		c.stop()
	}
	for _, b := range l.beside {
		_ = b.Close()
	}
	l.serving.Wait()
	if !l.settle(closeGrace) {
		l.t.o.Logger.Warn("transport/http: closed while calls are still running", "address", l.Addr())
	}
	return nil
}

// settle waits for the handlers, and reports whether they have ended within limit.
func (l *Listener) settle(limit time.Duration) bool {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	go func() { // outlives this function only where a handler outlives its context
		defer cancel()
		l.handlers.Wait()
	}()
	<-ctx.Done()
	return errors.Is(ctx.Err(), context.Canceled)
}

// enter counts a handler in; false when the listener is closed.
func (l *Listener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing {
		l.handlers.Add(1)
	}
	return !l.closing
}

// finish stops accepting.
func (l *Listener) finish() {
	l.stop.Do(func() { close(l.done) })
	l.start.Do(func() {}) // a later Accept must not start serving
	l.ln.Close()
}

// Shutdown stops accepting and frees the address, lets plain calls finish, sends GoAway on the upgraded connections, and
// closes each when its calls and streams were answered. It returns when all are closed, or with ctx's error.
func (l *Listener) Shutdown(ctx context.Context) error {
	l.finish()
	var wg sync.WaitGroup
	l.mu.Lock()
	for c := range l.conns {
		wg.Go(func() { c.Drain(ctx) })
	}
	l.mu.Unlock()
	for _, c := range l.mucpConns() {
		wg.Go(func() { c.drain(ctx) })
	}
	for _, b := range l.beside {
		wg.Go(func() { closeBeside(ctx, b) })
	}
	err := l.server.Shutdown(ctx)
	wg.Wait()
	l.serving.Wait()
	if err == nil {
		l.settle(closeGrace) // net/http has waited for the calls, and not for upgrades
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("transport/http: shut down: %w", err)
	}
	return ctx.Err()
}

// closeBeside drains another protocol's connections, where they can be.
func closeBeside(ctx context.Context, beside transport.Listener) {
	if sh, ok := beside.(transport.Shutdowner); ok {
		_ = sh.Shutdown(ctx) // its error is ctx's, which the caller looks at
	}
	_ = beside.Close()
}

// adopt makes a hijacked connection one of the listener's and hands it to Accept.
func (l *Listener) adopt(nc net.Conn) {
	c := l.t.newConn(nc, nil, true)
	c.OnClose = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, c)
	}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	select {
	case l.accepted <- c:
	case <-l.done:
		c.TurnAway()
	}
}

// mucpConns gives the connections of go-micro clients.
func (l *Listener) mucpConns() []*mucpConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.mucp))
}

// returned is the net.Listener of connections that net/http had, and gets once more.
type returned struct{ *Listener }

// Accept implements net.Listener.
func (r *returned) Accept() (net.Conn, error) {
	select {
	case nc := <-r.back:
		return nc, nil
	case <-r.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The Listener's own end is its end.
func (r *returned) Close() error { return nil }

// Addr implements net.Listener.
func (r *returned) Addr() net.Addr { return r.ln.Addr() }

// handBack gives net/http a connection once more. early is what was read of it.
func (l *Listener) handBack(nc net.Conn, early []byte) {
	c, ok := nc.(*limitConn)
	if !ok {
		nc.Close()
		return
	}
	c.early = early
	_ = nc.SetDeadline(time.Time{}) // fails on a connection that has gone, as what follows will
	select {
	case l.back <- nc:
	case <-l.done:
		nc.Close()
	}
}
