// Package grpc is the transport over gRPC, for peers that speak nothing else: programs with stubs that were generated for any
// language, grpcurl, go-micro v2. It stands on net/http's HTTP/2, in the clear with prior knowledge (h2c) and over TLS.
//
// A [Transport] stands beside HTTP on a service's one port: it is one of what the Beside of package transport/http's Options
// takes. It can also have a port of its own. A client dials any gRPC server with it; many calls and streams share a connection.
//
// An endpoint "Say.Hello" of the service greeter is the method /greeter.Say/Hello, and whatever else stands before the handler's
// name, such as the package of a .proto file, does as well: /pkg.Say/Hello. docs/transport-grpc.md says how calls, metadata and errors
// are written.
package grpc

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
)

// Options say how a Transport works. The zero value has the defaults.
type Options struct {
	// TLSConfig makes connections TLS, both ways. A listener of its own port needs certificates in it. Without it: plain TCP.
	TLSConfig *tls.Config
	// MaxMessage is the limit of a message's body in bytes, both ways, after it was unpacked. Default transport.MaxMessage.
	MaxMessage int
	// Gzip packs the messages that are sent to whom is dialled. What a peer packs is unpacked without it, and answered in kind.
	Gzip bool
	// Services are served in place of endpoints, by the full name of the gRPC service, such as
	// "grpc.reflection.v1.ServerReflection". grpc.health.v1.Health is there already, and may be replaced; nil takes it away.
	Services map[string]Handler
	// AllowedHosts are names, without port, that a loopback listener takes as a request's authority beside localhost.
	AllowedHosts []string
	// DialTimeout bounds connecting, with TLS or the first sign of HTTP/2. Default 5 s.
	DialTimeout time.Duration
	// BodyTimeout bounds the reading of a unary call's message. Default 30 s.
	BodyTimeout time.Duration
	// WriteTimeout is how long the answer to a unary call may wait for a peer that does not read. Default 30 s.
	WriteTimeout time.Duration
	// IdleTimeout is how long a listener of its own port keeps a connection without a call. Default 5 min.
	IdleTimeout time.Duration
	// Silence is how long nothing may come from a server that was dialled before it is asked whether it lives; it has 15 s to
	// answer. gRPC-Go's servers close the connection of one who asks more than once in 5 min. Default 5 min 10 s.
	Silence time.Duration
	// MaxConns is the limit of connections that a listener of its own port holds. Default 10 000.
	MaxConns int
	// Logger gets what a listener has to tell. Default: nothing is logged.
	Logger *slog.Logger
}

// Transport makes connections over gRPC. Make it with New. Its methods may be called concurrently.
type Transport struct {
	o    Options
	http *http.Transport // dials

	mu    sync.Mutex
	peers map[string][]*channel // the connections to each address
}

var (
	_ transport.Transport = (*Transport)(nil)
	_ transport.Schemed   = (*Transport)(nil)
)

// New returns a Transport. It fails on a negative option.
func New(o Options) (*Transport, error) {
	for _, d := range []struct {
		name     string
		value    *time.Duration
		standard time.Duration
	}{
		{"DialTimeout", &o.DialTimeout, 5 * time.Second},
		{"BodyTimeout", &o.BodyTimeout, 30 * time.Second},
		{"WriteTimeout", &o.WriteTimeout, 30 * time.Second},
		{"IdleTimeout", &o.IdleTimeout, 5 * time.Minute},
		{"Silence", &o.Silence, 5*time.Minute + 10*time.Second},
	} {
		if *d.value < 0 {
			return nil, fmt.Errorf("transport/grpc: option %s: %s is negative", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	for _, n := range []struct {
		name     string
		value    *int
		standard int
	}{{"MaxMessage", &o.MaxMessage, transport.MaxMessage}, {"MaxConns", &o.MaxConns, 10_000}} {
		if *n.value < 0 {
			return nil, fmt.Errorf("transport/grpc: option %s: %d is negative", n.name, *n.value)
		}
		if *n.value == 0 {
			*n.value = n.standard
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.TLSConfig != nil {
		o.TLSConfig = o.TLSConfig.Clone()
		o.TLSConfig.NextProtos = []string{"h2"}
	}
	o.AllowedHosts = slices.Clone(o.AllowedHosts)
	o.Services = maps.Clone(o.Services)
	t := &Transport{o: o, peers: make(map[string][]*channel)}
	t.http = t.newHTTP()
	return t, nil
}

// Scheme is the label of nodes that listen by this Transport, by which clients choose theirs: "grpc", or "grpcs" with TLS.
func (t *Transport) Scheme() string {
	if t.o.TLSConfig != nil {
		return "grpcs"
	}
	return "grpc"
}

// Asks reports whether a request is one of gRPC. It is of package transport/http's Beside.
func (t *Transport) Asks(r *http.Request) bool {
	if r.ProtoMajor != 2 || len(r.Header["Content-Type"]) == 0 {
		return false
	}
	rest, ok := strings.CutPrefix(r.Header["Content-Type"][0], mediaType)
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// Beside gives the listener of the gRPC requests to another's port, addr, and what serves those requests. TLS, and the limits of
// connections, are the other's. It is of package transport/http's Beside.
func (t *Transport) Beside(addr string) (transport.Listener, http.Handler) {
	l := t.newListener(addr)
	return l, l.handler()
}

// Lasting is of package transport/http's Lasting: a stream may last.
func (t *Transport) Lasting() {}
