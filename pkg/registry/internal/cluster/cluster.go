// Package cluster reads the URL of a registry that stands on several servers, and keeps its nodes below a prefix, as etcd and ZooKeeper do.
package cluster

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/internal/opener"
)

// Kind is what tells such registries apart.
type Kind struct {
	Name                     string // of the servers, for errors: "etcd"
	Port                     string // of those that name none
	EnvUsername, EnvPassword string // the environment that is read where the URL names no credentials-file
}

// URL is what one says:
//
//	etcd://host:2379,host2:2379/prefix?ttl=10s
type URL struct {
	Endpoints          []string // host:port; none is the kind's own default
	Prefix             string   // without slashes at its ends; empty is the kind's own default
	TTL                time.Duration
	Username, Password string // both or none
	TLS                *tls.Config
}

// Parse reads u, with the parameters ttl, and package access's of a login and of TLS. Credentials in the URL are refused, and no error
// tells them.
func Parse(u *url.URL, k Kind) (URL, error) {
	var out URL
	switch {
	case u.User != nil:
		return out, fmt.Errorf("registry: %s: credentials do not belong in a URL: use %s, or %s and %s", opener.Redacted(u), access.ParamCredentials, k.EnvUsername, k.EnvPassword)
	case u.Opaque != "" || u.Fragment != "":
		return out, fmt.Errorf("registry: %s: want %s://host:port/prefix", opener.Redacted(u), u.Scheme)
	}
	params, err := opener.Params(u, "ttl", access.ParamCredentials, access.ParamTLS, access.ParamCA, access.ParamCert, access.ParamKey)
	if err != nil {
		return out, fmt.Errorf("registry: %w", err)
	}
	if u.Host != "" {
		for host := range strings.SplitSeq(u.Host, ",") {
			out.Endpoints = append(out.Endpoints, k.withPort(host))
		}
	}
	out.Prefix = strings.Trim(u.Path, "/")
	if v, ok := params["ttl"]; ok {
		if out.TTL, err = time.ParseDuration(v); err != nil || out.TTL <= 0 {
			return out, fmt.Errorf("registry: %s: ttl %q is not a duration above zero, such as 10s", k.Name, v)
		}
	}
	if out.Username, out.Password, err = access.Login(params, k.EnvUsername, k.EnvPassword); err == nil {
		out.TLS, err = access.TLS(params)
	}
	if err != nil {
		return out, fmt.Errorf("registry: %s: %w", k.Name, err)
	}
	return out, nil
}

func (k Kind) withPort(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil || host == "" {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), k.Port)
}
