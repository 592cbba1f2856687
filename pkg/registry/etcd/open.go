package etcd

import (
	"context"
	"net/url"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/cluster"
)

// The environment that Open reads where the URL names no credentials-file. They are go-micro's names, and etcdctl's.
const (
	EnvUsername = "ETCD_USERNAME"
	EnvPassword = "ETCD_PASSWORD"
)

// Open makes a client for a URL:
//
//	etcd://host:2379,host2:2379/prefix?ttl=10s
//
// Without a host it is the etcd of this machine, without a port 2379, without a path go-micro's prefix. The parameters are
//
//	ttl               Options.TTL
//	credentials-file  Options.CredentialsFile; else EnvUsername and EnvPassword are read, where they are set
//	tls               true: TLS, with the system's authorities; each of the files below says the same
//	ca-file           PEM: the authorities that etcd's certificate may be of
//	cert-file         PEM: this client's certificate, and
//	key-file          PEM: its key
func Open(_ context.Context, u *url.URL) (registry.Registry, error) {
	c, err := cluster.Parse(u, cluster.Kind{Name: "etcd", Port: defaultPort, EnvUsername: EnvUsername, EnvPassword: EnvPassword})
	if err != nil {
		return nil, err
	}
	r, err := New(Options{Endpoints: c.Endpoints, Prefix: c.Prefix, TTL: c.TTL, Username: c.Username, Password: c.Password, TLS: c.TLS})
	if err != nil {
		return nil, err // not a Registry that holds a nil *Registry
	}
	return r, nil
}
