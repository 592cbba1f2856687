// Package server is the server of the HTTP registry, behind "micro registry". The doc of registry/http has its protocol, and is its client.
//
// A server holds its nodes in memory, with Data in a file too, or with Registry in a cluster's registry.
package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	stdhttp "net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/bodies"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/budget"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/hold"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/outgoing"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/store"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	leases "github.com/cb02dfca/micro/pkg/registry/internal/lease"
	"github.com/cb02dfca/micro/pkg/status"
)

// Options of New. The zero value is good for a server on loopback.
type Options struct {
	// Token, where it is set, must come with every request but /healthz, /readyz and the page at /, which holds no node.
	Token string
	// AllowedHosts are names beside localhost under which a server on loopback may be called.
	AllowedHosts []string
	// Insecure lets Serve listen beyond loopback without a token: whoever reaches it may register anything. The Logger is warned each minute.
	Insecure bool
	// ClientCerts says that the listener of Serve is a TLS listener that lets in whoever has a certificate of ours: that stands for
	// a token.
	ClientCerts bool

	// Data is the folder where nodes are kept, so that the next server there has them. It is made where it is not there.
	// Empty: in memory alone.
	Data string
	// Registry is another registry where the nodes are kept, as a cluster's: the server keeps none itself, and any number of servers
	// may stand before the same one. It is not with Data. It is not closed: that would withdraw the nodes.
	Registry registry.Registry
	// RegistryName names it, without its secrets, the same in all servers that stand before it.
	RegistryName string
	// Bridge is a registry whose nodes show as well while Serve runs, such as mDNS's: those that no owner has registered here. It is not
	// closed. Where clients are of other machines, nodes that listen on loopback are left out.
	Bridge registry.Registry

	TTL    time.Duration // of a node that is put without one; default 30 s
	MinTTL time.Duration // a shorter ttl is raised to it; default 1 s
	MaxTTL time.Duration // a longer ttl is cut to it, or refused for a node that is nobody's; default 1 h
	// Grace is how long the server says that it is starting: owners are to put their nodes again by then.
	// Default TTL. Negative: not at all.
	Grace time.Duration

	MaxNodes   int // of all services; default 100 000
	MaxService int // nodes of one service; default 10 000
	MaxWatches int // watches at one time; default 1000
	MaxConns   int // connections that Serve keeps; default 10 000
	// MaxWrites is how often a second one client may put and remove nodes; ten times as many may come at once. A client is
	// an address or, on this machine, a lease. Default 50.
	MaxWrites int

	// Logger is told what the server refuses and why. Nil: nobody is.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	wait(&o.TTL, 30*time.Second)
	wait(&o.MinTTL, min(time.Second, o.TTL))
	wait(&o.MaxTTL, max(time.Hour, o.TTL))
	wait(&o.Grace, o.TTL)
	set(&o.MaxNodes, 100_000)
	set(&o.MaxService, 10_000)
	set(&o.MaxWatches, 1000)
	set(&o.MaxConns, 10_000)
	set(&o.MaxWrites, 50)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.MinTTL < 0 || o.TTL < o.MinTTL || o.MaxTTL < o.TTL:
		return o, fmt.Errorf("registry: ttl %v is not between %v and %v", o.TTL, o.MinTTL, o.MaxTTL)
	case min(o.MaxNodes, o.MaxService, o.MaxWatches, o.MaxConns, o.MaxWrites) < 0:
		return o, errors.New("registry: a negative limit")
	case o.Registry != nil && (o.Data != "" || o.RegistryName == ""):
		return o, errors.New("registry: a server before another registry has no Data, and needs its name")
	}
	return o, wire.CheckToken(o.Token)
}

// Health is what /healthz tells.
type Health = wire.Health

// Server is the server of the HTTP registry. It is an [stdhttp.Handler]; Serve runs it with all limits.
type Server struct {
	o       Options
	held    hold.Holder
	nodes   *hub.Hub
	epoch   string
	bodies  *bodies.Bodies
	sent    *outgoing.Ledger
	metrics metrics
	policy  func() string // of the page
	started time.Time
	token   [sha256.Size]byte
	writes  *budget.Budget
	wrong   *budget.Budget  // tokens
	inner   stdhttp.Handler // without the checks of the host
	outer   stdhttp.Handler // with those of loopback

	life   context.Context // ends with Close
	end    context.CancelFunc
	mu     sync.Mutex
	counts int // watches

	busy sync.WaitGroup // with the bridge, and with warnings
	open atomic.Bool    // Serve listens beyond loopback
}

