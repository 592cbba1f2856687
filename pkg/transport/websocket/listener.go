package websocket

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// The subprotocols: what a WebSocket carries. One that asks for none carries JSON.
const (
	protocolBinary = "micro.v1"      // binary messages, each a frame
	protocolText   = "micro.json.v1" // text messages, each JSON
	protocolToken  = "micro.bearer." // and the token in base64url: asked for beside the other, and never agreed on
)

// maxHead is the limit of a request's head in bytes.
const maxHead = 32 << 10

// sender names this package in errors that it answers with.
const sender = "micro.transport"

// Listener yields WebSockets: of a port of its own, or of another listener's.
type Listener struct {
	t      *Transport
	addr   string
	ln     net.Listener // nil on another's port
	server *http.Server // likewise

	start    sync.Once
	stop     sync.Once
	accepted chan *Conn
	done     chan struct{} // closed when nothing more is accepted
	serving  sync.WaitGroup

	mu       sync.Mutex
	conns    map[*Conn]struct{} // those that live
	taken    int                // those, and those that are about to be
	closing  bool
	upgrades sync.WaitGroup // requests that are being answered
}

var (
	_ transport.Listener   = (*Listener)(nil)
	_ transport.Shutdowner = (*Listener)(nil)
)

func (t *Transport) newListener(addr string) *Listener {
	return &Listener{t: t, addr: addr, accepted: make(chan *Conn), done: make(chan struct{}), conns: make(map[*Conn]struct{})}
}

// handler serves the requests for WebSockets, behind the checks of Host and, on loopback, Origin.
func (l *Listener) handler() http.Handler {
	return hostcheck.Wrap(http.HandlerFunc(l.upgrade), hostcheck.Options{Address: l.addr, AllowedHosts: l.t.o.AllowedHosts, AllowedOrigins: l.t.o.Origins})
}

// Listen takes addr, "host:port". It gives a *Listener, which takes connections from the first Accept on; until then
// they wait in the system's queue.
func (t *Transport) Listen(ctx context.Context, addr string) (transport.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, hostcheck.Network(addr), addr)
	if err != nil {
		return nil, fmt.Errorf("transport/websocket: %w", err)
	}
	return t.Serve(ln)
}

// Serve gives a *Listener over a socket that listens already: one that the parent process opened. It owns ln from now
// on, and closes it where it fails: beyond loopback it wants TLS or a token, or Insecure.
func (t *Transport) Serve(ln net.Listener) (transport.Listener, error) {
	if c := t.o.TLSConfig; c != nil && len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		_ = ln.Close()
		return nil, fmt.Errorf("transport/websocket: listen on %s: the TLS configuration has no certificate (cert-file, key-file)", ln.Addr())
	}
	if addr := ln.Addr().String(); t.o.TLSConfig == nil && t.o.Token == "" && !hostcheck.Loopback(addr) {
		if !t.o.Insecure {
			_ = ln.Close()
			return nil, fmt.Errorf("transport/websocket: %s is not loopback, and without TLS and a token whoever reaches it may call: use wss with cert-file and key-file, "+
				"set %s or token-file, or insecure=true", addr, EnvToken)
		}
		t.o.Logger.Warn("insecure: whoever reaches the WebSocket may call", "address", addr)
	}
	l := t.newListener(ln.Addr().String())
	l.ln = ln
	l.server = &http.Server{
		Handler:           l.handler(),
		ReadHeaderTimeout: t.o.HeaderTimeout,
		ReadTimeout:       t.o.BodyTimeout,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(t.o.Logger.Handler(), slog.LevelDebug),
		TLSConfig:         t.o.TLSConfig,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	l.server.SetKeepAlivesEnabled(false) // a request that is no upgrade is the connection's last
	return l, nil
}

// Accept waits for the next WebSocket. After Close or Shutdown it returns transport.ErrClosed.
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
		select {
		case <-l.done: // Shutdown may already have told those that it knew
			c.TurnAway()
			return nil, transport.ErrClosed
		default:
			return c, nil
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
	case <-l.done:
	default:
		l.t.o.Logger.Error("transport/websocket: the listener has failed", "address", l.addr, "error", err)
	}
}

// Addr is the address that was taken, "127.0.0.1:8080".
func (l *Listener) Addr() string { return l.addr }

// Close stops accepting and frees the address. WebSockets that were accepted live on.
func (l *Listener) Close() error {
	l.finish()
	if l.server != nil {
		_ = l.server.Close()
	}
	l.serving.Wait()
	l.upgrades.Wait()
	return nil
}

// finish stops accepting.
func (l *Listener) finish() {
	l.stop.Do(func() { close(l.done) })
	l.start.Do(func() {}) // a later Accept must not start serving
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	if l.ln != nil {
		_ = l.ln.Close()
	}
}

// Shutdown stops accepting and frees the address, sends GoAway on the WebSockets, and closes each when its calls and streams
// were answered. It returns when all are closed, or with ctx's error.
func (l *Listener) Shutdown(ctx context.Context) error {
	l.finish()
	var wg sync.WaitGroup
	l.mu.Lock()
	for c := range l.conns {
		wg.Go(func() { c.Drain(ctx) })
	}
	l.mu.Unlock()
	wg.Wait()
	err := l.Close()
	return errors.Join(err, ctx.Err())
}

