// Package http is the default transport: HTTP on one port, and binary frames for those who can.
//
// A call is a plain HTTP request, POST /Say.Hello, for curl, a browser, a go-micro service. A connection that asks for it
// (Upgrade: micro, RFC 9110 section 7.8) carries frames instead: many calls at a time, or a stream. A peer that does not
// know the upgrade is spoken to in plain HTTP. docs/protocol.md says what goes over the wire.
//
// A go-micro client's connection is one of messages from its first request on: calls in any order, and streams.
//
// A listener bound to a loopback address refuses requests whose Host or Origin is foreign, so that a web page in this
// machine's browser cannot call the services on it.
package http

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/link"
)

// Options say how a Transport works. The zero value has the defaults.
type Options struct {
	// TLSConfig makes connections TLS, both ways. A listener needs certificates in it. Without it: plain TCP.
	TLSConfig *tls.Config
	// MaxMessage is the limit of a message's body in bytes, both ways. Default transport.MaxMessage.
	MaxMessage int
	// MaxHeader is the limit of an HTTP message's head in bytes. Default 32 KiB.
	MaxHeader int
	// DialTimeout bounds connecting, and then the wait for the answer to the upgrade; to a loopback address two tries of
	// 300 ms are made at most. Default 2 s.
	DialTimeout time.Duration
	// HeaderTimeout bounds the TLS handshake and the reading of a request's head; no answer to an upgrade is waited for
	// longer. Default 5 s.
	HeaderTimeout time.Duration
	// BodyIdle is how long no byte may come within a body or a frame's message. Default 10 s.
	BodyIdle time.Duration
	// BodyTimeout bounds the reading of a body or a frame's message from its first byte. Default 30 s.
	BodyTimeout time.Duration
	// IdleTimeout is how long a plain HTTP connection may wait for its next request. Default 60 s.
	IdleTimeout time.Duration
	// WriteTimeout bounds the writing of a reply, and of each frame. Default 30 s.
	WriteTimeout time.Duration
	// MaxConns is the limit of connections that a listener holds, upgraded ones among them. Beyond it a connection is
	// closed at once. Default 10 000, or 80 % of the process's file descriptors where that is less.
	MaxConns int
	// AllowedHosts are names, without port, that a loopback listener takes in Host and Origin beside localhost.
	AllowedHosts []string
	// Plain makes Dial speak plain HTTP without asking for the upgrade.
	Plain bool
	// Beside serves other protocols on a listener's port, for those who ask for them: WebSocket, by a Transport of package
	// transport/websocket, and gRPC, by one of package transport/grpc. Default none.
	Beside []Beside
	// Pages serves GET and HEAD requests, which no call is: the pages of a web site that calls the service. It stands behind the
	// checks of Host and Origin. Default: they are refused with 405.
	Pages http.Handler
	// Logger gets what a listener has to tell. Default: nothing is logged.
	Logger *slog.Logger
}

// Beside is what serves another protocol on a listener's port.
type Beside interface {
	// Asks reports whether a request asks for the protocol.
	Asks(r *http.Request) bool
	// Beside is called for each listener, with its address. h serves the requests that ask, and checks their Host and Origin
	// itself; the connections that come of them l yields. The listener closes l, and drains it where it can be drained.
	Beside(addr string) (l transport.Listener, h http.Handler)
}

// Lasting is what a Beside is whose requests may last as long as they like, both ways: their bodies and answers have no times but its
// own. What its listener is of transport.CallServer and transport.EndpointServer, it gets to hear.
type Lasting interface {
	Beside
	Lasting()
}

// Transport makes connections over HTTP. Make it with New. Its methods may be called concurrently.
type Transport struct {
	o    Options
	link link.Options
}

var (
	_ transport.Transport = (*Transport)(nil)
	_ transport.Schemed   = (*Transport)(nil)
	_ transport.Polyglot  = (*Transport)(nil)
)

