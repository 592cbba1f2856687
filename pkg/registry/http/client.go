package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	stdhttp "net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
	leases "github.com/cb02dfca/micro/pkg/registry/internal/lease"
	"github.com/cb02dfca/micro/pkg/registry/internal/remote"
)

// Options of New.
type Options struct {
	// URL is where the server is: "http://127.0.0.1:8000", or https. A path is put before those of the protocol.
	URL string
	// Token is the server's token. It is sent to URL's host only, and follows no redirect.
	Token string
	// TokenFile is a file that holds the token, and is read once. Only one of the two may be set.
	TokenFile string
	// TLS is for https: the authorities that the server's certificate may be of, a certificate of one's own. Nil: the system's
	// authorities. It is not for use with Client.
	TLS *tls.Config
	// Client makes the requests. Nil: one with the limits of this package, and no proxy. Of one that is given the
	// Transport and the Jar are used, and not closed.
	Client *stdhttp.Client
	// Timeout bounds each request but a watch. Default 5 s.
	Timeout time.Duration
	// MaxAnswer bounds an answer, and a line of a watch, in bytes. Default 64 MiB.
	MaxAnswer int64
	// Lease is the ttl of nodes that are registered without one, which this client renews itself. Default 30 s.
	Lease time.Duration
	// Probe is how often a client that holds nodes hears from the server at least, to learn that it lost them. Default
	// 10 s.
	Probe time.Duration
	// Logger is told of the server's absence and return, of records that were left out and of nodes that were lost.
	// Nil: nobody is.
	Logger *slog.Logger
}

// Registry is the client of a registry server. Its methods may be called concurrently.
type Registry struct {
	o      Options
	base   *url.URL
	host   string // for errors
	client *stdhttp.Client
	owned  bool   // client is ours to close
	secret string // of all leases
	keeper *keeper

	life   context.Context // ends with Close
	end    context.CancelFunc
	closed sync.Once
	err    error // of Close

	mu    sync.Mutex
	away  bool      // the server failed when it was last asked
	epoch string    // of the last answer
	heard time.Time // when that was
}

var (
	_ registry.Registry      = (*Registry)(nil)
	_ registry.ChangeWatcher = (*Registry)(nil)
	_ registry.Evictor       = (*Registry)(nil)
	_ registry.Placer        = (*Registry)(nil)
)