// New makes a server. Close it. A file in Data that is damaged, or another program's, is refused with a *[DamageError]. That Registry
// refuses its login is an error of the code that it has for that; that it is away is none.
func New(o Options) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	held, err := hold.New(hold.Options{Data: o.Data, Registry: o.Registry, RegistryName: o.RegistryName, MaxNodes: o.MaxNodes, MaxService: o.MaxService, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	s := &Server{
		o: o, held: held, nodes: held.Nodes(), epoch: held.Epoch(), started: time.Now(), policy: sync.OnceValue(pagePolicy),
		token: sha256.Sum256([]byte(o.Token)), writes: budget.New(o.MaxWrites, burstSeconds*o.MaxWrites), wrong: budget.New(authRate, authRate),
	}
	s.sent = outgoing.New(heldBytes, patience)
	s.bodies = bodies.New(s.nodes, s.epoch, s.starting)
	s.life, s.end = context.WithCancel(context.Background())
	mux := stdhttp.NewServeMux()
	mux.HandleFunc("PUT "+wire.NodesPath+"/{id}", s.paced(s.put))
	mux.HandleFunc("GET "+wire.NodesPath+"/{id}", s.node)
	mux.HandleFunc("DELETE "+wire.NodesPath+"/{id}", s.paced(s.remove))
	mux.HandleFunc("DELETE "+wire.NodesPath, s.paced(s.release))
	mux.HandleFunc("GET "+wire.NodesPath, s.list)
	mux.HandleFunc("GET "+wire.ServicesPath, s.services)
	mux.HandleFunc("GET "+wire.ServicesPath+"/{name}", s.get)
	mux.HandleFunc("GET "+wire.WatchPath, s.watch)
	mux.HandleFunc("GET "+wire.HealthPath, s.health)
	mux.HandleFunc("GET "+wire.ReadyPath, s.ready)
	mux.HandleFunc("GET "+wire.MetricsPath, s.metricsPage)
	for path, methods := range map[string]string{
		wire.NodesPath: "DELETE, GET, HEAD", wire.NodesPath + "/{id}": "DELETE, GET, HEAD, PUT", wire.ServicesPath: readOnly, wire.ServicesPath + "/{name}": readOnly,
		wire.WatchPath: readOnly, wire.HealthPath: readOnly, wire.ReadyPath: readOnly, wire.MetricsPath: readOnly, "/{$}": readOnly,
	} {
		mux.HandleFunc(path, func(w stdhttp.ResponseWriter, r *stdhttp.Request) {
			w.Header().Set("Allow", methods)
			s.refuse(w, stdhttp.StatusMethodNotAllowed, "%.20q is no method of %.100q: %s are", r.Method, r.URL.Path, methods)
		})
	}
	mux.HandleFunc("/", func(w stdhttp.ResponseWriter, r *stdhttp.Request) {
		s.refuse(w, status.NotFound, "no %s %.100q here: see /v1/nodes, /v1/services, /v1/watch and /healthz", r.Method, r.URL.Path)
	})
	s.inner = s.metrics.counted(s.admit(mux))
	s.outer = s.guard("127.0.0.1")
	return s, nil
}

// readOnly are the methods of most paths.
const readOnly = "GET, HEAD"

// guard puts the checks for a server that listens on address before the handler.
func (s *Server) guard(address string) stdhttp.Handler {
	return hostcheck.Wrap(s.inner, hostcheck.Options{Address: address, AllowedHosts: s.o.AllowedHosts})
}

// ServeHTTP answers a request as a server on loopback does: one whose Host or Origin is foreign it refuses, but for
// AllowedHosts. [Server.Serve] knows its listener and checks accordingly.
func (s *Server) ServeHTTP(w stdhttp.ResponseWriter, r *stdhttp.Request) { s.outer.ServeHTTP(w, r) }

// Close ends the watches, and drops all nodes but from Data. Requests after it get 503.
func (s *Server) Close() error {
	s.end()
	s.busy.Wait()
	return s.held.Close()
}

// Health tells what /healthz does.
func (s *Server) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := Health{
		Status: "ok", Epoch: s.epoch, Revision: s.nodes.Revision(), Nodes: s.nodes.Len(), Watches: s.counts,
		Uptime: time.Since(s.started).Round(time.Millisecond).String(),
	}
	if s.starting() {
		h.Status = "starting"
	}
	if state := s.held.State(); state != "" {
		h.Status = state
	}
	return h
}