// enter counts an upgrade in, within the limit of WebSockets.
func (l *Listener) enter() *status.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closing:
		return status.Refuse(status.Unavailable, "the server is shutting down")
	case l.taken >= l.t.o.MaxConns:
		return status.Refuse(status.Unavailable, "there are %d WebSockets, and no more are taken", l.taken)
	}
	l.taken++
	l.upgrades.Add(1)
	return nil
}

// leave counts a WebSocket out that has ended, or was none.
func (l *Listener) leave(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken--
	delete(l.conns, c)
}

// upgrade makes a WebSocket of a request, and hands it to Accept.
func (l *Listener) upgrade(w http.ResponseWriter, r *http.Request) {
	page, e := l.check(w, r)
	if e == nil {
		e = l.enter()
	}
	if e != nil {
		e.ID = sender
		hostcheck.Refuse(w, e)
		return
	}
	defer l.upgrades.Done()
	hijacking := &hijacking{ResponseWriter: w, o: &l.t.o}
	o := &websocket.AcceptOptions{Subprotocols: []string{protocolBinary, protocolText}, InsecureSkipVerify: true} // check has looked at Origin
	ws, err := websocket.Accept(hijacking, r, o)
	if err != nil {
		l.leave(nil)
		if hijacking.box != nil {
			_ = hijacking.box.cut()
		}
		return
	}
	l.mu.Lock() // newConn's connection may end at once
	c := newConn(ws, hijacking.box, r.RemoteAddr, &l.t.o, page, l.leave)
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	select {
	case l.accepted <- c:
	case <-l.done:
		c.TurnAway()
	}
}

// check decides whether a request becomes a WebSocket, and whether of a page's form.
func (l *Listener) check(w http.ResponseWriter, r *http.Request) (page bool, e *status.Error) {
	o := &l.t.o
	switch {
	case r.URL.Path != o.Path:
		return false, status.New(status.NotFound, "there is no WebSocket at %.100q", r.URL.Path)
	case !l.t.Asks(r):
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		return false, status.New(http.StatusUpgradeRequired, "there is a WebSocket here, and nothing else")
	case !o.takes(r):
		return false, status.Refuse(status.PermissionDenied, "pages of the web origin %.100q are not taken: allow it", r.Header.Get("Origin"))
	}
	offered := tokens(r.Header, "Sec-Websocket-Protocol")
	if !o.admits(r, offered) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		return false, status.Refuse(status.Unauthenticated, "the token is wrong, or there is none")
	}
	switch {
	case slices.Contains(offered, protocolBinary):
		return false, nil
	case slices.Contains(offered, protocolText), len(offered) == 0:
		return true, nil
	}
	return false, status.New(status.InvalidArgument, "none of the subprotocols is spoken here: want %s, or %s", protocolText, protocolBinary)
}

// takes reports whether a request's Origin is none, the server's own, or allowed.
func (o *Options) takes(r *http.Request) bool {
	origins := r.Header["Origin"]
	if len(origins) == 0 || slices.Contains(o.Origins, "*") {
		return true
	}
	u, err := url.Parse(origins[0])
	if err != nil || len(origins) > 1 {
		return false
	}
	return u.Host != "" && strings.EqualFold(u.Host, r.Host) || slices.Contains(o.Origins, strings.ToLower(origins[0]))
}

// admits reports whether a request has the token, where one is asked for: in Authorization, or, of a page, which cannot set
// that, as a subprotocol.
func (o *Options) admits(r *http.Request, offered []string) bool {
	if o.Token == "" {
		return true
	}
	if scheme, token, found := strings.Cut(r.Header.Get("Authorization"), " "); found && strings.EqualFold(scheme, "Bearer") {
		return same(strings.TrimSpace(token), o.Token)
	}
	for _, p := range offered {
		if encoded, found := strings.CutPrefix(p, protocolToken); found {
			token, err := base64.RawURLEncoding.DecodeString(encoded)
			return err == nil && same(string(token), o.Token)
		}
	}
	return false
}

// same compares in a time that tells nothing of either.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// tokens gives the elements of a header that is a list.
func tokens(h http.Header, name string) (list []string) {
	for _, v := range h[name] {
		for t := range strings.SplitSeq(v, ",") {
			if t = strings.TrimSpace(t); t != "" {
				list = append(list, t)
			}
		}
	}
	return list
}

// lists reports whether a header that is a list has an element, in whatever case.
func lists(h http.Header, name, element string) bool {
	return slices.ContainsFunc(tokens(h, name), func(t string) bool { return strings.EqualFold(t, element) })
}

// hijacking puts an outbox between a WebSocket and its connection.
type hijacking struct {
	http.ResponseWriter
	o   *Options
	box *outbox
}

// Hijack implements http.Hijacker.
func (h *hijacking) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		_ = nc.Close()
		return nil, nil, err
	}
	h.box = newOutbox(nc, h.o)
	return h.box, bufio.NewReadWriter(rw.Reader, bufio.NewWriter(h.box)), nil
}