// New makes a client. It asks the server nothing: one that is not there is the matter of the first request.
func New(o Options) (*Registry, error) {
	base, err := parseBase(o.URL)
	if err != nil {
		return nil, err
	}
	if o.TokenFile != "" {
		if o.Token != "" {
			return nil, errors.New("registry: both a token and a token file are given")
		}
		if o.Token, err = readToken(o.TokenFile); err != nil {
			return nil, err
		}
	}
	if err := wire.CheckToken(o.Token); err != nil {
		return nil, err
	}
	for v, d := range map[*time.Duration]time.Duration{&o.Timeout: 5 * time.Second, &o.Lease: 30 * time.Second, &o.Probe: 10 * time.Second} {
		if *v == 0 {
			*v = d
		}
		if *v < 0 {
			return nil, errors.New("registry: a negative duration")
		}
	}
	if o.MaxAnswer < 0 {
		return nil, errors.New("registry: a negative limit of an answer")
	}
	if o.MaxAnswer == 0 {
		o.MaxAnswer = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.TLS != nil && (base.Scheme != "https" || o.Client != nil) {
		return nil, fmt.Errorf("registry: %s: TLS is for https, and without a Client", opener.Redacted(base))
	}
	if o.Token != "" && base.Scheme == "http" && !hostcheck.Loopback(base.Host) {
		o.Logger.Warn("registry: the token goes over the network in the clear: https is not", "server", base.Host)
	}
	r := &Registry{o: o, base: base, host: base.Host, secret: wire.Random(wire.MinSecret / 2), client: newClient(o.TLS)}
	if o.Client == nil {
		r.owned = true
	} else {
		r.client.Transport, r.client.Jar = o.Client.Transport, o.Client.Jar
	}
	r.life, r.end = context.WithCancel(context.Background())
	r.keeper = newKeeper(r)
	return r, nil
}

// EnvToken is the environment variable with the server's token, for Open.
const EnvToken = "MICRO_REGISTRY_TOKEN"

// Open makes a client for an http or https URL. Its parameter token-file names a file with the server's token, which is otherwise in the
// environment variable MICRO_REGISTRY_TOKEN; ca-file, for https, the authorities that the server's certificate may be of; cert-file and
// key-file a certificate for a server that asks for one.
func Open(_ context.Context, u *url.URL) (registry.Registry, error) {
	params, err := opener.Params(u, access.ParamToken, access.ParamCA, access.ParamCert, access.ParamKey)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	o := Options{TokenFile: params[access.ParamToken]}
	if o.TokenFile == "" {
		if o.Token, err = access.Token(nil, EnvToken); err != nil {
			return nil, fmt.Errorf("registry: %w", err)
		}
	}
	if o.TLS, err = access.TLS(params); err != nil {
		return nil, fmt.Errorf("registry: %s: %w", opener.Redacted(u), err)
	}
	bare := *u
	bare.RawQuery = ""
	o.URL = bare.String()
	r, err := New(o)
	if err != nil {
		return nil, err // not a Registry that holds a nil *Registry
	}
	return r, nil
}

func parseBase(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("registry: the server's address is no URL")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return nil, fmt.Errorf("registry: %q: want http://host:port or https://host:port", opener.Redacted(u))
	case !validPort(u.Port()):
		return nil, fmt.Errorf("registry: %q: the port is not one from 1 to 65535", opener.Redacted(u))
	case u.User != nil:
		return nil, fmt.Errorf("registry: %s: credentials do not belong in a URL: use token-file", opener.Redacted(u))
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("registry: %s: want no query and no fragment", opener.Redacted(u))
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// validPort reports whether a URL's port, which is digits or nothing, can be dialled.
func validPort(port string) bool {
	if port == "" {
		return true // the scheme's
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func readToken(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("registry: token file: %w", err)
	}
	defer f.Close()
	data, err := wire.ReadAll(f, wire.MaxToken)
	if err != nil {
		return "", fmt.Errorf("registry: token file %s: %w", name, err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("registry: token file %s is empty", name)
	}
	return token, nil
}

func newClient(secure *tls.Config) *stdhttp.Client {
	return &stdhttp.Client{
		Transport: &stdhttp.Transport{
			DialContext:            remote.Dialer(2 * time.Second).DialContext,
			ForceAttemptHTTP2:      true,
			TLSClientConfig:        secure.Clone(),
			TLSHandshakeTimeout:    5 * time.Second,
			ResponseHeaderTimeout:  10 * time.Second,
			IdleConnTimeout:        50 * time.Second, // less than the server's
			MaxIdleConnsPerHost:    8,
			MaxResponseHeaderBytes: 32 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*stdhttp.Request, []*stdhttp.Request) error { return stdhttp.ErrUseLastResponse },
	}
}

// Register puts n. The server decides on the ttl within its bounds; where it gives less than was asked for, and for a
// ttl of zero, the client renews the node itself. A server that lost the node, because it was started anew, gets it
// again. Beside the errors of registry.Registrar there is the *status.Error of a server that refuses for another reason: no
// token or a wrong one (401, 403), or a quota that is used up (429).
func (r *Registry) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	record, err := leases.Encode(n)
	if err != nil {
		return err
	}
	if ttl < 0 {
		return fmt.Errorf("%w: ttl %v is negative", registry.ErrInvalid, ttl)
	}
	return r.keeper.register(ctx, n, record, ttl)
}

// Deregister takes n away. The error wraps ErrConflict where another owner holds it.
func (r *Registry) Deregister(ctx context.Context, n registry.Node) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	if registry.Validate(registry.Node{ID: n.ID, Service: n.Service, Address: "any"}) != nil {
		return nil // no registry holds such a node
	}
	return r.keeper.deregister(ctx, n)
}

// Evict takes a node away, whoever owns it. A server without a token allows that on its own machine only.
func (r *Registry) Evict(ctx context.Context, service, id string) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	ctx, stop := r.within(ctx)
	defer stop()
	_, err := r.ask(ctx, stdhttp.MethodDelete, wire.NodePath(id), url.Values{"service": {service}, "force": {"true"}}, nil)
	return r.orClosed(err)
}

// Place puts a node that is nobody's, as registry.Placer says. The server decides on the ttl within its bounds.
func (r *Registry) Place(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := r.usable(ctx); err != nil {
		return err
	}
	record, err := leases.Encode(n)
	if err != nil {
		return err
	}
	ctx, stop := r.within(ctx)
	defer stop()
	_, err = r.ask(ctx, stdhttp.MethodPut, wire.NodePath(n.ID), url.Values{"ttl": {ttl.String()}, "owner": {wire.Nobody}}, record)
	return r.orClosed(err)
}

// Get asks the server for a service's nodes.
func (r *Registry) Get(ctx context.Context, service string) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	if !registry.ValidName(service) {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	nodes, err := r.nodes(ctx, wire.ServicesPath+"/"+service, service)
	if errors.Is(err, registry.ErrNotFound) || err == nil && len(nodes) == 0 {
		return nil, fmt.Errorf("%w: %q", registry.ErrNotFound, service)
	}
	return nodes, err
}

// List asks the server for all nodes.
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	return r.nodes(ctx, wire.NodesPath, "")
}