// starting reports whether owners are expected who have not come back: not where their nodes are there already.
func (s *Server) starting() bool { return !s.held.Kept() && time.Since(s.started) < s.o.Grace }

// admit asks for the token, and turns requests away once the server is closed.
func (s *Server) admit(next stdhttp.Handler) stdhttp.Handler {
	return stdhttp.HandlerFunc(func(w stdhttp.ResponseWriter, r *stdhttp.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if s.life.Err() != nil {
			s.refuse(w, status.Unavailable, "the registry server stops")
			return
		}
		if r.URL.Path == "/" && (r.Method == stdhttp.MethodGet || r.Method == stdhttp.MethodHead) {
			if wantsPage(r) {
				s.page(w)
			} else {
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
				_, _ = w.Write([]byte(about)) // a client that has gone needs no answer
			}
			return
		}
		public := r.URL.Path == wire.HealthPath || r.URL.Path == wire.ReadyPath
		if !public && !s.nodes.Known() && r.URL.Path != wire.MetricsPath {
			w.Header().Set("Retry-After", "1")
			s.refuse(w, status.Unavailable, "the registry server has not reached its own registry %s yet", s.o.RegistryName)
			return
		}
		if s.o.Token != "" && !public {
			if s.barred(r) || !s.bearer(r.Header.Get("Authorization")) {
				s.unauthenticated(w, r)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// bearer reports whether a header Authorization carries the token.
func (s *Server) bearer(header string) bool {
	given, ok := strings.CutPrefix(header, "Bearer ")
	sum := sha256.Sum256([]byte(given))
	return ok && subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1
}

func (s *Server) put(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != wire.JSONType {
		s.refuse(w, status.UnsupportedMedia, "content type %.100q: want %s", r.Header.Get("Content-Type"), wire.JSONType)
		return
	}
	ttl, err := s.ttl(r.URL.Query().Get("ttl"))
	if err != nil {
		s.fail(w, err)
		return
	}
	secret, made := r.Header.Get(wire.LeaseHeader), ""
	free := r.URL.Query().Get("owner") == wire.Nobody
	if free && secret != "" {
		s.refuse(w, status.InvalidArgument, "owner=%s goes without %s", wire.Nobody, wire.LeaseHeader)
		return
	}
	if asked, _ := time.ParseDuration(r.URL.Query().Get("ttl")); free && asked > s.o.MaxTTL { // nobody would renew it
		s.refuse(w, status.InvalidArgument, "ttl %v: a node that is nobody's stays for %v at most", asked, s.o.MaxTTL)
		return
	}
	if secret == "" && !free {
		made = wire.Random(wire.MinSecret / 2)
		secret = made
	}
	n, sent, err := s.body(w, r)
	if err != nil {
		s.fail(w, err)
		return
	}
	if !free && !wire.ValidSecret(secret) {
		s.refuse(w, status.InvalidArgument, "%s: want %d to %d hexadecimal digits", wire.LeaseHeader, wire.MinSecret, wire.MaxSecret)
		return
	}
	var by hold.Owner
	if !free {
		by = sha256.Sum256([]byte(secret))
	}
	_, renewal := s.nodes.Lookup(n.ID)
	if err := s.held.Register(r.Context(), by, n, ttl); err != nil {
		s.fail(w, err)
		return
	}
	if sent != nil {
		s.bodies.Note(n, sent)
	}
	code := stdhttp.StatusCreated
	if renewal {
		code = stdhttp.StatusOK
	}
	s.answer(w, code, wire.Lease{Epoch: s.epoch, Revision: s.nodes.Revision(), TTL: ttl.String(), Lease: made})
}

// body reads the node of a registration. It gives the body too, unless that was put under this id before: a renewal is not read again.
func (s *Server) body(w stdhttp.ResponseWriter, r *stdhttp.Request) (registry.Node, []byte, error) {
	data, err := wire.ReadAll(stdhttp.MaxBytesReader(w, r.Body, registry.MaxRecord+1), registry.MaxRecord)
	var long *stdhttp.MaxBytesError
	switch {
	case errors.As(err, &long) || errors.Is(err, wire.ErrTooLong):
		return registry.Node{}, nil, status.New(status.TooLarge, "the record has over %d bytes", registry.MaxRecord)
	case err != nil:
		return registry.Node{}, nil, status.Wrap(err, status.InvalidArgument, "the body did not come whole")
	}
	id := r.PathValue("id")
	if n, ok := s.bodies.Sent(id, data); ok {
		return n, nil, nil
	}
	n, err := wire.DecodeNode(data)
	if err != nil {
		return registry.Node{}, nil, err
	}
	if n.ID != "" && n.ID != id {
		return registry.Node{}, nil, fmt.Errorf("%w: the path names the node %.300q, the body %.300q", registry.ErrInvalid, id, n.ID)
	}
	n.ID = id
	return n, data, nil
}

// ttl gives the ttl of a lease for the one that was asked for.
func (s *Server) ttl(asked string) (time.Duration, error) {
	if asked == "" {
		return s.o.TTL, nil
	}
	ttl, err := time.ParseDuration(asked)
	if err != nil || ttl <= 0 {
		return 0, fmt.Errorf("%w: ttl %.40q: want a duration over 0, such as 30s", registry.ErrInvalid, asked)
	}
	return min(max(ttl, s.o.MinTTL), s.o.MaxTTL), nil
}

func (s *Server) remove(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	id, service := r.PathValue("id"), r.URL.Query().Get("service")
	if r.URL.Query().Get("force") == "true" {
		s.evict(w, r, service, id)
		return
	}
	if err := s.held.Deregister(r.Context(), sha256.Sum256([]byte(r.Header.Get(wire.LeaseHeader))), service, id); err != nil {
		s.fail(w, err)
		return
	}
	w.WriteHeader(stdhttp.StatusNoContent)
}

// evict takes a node away, whoever owns it. That is for who holds the token, and without one for this machine's users.
func (s *Server) evict(w stdhttp.ResponseWriter, r *stdhttp.Request, service, id string) {
	if s.o.Token == "" && s.open.Load() && !s.o.ClientCerts {
		s.refuse(w, status.PermissionDenied, "a server without a token takes away no other owner's node")
		return
	}
	if err := s.held.Evict(r.Context(), service, id); err != nil {
		s.fail(w, err)
		return
	}
	s.o.Logger.Info("registry server took a node away that its owner did not", "node", id, "service", service)
	w.WriteHeader(stdhttp.StatusNoContent)
}

func (s *Server) release(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	secret := r.Header.Get(wire.LeaseHeader)
	if !wire.ValidSecret(secret) {
		s.refuse(w, status.InvalidArgument, "%s: want %d to %d hexadecimal digits", wire.LeaseHeader, wire.MinSecret, wire.MaxSecret)
		return
	}
	if err := s.held.Release(r.Context(), sha256.Sum256([]byte(secret))); err != nil {
		s.fail(w, err)
		return
	}
	w.WriteHeader(stdhttp.StatusNoContent)
}

func (s *Server) node(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	n, ok := s.nodes.Lookup(r.PathValue("id"))
	if !ok {
		s.refuse(w, status.NotFound, "no node %.300q", r.PathValue("id"))
		return
	}
	s.answer(w, stdhttp.StatusOK, n)
}

func (s *Server) list(w stdhttp.ResponseWriter, _ *stdhttp.Request) {
	pieces, _ := s.bodies.All()
	s.send(w, pieces...)
}

func (s *Server) get(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	name := r.PathValue("name")
	found := s.set(name)
	if name == "" || len(*found.Nodes) == 0 {
		s.refuse(w, status.NotFound, "no node of the service %.300q", name)
		return
	}
	s.send(w, s.pieces(found, wholeOf(*found.Nodes))...)
}

func (s *Server) set(service string) wire.Set {
	nodes, revision := s.nodes.Snapshot(service)
	return wire.Set{Epoch: s.epoch, Revision: revision, Starting: s.starting(), Nodes: &nodes}
}

func (s *Server) services(w stdhttp.ResponseWriter, _ *stdhttp.Request) {
	s.send(w, s.bodies.Services())
}

func (s *Server) health(w stdhttp.ResponseWriter, _ *stdhttp.Request) {
	s.answer(w, stdhttp.StatusOK, s.Health())
}

func (s *Server) answer(w stdhttp.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // what the server holds was validated
		s.refuse(w, status.Internal, "cannot encode the answer")
		return
	}
	w.Header().Set("Content-Type", wire.JSONType)
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // a client that has gone needs no answer
}

// send answers with a body in pieces.
func (s *Server) send(w stdhttp.ResponseWriter, pieces ...[]byte) {
	size := 0
	for _, piece := range pieces {
		size += len(piece)
	}
	w.Header().Set("Content-Type", wire.JSONType)
	w.Header().Set("Content-Length", strconv.Itoa(size))
	control := stdhttp.NewResponseController(w)
	line := s.sent.Hold(func() { _ = control.SetWriteDeadline(time.Unix(1, 0)) }, pieces)
	defer line.Done()
	for _, piece := range pieces {
		if _, err := w.Write(piece); err != nil {
			return // a client that has gone needs no answer, and one that does not read none either
		}
	}
}

// fail answers with an error of the table or of a request.
func (s *Server) fail(w stdhttp.ResponseWriter, err error) {
	var full *leases.FullError
	var stated *status.Error
	var taken *leases.ConflictError
	var noRoom *store.FullError
	var broken *store.FailedError
	switch {
	case errors.As(err, &noRoom):
		w.Header().Set("Retry-After", "1")
		s.refuse(w, status.ResourceExhausted, "the registry server's disk is full: it takes no new registrations, and renews those that it has")
	case errors.As(err, &broken):
		s.refuse(w, status.Unavailable, "the registry server's disk failed, and it stops")
	case errors.As(err, &stated):
		s.refuse(w, stated.Code, "%s", stated.Detail)
	case errors.As(err, &taken):
		if taken.Left > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(taken.Left/time.Second)+1))
		}
		s.refuse(w, status.AlreadyExists, "%s", err)
	case errors.As(err, &full):
		w.Header().Set("Retry-After", strconv.Itoa(int(s.o.TTL/time.Second)+1))
		s.refuse(w, status.ResourceExhausted, "%s", err)
	case errors.Is(err, registry.ErrInvalid):
		s.refuse(w, status.InvalidArgument, "%s", err)
	case errors.Is(err, registry.ErrClosed):
		s.refuse(w, status.Unavailable, "the registry server stops")
	case errors.Is(err, registry.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		s.refuse(w, status.Unavailable, "%s", err)
	case errors.Is(err, registry.ErrConflict):
		s.refuse(w, status.AlreadyExists, "%s", err)
	default:
		s.refuse(w, status.Internal, "%s", err)
	}
}

func (s *Server) refuse(w stdhttp.ResponseWriter, code status.Code, format string, args ...any) {
	e := status.New(code, format, args...)
	e.ID = wire.ErrorID
	s.o.Logger.Debug("registry server refuses a request", "code", int(code), "detail", e.Detail)
	hostcheck.Refuse(w, e)
}

// A DamageError says what is wrong with a file of nodes: where, and what.
type DamageError = store.DamageError

// ErrLocked: another server has the folder of the nodes.
var ErrLocked = store.ErrLocked

// Salvage takes what can still be read of a damaged file in a server's folder for data into a new one. The damaged file
// stays, under the name that is given. The new one has another epoch, so that owners put their nodes again.
func Salvage(data string) (nodes int, kept string, err error) { return store.Salvage(data) }
