package http

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	stdhttp "net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	leases "github.com/cb02dfca/micro/pkg/registry/internal/lease"
	"github.com/cb02dfca/micro/pkg/status"
)

// ServerOptions of NewServer. The zero value is good for a server on loopback.
type ServerOptions struct {
	// Token, where it is set, must come with every request but /healthz.
	Token string
	// AllowedHosts are names beside localhost under which a server on loopback may be called.
	AllowedHosts []string
	// Insecure lets Serve listen beyond loopback without a token: whoever reaches it may register anything.
	Insecure bool

	TTL    time.Duration // of a node that is put without one; default 30 s
	MinTTL time.Duration // a shorter ttl is raised to it; default 1 s
	MaxTTL time.Duration // a longer ttl is cut to it; default 1 h
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

func (o ServerOptions) withDefaults() (ServerOptions, error) {
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
	case strings.ContainsAny(o.Token, " \t\r\n"):
		return o, errors.New("registry: the token holds white space")
	}
	return o, nil
}

// owner is who holds a node: the hash of a lease's secret.
type owner [sha256.Size]byte

// Server is the server of the HTTP registry. It is an [stdhttp.Handler]; Serve runs it with all limits. Its nodes live
// in memory, as long as it is not closed.
type Server struct {
	o       ServerOptions
	table   *leases.Table[owner]
	nodes   *hub.Hub
	epoch   string
	started time.Time
	token   [sha256.Size]byte
	writes  *budget
	wrong   *budget         // tokens
	inner   stdhttp.Handler // without the checks of the host
	outer   stdhttp.Handler // with those of loopback

	life   context.Context // ends with Close
	end    context.CancelFunc
	mu     sync.Mutex
	counts int // watches
}

// NewServer makes a server. Close it.
func NewServer(o ServerOptions) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	table := leases.New[owner](leases.Limits{Nodes: o.MaxNodes, Service: o.MaxService})
	s := &Server{
		o: o, table: table, nodes: table.Nodes(), epoch: random(epochBytes), started: time.Now(),
		token: sha256.Sum256([]byte(o.Token)), writes: newBudget(o.MaxWrites, burstSeconds*o.MaxWrites), wrong: newBudget(authRate, authRate),
	}
	s.life, s.end = context.WithCancel(context.Background())
	mux := stdhttp.NewServeMux()
	mux.HandleFunc("PUT "+nodesPath+"/{id}", s.paced(s.put))
	mux.HandleFunc("GET "+nodesPath+"/{id}", s.node)
	mux.HandleFunc("DELETE "+nodesPath+"/{id}", s.paced(s.remove))
	mux.HandleFunc("DELETE "+nodesPath, s.paced(s.release))
	mux.HandleFunc("GET "+nodesPath, s.list)
	mux.HandleFunc("GET "+servicesPath, s.services)
	mux.HandleFunc("GET "+servicesPath+"/{name}", s.get)
	mux.HandleFunc("GET "+watchPath, s.watch)
	mux.HandleFunc("GET "+healthPath, s.health)
	mux.HandleFunc("/", func(w stdhttp.ResponseWriter, r *stdhttp.Request) {
		s.refuse(w, status.NotFound, "no %s %.100q here: see /v1/nodes, /v1/services, /v1/watch and /healthz", r.Method, r.URL.Path)
	})
	s.inner = s.admit(mux)
	s.outer = s.guard("127.0.0.1")
	return s, nil
}

// guard puts the checks for a server that listens on address before the handler.
func (s *Server) guard(address string) stdhttp.Handler {
	return hostcheck.Wrap(s.inner, hostcheck.Options{Address: address, AllowedHosts: s.o.AllowedHosts})
}

// ServeHTTP answers a request as a server on loopback does: one whose Host or Origin is foreign it refuses, but for
// AllowedHosts. [Server.Serve] knows its listener and checks accordingly.
func (s *Server) ServeHTTP(w stdhttp.ResponseWriter, r *stdhttp.Request) { s.outer.ServeHTTP(w, r) }

// Close ends the watches and drops all nodes. Requests after it get 503.
func (s *Server) Close() error {
	s.end()
	s.table.Close()
	return nil
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
	return h
}

func (s *Server) starting() bool { return time.Since(s.started) < s.o.Grace }

