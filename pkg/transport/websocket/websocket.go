// Package websocket is the transport over WebSocket (RFC 6455): for web pages, and for where a proxy lets nothing else through.
//
// A WebSocket carries many unary calls at a time, or a stream. Programs of this project send each message as a binary one, in
// the form of the HTTP transport's frames; a web page sends JSON text, see docs/transport-websocket.md. A page of another origin
// is refused unless the origin is allowed, and whoever lacks the token where one is set.
//
// A [Transport] listens on a port of its own, or stands beside HTTP on one port: [Transport] is what the Beside of package
// transport/http's Options takes.
package websocket

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

// Options say how a Transport works. The zero value has the defaults.
type Options struct {
	// TLSConfig makes connections TLS, both ways. A listener needs certificates in it. Without it: plain TCP.
	TLSConfig *tls.Config
	// Path is the path of the WebSocket, such as "/micro", that Dial asks for and a Listener answers. Default "/".
	Path string
	// Token is asked of whoever connects, and given to whom is connected to, as a bearer token (RFC 6750). Default none.
	Token string
	// Insecure lets a listener have a port beyond loopback without TLS and without a token: whoever reaches it may call.
	Insecure bool
	// Origins are the web origins beside the listener's own whose pages may connect, such as "https://app.example", with the
	// port where it is not the scheme's; "*" is all of them. Default none. Who sends no Origin is no page, and is not asked.
	Origins []string
	// AllowedHosts are names, without port, that a loopback listener takes in Host and Origin beside localhost.
	AllowedHosts []string
	// MaxMessage is the limit of a message's body in bytes, both ways. Default transport.MaxMessage.
	MaxMessage int
	// MaxConns is the limit of WebSockets that a listener holds. Beyond it one is refused with 503. Default 10 000.
	MaxConns int
	// DialTimeout bounds connecting, with TLS and the answer to the upgrade. Default 5 s.
	DialTimeout time.Duration
	// HeaderTimeout bounds the TLS handshake and the reading of a request's head. Default 5 s.
	HeaderTimeout time.Duration
	// BodyIdle is how long no byte may come within a message. Default 10 s.
	BodyIdle time.Duration
	// BodyTimeout bounds the reading of a message from its first byte. Default 30 s.
	BodyTimeout time.Duration
	// WriteTimeout is how long a peer may take no byte of what is sent. Default 30 s.
	WriteTimeout time.Duration
	// Silence is how long nothing may come from a peer that is being read before it counts as lost. A Ping goes out after a
	// third of it without a byte one way or the other. Default 15 s.
	Silence time.Duration
	// Logger gets what a listener has to tell. Default: nothing is logged.
	Logger *slog.Logger

	bodies *frame.Bodies // of all connections
}

// Transport makes connections over WebSocket. Make it with New. Its methods may be called concurrently.
type Transport struct {
	o     Options
	clear sync.Once // tells of a token in the clear
}

var (
	_ transport.Transport = (*Transport)(nil)
	_ transport.Schemed   = (*Transport)(nil)
)

// New returns a Transport. It fails on an option that cannot be.
func New(o Options) (*Transport, error) {
	for _, d := range []struct {
		name     string
		value    *time.Duration
		standard time.Duration
	}{
		{"DialTimeout", &o.DialTimeout, 5 * time.Second},
		{"HeaderTimeout", &o.HeaderTimeout, 5 * time.Second},
		{"BodyIdle", &o.BodyIdle, 10 * time.Second},
		{"BodyTimeout", &o.BodyTimeout, 30 * time.Second},
		{"WriteTimeout", &o.WriteTimeout, 30 * time.Second},
		{"Silence", &o.Silence, 15 * time.Second},
	} {
		if *d.value < 0 {
			return nil, fmt.Errorf("transport/websocket: option %s: %s is negative", d.name, *d.value)
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
			return nil, fmt.Errorf("transport/websocket: option %s: %d is negative", n.name, *n.value)
		}
		if *n.value == 0 {
			*n.value = n.standard
		}
	}
	if err := o.access(); err != nil {
		return nil, fmt.Errorf("transport/websocket: %w", err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.bodies = new(frame.Bodies)
	if o.TLSConfig != nil {
		o.TLSConfig = o.TLSConfig.Clone()
		o.TLSConfig.NextProtos = []string{"http/1.1"} // HTTP/2 has another upgrade (RFC 8441)
	}
	return &Transport{o: o}, nil
}

// access checks what says who may connect where.
func (o *Options) access() error {
	if strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("the token has a character that a header cannot carry: want visible ASCII")
	}
	o.Path = "/" + strings.TrimPrefix(o.Path, "/")
	if u, err := url.Parse(o.Path); err != nil || u.Path != o.Path || u.RawQuery != "" {
		return fmt.Errorf("option Path: %q is no plain path, such as /micro", o.Path)
	}
	o.Origins, o.AllowedHosts = slices.Clone(o.Origins), slices.Clone(o.AllowedHosts)
	for i, origin := range o.Origins {
		u, err := url.Parse(origin)
		if origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "") {
			return fmt.Errorf("option Origins: %q is no origin, such as https://app.example", origin)
		}
		o.Origins[i] = strings.ToLower(strings.TrimSuffix(origin, "/"))
	}
	return nil
}

// Scheme is the label of nodes that listen by this Transport, by which clients choose theirs: "ws", or "wss" with TLS.
func (t *Transport) Scheme() string {
	if t.o.TLSConfig != nil {
		return "wss"
	}
	return "ws"
}

// Asks reports whether a request is for a WebSocket. It is of package transport/http's Beside.
func (t *Transport) Asks(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.Method == http.MethodGet && lists(r.Header, "Upgrade", "websocket")
}

// Beside gives the listener of the WebSockets among the requests to another's port, addr, and what serves those requests.
// TLS, where there is any, is the other's. It is of package transport/http's Beside.
func (t *Transport) Beside(addr string) (transport.Listener, http.Handler) {
	l := t.newListener(addr)
	return l, l.handler()
}
