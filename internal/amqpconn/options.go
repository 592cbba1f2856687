// Package amqpconn is the way of the RabbitMQ backends to their server: where it is and how to get in, by Go value or URL, a
// connection that is made again when it breaks, which the client library leaves to its users, and errors that name the server,
// tell what to do and hold no secret.
package amqpconn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/internal/opener"
)

// The environment that Parse reads where the URL names no credentials-file.
const (
	EnvUsername = "RABBITMQ_USERNAME"
	EnvPassword = "RABBITMQ_PASSWORD"
)

// guest is the user that a RabbitMQ has from the start, and takes from its own machine alone.
const guest = "guest"

const (
	defaultPort    = "5672"
	defaultTLSPort = "5671"
	defaultTimeout = 5 * time.Second
	maxVHost       = 255 // what a short string of AMQP holds
)

// Options say where RabbitMQ is, and who comes.
type Options struct {
	// Addrs are nodes of one RabbitMQ, host:port, tried in turn. Default 127.0.0.1:5672, with TLS 5671.
	Addrs []string
	// VHost is the virtual host. Default "/".
	VHost string
	// Username and Password are the login. Both or none are given; without, it is guest, as RabbitMQ comes.
	Username, Password string
	// CredentialsFile is a file that holds both, as "name:password", and is read once. It is not given beside them.
	CredentialsFile string
	// TLS makes the connection TLS, with this configuration. Nil: in the clear.
	TLS *tls.Config
	// Timeout bounds each attempt to connect, and each request. Default 5 s.
	Timeout time.Duration
	// Name is what RabbitMQ lists the connection by.
	Name string
	// Logger is told of RabbitMQ's absence and return. Nil: nobody is.
	Logger *slog.Logger
}

// Complete checks o and fills in what is not set.
func (o *Options) Complete() error {
	if len(o.Addrs) == 0 {
		port := defaultPort
		if o.TLS != nil {
			port = defaultTLSPort
		}
		o.Addrs = []string{"127.0.0.1:" + port}
	}
	for _, addr := range o.Addrs {
		host, port, err := net.SplitHostPort(addr)
		if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" || strings.ContainsAny(addr, "/@, ") {
			return fmt.Errorf("rabbitmq: address %q: want host:port", addr)
		}
	}
	if o.VHost == "" {
		o.VHost = "/"
	}
	if len(o.VHost) > maxVHost {
		return fmt.Errorf("rabbitmq: a virtual host's name of %d bytes, limit %d", len(o.VHost), maxVHost)
	}
	if err := access.CompleteLogin(&o.Username, &o.Password, o.CredentialsFile); err != nil {
		return fmt.Errorf("rabbitmq: %w", err)
	}
	if o.Username == "" {
		o.Username, o.Password = guest, guest
	}
	if o.Timeout < 0 {
		return errors.New("rabbitmq: a negative timeout")
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Parse reads a URL: rabbitmq://host:5672,host2/vhost, and the parameters that package access knows. Further parameters that
// the caller knows are in params.
func Parse(u *url.URL, known ...string) (o Options, params map[string]string, err error) {
	switch {
	case u.User != nil:
		return o, nil, fmt.Errorf("%s: credentials do not belong in a URL: use credentials-file, or %s and %s", opener.Redacted(u), EnvUsername, EnvPassword)
	case u.Opaque != "" || u.Fragment != "":
		return o, nil, fmt.Errorf("%s: want %s://host:port/vhost", opener.Redacted(u), u.Scheme)
	}
	known = append(known, access.ParamCredentials, access.ParamTLS, access.ParamCA, access.ParamCert, access.ParamKey)
	if params, err = opener.Params(u, known...); err != nil {
		return o, nil, err
	}
	if o.TLS, err = access.TLS(params); err != nil {
		return o, nil, fmt.Errorf("rabbitmq: %w", err)
	}
	if o.Username, o.Password, err = access.Login(params, EnvUsername, EnvPassword); err != nil {
		return o, nil, fmt.Errorf("rabbitmq: %w", err)
	}
	if u.Host != "" {
		for host := range strings.SplitSeq(u.Host, ",") {
			o.Addrs = append(o.Addrs, withPort(host, o.TLS != nil))
		}
	}
	o.VHost = strings.TrimPrefix(u.Path, "/")
	return o, params, nil
}

func withPort(host string, secure bool) string {
	if _, _, err := net.SplitHostPort(host); err == nil || host == "" {
		return host
	}
	port := defaultPort
	if secure {
		port = defaultTLSPort
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}
