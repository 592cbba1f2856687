package nats

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/cb02dfca/micro/internal/natsconn"
	"github.com/cb02dfca/micro/pkg/registry"
)

// The environment that Open reads where the URL names no file.
const (
	EnvUsername = natsconn.EnvUsername
	EnvPassword = natsconn.EnvPassword
	EnvToken    = natsconn.EnvToken
	EnvCreds    = natsconn.EnvCreds
)

// Open makes a client for a URL:
//
//	nats://host:4222,host2:4222?ttl=10s
//
// Without a host it is the NATS of this machine, without a port 4222. The parameters are
//
//	ttl               Options.TTL
//	prefix            Options.Prefix
//	credentials-file  Options.CredentialsFile
//	token-file        a file of one line, the token
//	tls               true: TLS, with the system's authorities; each of the files below says the same
//	ca-file           PEM: the authorities that NATS's certificate may be of
//	cert-file         PEM: this client's certificate, and
//	key-file          PEM: its key
//
// Without credentials-file and token-file the login is that of EnvCreds, EnvUsername and EnvPassword, or EnvToken, where they are set.
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
	c, params, err := natsconn.Parse(u, words(), "ttl", "prefix")
	if err != nil {
		return Options{}, err
	}
	o := Options{
		Servers: c.Servers, Username: c.Username, Password: c.Password, Token: c.Token, CredentialsFile: c.CredentialsFile,
		TLS: c.TLS, Prefix: params["prefix"],
	}
	if v, ok := params["ttl"]; ok {
		if o.TTL, err = time.ParseDuration(v); err != nil || o.TTL <= 0 {
			return o, fmt.Errorf("registry: nats: ttl %q is not a duration above zero, such as 10s", v)
		}
	}
	return o, nil
}