func (r *Registry) nodes(ctx context.Context, path, service string) ([]registry.Node, error) {
	ctx, stop := r.within(ctx)
	defer stop()
	data, err := r.ask(ctx, stdhttp.MethodGet, path, nil, nil)
	if err != nil {
		return nil, r.orClosed(err)
	}
	s, err := wire.ParseSet(data)
	if err == nil && s.Nodes == nil {
		err = wire.ErrNoAnswer
	}
	if err != nil {
		return nil, r.unavailable(err)
	}
	r.hear(s.Epoch)
	return r.proper(s, *s.Nodes, service), nil
}

// proper gives those of nodes that are of a service, and reports the records that s left out.
func (r *Registry) proper(s wire.Set, nodes []registry.Node, service string) []registry.Node {
	if len(s.Skipped) > 0 {
		r.o.Logger.Warn("registry server gave records that are no nodes", "server", r.host, "records", len(s.Skipped), "first", s.Skipped[0])
	}
	return slices.DeleteFunc(nodes, func(n registry.Node) bool { return service != "" && n.Service != service })
}

// Close withdraws the nodes that were registered here and ends the watches. It is an error if the server could not be
// told: the nodes lapse then.
func (r *Registry) Close() error {
	r.closed.Do(func() {
		r.end()
		r.err = r.keeper.close()
		if r.owned {
			r.client.CloseIdleConnections()
		}
	})
	return r.err
}

// within gives a context that also ends with r.
func (r *Registry) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	drop := context.AfterFunc(r.life, cancel)
	return ctx, func() { drop(); cancel() }
}

// orClosed gives the error of a request: ErrClosed where Close ended it.
func (r *Registry) orClosed(err error) error {
	if err != nil && r.life.Err() != nil {
		return registry.ErrClosed
	}
	return err
}

func (r *Registry) usable(ctx context.Context) error {
	if r.life.Err() != nil {
		return registry.ErrClosed
	}
	return ctx.Err()
}

// hear notes that the server answered. Nodes of another epoch are lost, and are put again.
func (r *Registry) hear(epoch string) {
	r.mu.Lock()
	lost := r.epoch != "" && r.epoch != epoch
	back := r.away
	r.epoch, r.heard, r.away = epoch, time.Now(), false
	r.mu.Unlock()
	if back {
		r.o.Logger.Info("registry server is back", "server", r.host)
	}
	if lost {
		r.keeper.restore()
	}
}

func (r *Registry) lastHeard() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard
}

// unavailable says that the server could not answer, and why.
func (r *Registry) unavailable(cause error) error {
	err := fmt.Errorf("%w: %s is not answering: %w", registry.ErrUnavailable, r.host, remote.Reason(cause))
	if errors.Is(cause, wire.ErrNoAnswer) || errors.Is(cause, wire.ErrTooLong) {
		err = fmt.Errorf("%w: %s: %w", registry.ErrUnavailable, r.host, cause)
	}
	r.mu.Lock()
	first := !r.away
	r.away = true
	r.mu.Unlock()
	if first && r.owned {
		r.client.CloseIdleConnections() // they may be as dead, and the next request would wait on one
	}
	if first {
		r.o.Logger.Warn("registry server is away", "server", r.host, "error", err)
	}
	return err
}