// admit asks for the token, and turns requests away once the server is closed.
func (s *Server) admit(next stdhttp.Handler) stdhttp.Handler {
	return stdhttp.HandlerFunc(func(w stdhttp.ResponseWriter, r *stdhttp.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if s.life.Err() != nil {
			s.refuse(w, status.Unavailable, "the registry server stops")
			return
		}
		if s.o.Token != "" && r.URL.Path != healthPath {
			given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			sum := sha256.Sum256([]byte(given))
			if s.barred(r) || !ok || subtle.ConstantTimeCompare(sum[:], s.token[:]) != 1 {
				s.unauthenticated(w, r)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) put(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != jsonType {
		s.refuse(w, status.UnsupportedMedia, "content type %.100q: want %s", r.Header.Get("Content-Type"), jsonType)
		return
	}
	ttl, err := s.ttl(r.URL.Query().Get("ttl"))
	if err != nil {
		s.fail(w, err)
		return
	}
	secret, made := r.Header.Get(leaseHeader), ""
	if secret == "" {
		made = random(minSecret / 2)
		secret = made
	}
	n, err := s.body(w, r)
	if err != nil {
		s.fail(w, err)
		return
	}
	if !validSecret(secret) {
		s.refuse(w, status.InvalidArgument, "%s: want %d to %d hexadecimal digits", leaseHeader, minSecret, maxSecret)
		return
	}
	_, renewal := s.nodes.Lookup(n.ID)
	if err := s.table.Register(sha256.Sum256([]byte(secret)), n, ttl); err != nil {
		s.fail(w, err)
		return
	}
	code := stdhttp.StatusCreated
	if renewal {
		code = stdhttp.StatusOK
	}
	s.answer(w, code, lease{Epoch: s.epoch, Revision: s.nodes.Revision(), TTL: ttl.String(), Lease: made})
}

// body reads the node of a registration.
func (s *Server) body(w stdhttp.ResponseWriter, r *stdhttp.Request) (registry.Node, error) {
	data, err := readAll(stdhttp.MaxBytesReader(w, r.Body, registry.MaxRecord+1), registry.MaxRecord)
	var long *stdhttp.MaxBytesError
	switch {
	case errors.As(err, &long) || errors.Is(err, errTooLong):
		return registry.Node{}, status.New(status.TooLarge, "the record has over %d bytes", registry.MaxRecord)
	case err != nil:
		return registry.Node{}, status.Wrap(err, status.InvalidArgument, "the body did not come whole")
	}
	n, err := decodeNode(data)
	if err != nil {
		return registry.Node{}, err
	}
	id := r.PathValue("id")
	if n.ID != "" && n.ID != id {
		return registry.Node{}, fmt.Errorf("%w: the path names the node %.300q, the body %.300q", registry.ErrInvalid, id, n.ID)
	}
	n.ID = id
	return n, nil
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
	if n, ok := s.nodes.Lookup(id); ok && service == "" {
		service = n.Service
	}
	if err := s.table.Deregister(sha256.Sum256([]byte(r.Header.Get(leaseHeader))), service, id); err != nil {
		s.fail(w, err)
		return
	}
	w.WriteHeader(stdhttp.StatusNoContent)
}

func (s *Server) release(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	secret := r.Header.Get(leaseHeader)
	if !validSecret(secret) {
		s.refuse(w, status.InvalidArgument, "%s: want %d to %d hexadecimal digits", leaseHeader, minSecret, maxSecret)
		return
	}
	s.table.Release(sha256.Sum256([]byte(secret)))
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
	s.answer(w, stdhttp.StatusOK, s.set(""))
}

func (s *Server) get(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	name := r.PathValue("name")
	found := s.set(name)
	if name == "" || len(*found.Nodes) == 0 {
		s.refuse(w, status.NotFound, "no node of the service %.300q", name)
		return
	}
	s.answer(w, stdhttp.StatusOK, found)
}

func (s *Server) set(service string) set {
	nodes, revision := s.nodes.Snapshot(service)
	return set{Epoch: s.epoch, Revision: revision, Starting: s.starting(), Nodes: &nodes}
}

func (s *Server) services(w stdhttp.ResponseWriter, _ *stdhttp.Request) {
	nodes, revision := s.nodes.Snapshot("")
	out := services{Epoch: s.epoch, Revision: revision, Starting: s.starting(), Services: []service{}}
	for _, n := range nodes { // sorted by service
		if last := len(out.Services) - 1; last < 0 || out.Services[last].Name != n.Service {
			out.Services = append(out.Services, service{Name: n.Service, Versions: []string{}})
		}
		at := &out.Services[len(out.Services)-1]
		at.Nodes++
		if !slices.Contains(at.Versions, n.Version) {
			at.Versions = append(at.Versions, n.Version)
		}
	}
	for _, at := range out.Services {
		slices.Sort(at.Versions)
	}
	s.answer(w, stdhttp.StatusOK, out)
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
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // a client that has gone needs no answer
}

// fail answers with an error of the table or of a request.
func (s *Server) fail(w stdhttp.ResponseWriter, err error) {
	var full *leases.FullError
	var stated *status.Error
	var taken *leases.ConflictError
	switch {
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
	default:
		s.refuse(w, status.Internal, "%s", err)
	}
}

func (s *Server) refuse(w stdhttp.ResponseWriter, code status.Code, format string, args ...any) {
	e := status.New(code, format, args...)
	e.ID = errorID
	s.o.Logger.Debug("registry server refuses a request", "code", int(code), "detail", e.Detail)
	hostcheck.Refuse(w, e)
}

// random gives bytes of a secure random source in hexadecimal.
func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // it gives no error, and ends the program where there is no randomness
	return hex.EncodeToString(b)
}
