package consul

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/registry"
)

// EnvToken is the environment that Open reads where the URL names no token-file. It is the name that Consul's own tools, and
// so go-micro, have for it.
const EnvToken = "CONSUL_HTTP_TOKEN"

// Open makes a client for a URL:
//
//	consul://host:8500?ttl=10s
//
// Without a host it is the agent of this machine, without a port 8500. The parameters are
//
//	ttl         Options.TTL
//	token-file  Options.TokenFile; else EnvToken is read, where it is set
//	tls         true: TLS, with the system's authorities; each of the files below says the same
//	ca-file     PEM: the authorities that the agent's certificate may be of
//	cert-file   PEM: this client's certificate, and
//	key-file    PEM: its key
func Open(_ context.Context, u *url.URL) (registry.Registry, error) {
	o, err := parse(u)
	if err != nil {
		return nil, err
	}
	r, err := New(o)
	if err != nil {
		return nil, err // not a Registry that holds a nil *Registry
	}
	return r, nil
}

func parse(u *url.URL) (Options, error) {
	var o Options
	switch {
	case u.User != nil:
		return o, fmt.Errorf("registry: %s: credentials do not belong in a URL: use token-file, or %s", opener.Redacted(u), EnvToken)
	case u.Opaque != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return o, fmt.Errorf("registry: %s: want consul://host:port", opener.Redacted(u))
	}
	params, err := opener.Params(u, "ttl", access.ParamToken, access.ParamTLS, access.ParamCA, access.ParamCert, access.ParamKey)
	if err != nil {
		return o, fmt.Errorf("registry: %w", err)
	}
	if u.Host != "" {
		o.Address = withPort(u.Host)
	}
	if v, ok := params["ttl"]; ok {
		if o.TTL, err = time.ParseDuration(v); err != nil || o.TTL <= 0 {
			return o, fmt.Errorf("registry: consul: ttl %q is not a duration above zero, such as 10s", v)
		}
	}
	if o.Token, err = access.Token(params, EnvToken); err == nil {
		o.TLS, err = access.TLS(params)
	}
	if err != nil {
		return o, fmt.Errorf("registry: consul: %w", err)
	}
	return o, nil
}

func withPort(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), defaultPort)
}
