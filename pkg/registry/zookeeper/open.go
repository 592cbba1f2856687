package zookeeper

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

// The environment that Open reads where the URL names no credentials-file. The two are set, or none.
const (
	EnvUsername = "ZK_USERNAME"
	EnvPassword = "ZK_PASSWORD"
)

// Open makes a client for a URL:
//
//	zookeeper://host:2181,host2:2181/prefix?ttl=10s
//
// Without a host it is the ZooKeeper of this machine, without a port 2181, without a path go-micro's prefix. The parameters are
//
//	ttl               Options.TTL
//	credentials-file  Options.CredentialsFile; else EnvUsername and EnvPassword are read, where they are set
//	tls               true: TLS, with the system's authorities; each of the files below says the same
//	ca-file           PEM: the authorities that the server's certificate may be of
//	cert-file         PEM: this client's certificate, and
//	key-file          PEM: its key
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
		return o, fmt.Errorf("registry: %s: credentials do not belong in a URL: use credentials-file, or %s and %s", u.Redacted(), EnvUsername, EnvPassword)
	case u.Opaque != "" || u.Fragment != "":
		return o, fmt.Errorf("registry: %s: want zookeeper://host:port/prefix", u.Redacted())
	}
	params, err := opener.Params(u, "ttl", access.ParamCredentials, access.ParamTLS, access.ParamCA, access.ParamCert, access.ParamKey)
	if err != nil {
		return o, fmt.Errorf("registry: %w", err)
	}
	if u.Host != "" {
		for host := range strings.SplitSeq(u.Host, ",") {
			o.Endpoints = append(o.Endpoints, withPort(host))
		}
	}
	o.Prefix = strings.Trim(u.Path, "/")
	if v, ok := params["ttl"]; ok {
		if o.TTL, err = time.ParseDuration(v); err != nil || o.TTL <= 0 {
			return o, fmt.Errorf("registry: ZooKeeper: ttl %q is not a duration above zero, such as 10s", v)
		}
	}
	if o.Username, o.Password, err = access.Login(params, EnvUsername, EnvPassword); err == nil {
		o.TLS, err = access.TLS(params)
	}
	if err != nil {
		return o, fmt.Errorf("registry: ZooKeeper: %w", err)
	}
	return o, nil
}

func withPort(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil || host == "" {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), defaultPort)
}