// New returns a Transport. It fails on a negative option.
func New(o Options) (*Transport, error) {
	for _, d := range []struct {
		name     string
		value    *time.Duration
		standard time.Duration
	}{
		{"DialTimeout", &o.DialTimeout, 2 * time.Second},
		{"HeaderTimeout", &o.HeaderTimeout, 5 * time.Second},
		{"BodyIdle", &o.BodyIdle, 10 * time.Second},
		{"BodyTimeout", &o.BodyTimeout, 30 * time.Second},
		{"IdleTimeout", &o.IdleTimeout, 60 * time.Second},
		{"WriteTimeout", &o.WriteTimeout, 30 * time.Second},
	} {
		if *d.value < 0 {
			return nil, fmt.Errorf("transport/http: option %s: %s is negative", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	for _, n := range []struct {
		name     string
		value    *int
		standard int
	}{
		{"MaxMessage", &o.MaxMessage, transport.MaxMessage},
		{"MaxHeader", &o.MaxHeader, 32 << 10},
		{"MaxConns", &o.MaxConns, min(10_000, maxFiles()/5*4)},
	} {
		if *n.value < 0 {
			return nil, fmt.Errorf("transport/http: option %s: %d is negative", n.name, *n.value)
		}
		if *n.value == 0 {
			*n.value = n.standard
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.AllowedHosts, o.Beside = slices.Clone(o.AllowedHosts), slices.Clone(o.Beside)
	if o.TLSConfig != nil {
		o.TLSConfig = o.TLSConfig.Clone()
	}
	t := &Transport{o: o}
	t.link = link.Options{
		MaxMessage: o.MaxMessage, BodyIdle: o.BodyIdle, BodyTimeout: o.BodyTimeout, WriteTimeout: o.WriteTimeout,
		Buffers: link.NewBuffers(), Monitor: new(link.Monitor),
	}
	return t, nil
}

// With gives a copy of t that serves further protocols on its listeners' ports.
func (t *Transport) With(beside ...Beside) *Transport {
	with := *t
	with.o.Beside = slices.Concat(t.o.Beside, beside)
	return &with
}

// Scheme is the label of nodes that listen by this Transport, by which clients choose theirs: "http", or "https" with TLS.
func (t *Transport) Scheme() string {
	if t.o.TLSConfig != nil {
		return "https"
	}
	return "http"
}

// Open is the transport.Opener of the URLs "http://" and "https://", which is TLS. Its parameters are plain=true, which leaves the upgrade
// alone, max-message=BYTES, and hosts=NAME,NAME, the allowed hosts; and, of https alone,
//
//	ca-file         PEM: the authorities that the peer's certificate may be of; default the system's
//	cert-file       PEM: the certificate of a listener, or of a client that is asked for one, and
//	key-file        PEM: its key
//	client-ca-file  PEM: a listener asks its clients for a certificate of these authorities
func Open(ctx context.Context, u *url.URL) (transport.Transport, error) {
	return open(ctx, u, nil, nil)
}

// OpenBeside gives an Open with one more parameter, beside, which is what is served on the same port, separated by commas: URLs of
// transports in set that are a [Beside]. "http://?beside=ws" is WebSocket; what of a URL has a meaning in a query is to be escaped.
// Where the parameter is not there, usual is served; beside=none is nothing.
func OpenBeside(set transport.Openers, usual ...string) transport.Opener {
	return func(ctx context.Context, u *url.URL) (transport.Transport, error) { return open(ctx, u, set, usual) }
}

func open(ctx context.Context, u *url.URL, set transport.Openers, usual []string) (transport.Transport, error) {
	known := []string{"plain", "max-message", "hosts"}
	if set != nil {
		known = append(known, "beside")
	}
	secure := u.Scheme == "https"
	if secure {
		known = append(known, access.ParamCA, access.ParamCert, access.ParamKey, access.ParamClientCA)
	}
	params, err := opener.Params(u, known...)
	if err != nil {
		return nil, fmt.Errorf("transport/http: %w", err)
	}
	if u.Host != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("transport/http: %s: the transport's URL names no host: the address is set on its own", opener.Redacted(u))
	}
	var o Options
	if secure {
		params[access.ParamTLS] = "true"
		if o.TLSConfig, err = access.TLS(params); err != nil {
			return nil, fmt.Errorf("transport/http: %w", err)
		}
	}
	if v, ok := params["plain"]; ok {
		if o.Plain, err = strconv.ParseBool(v); err != nil {
			return nil, fmt.Errorf("transport/http: %s: parameter plain: %q is neither true nor false", opener.Redacted(u), v)
		}
	}
	if v, ok := params["max-message"]; ok {
		if o.MaxMessage, err = strconv.Atoi(v); err != nil || o.MaxMessage < 1 {
			return nil, fmt.Errorf("transport/http: %s: parameter max-message: %q is no number of bytes", opener.Redacted(u), v)
		}
	}
	if v := params["hosts"]; v != "" {
		o.AllowedHosts = strings.Split(v, ",")
	}
	if v := params["beside"]; v == "none" {
		usual = nil
	} else if v != "" {
		usual = strings.Split(v, ",")
	}
	if o.Beside, err = openBesides(ctx, set, usual); err != nil {
		return nil, err
	}
	t, err := New(o)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// openBesides opens what is served beside.
func openBesides(ctx context.Context, set transport.Openers, urls []string) (list []Beside, err error) {
	for _, v := range urls {
		t, err := set.Open(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("transport/http: parameter beside: %w", err)
		}
		b, ok := t.(Beside)
		if !ok {
			return nil, fmt.Errorf("transport/http: parameter beside: %q is none that shares a port, as ws does", v)
		}
		list = append(list, b)
	}
	return list, nil
}
