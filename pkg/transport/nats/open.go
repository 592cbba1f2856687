package nats

import (
	"context"
	"fmt"
	"net/url"
	"strconv"

	"github.com/cb02dfca/micro/internal/natsconn"
	"github.com/cb02dfca/micro/pkg/transport"
)

// The environment that Open reads where the URL names no file.
const (
	EnvUsername = natsconn.EnvUsername
	EnvPassword = natsconn.EnvPassword
	EnvToken    = natsconn.EnvToken
	EnvCreds    = natsconn.EnvCreds
)

// Open makes a Transport for a URL:
//
//	nats://host:4222,host2:4222?max-message=16777216
//
// Without a host it is the NATS of this machine, without a port 4222. The parameters are
//
//	max-message       Options.MaxMessage
//	credentials-file  Options.CredentialsFile
//	token-file        a file of one line, the token
//	tls               true: TLS, with the system's authorities; each of the files below says the same
//	ca-file           PEM: the authorities that NATS's certificate may be of
//	cert-file         PEM: this program's certificate, and
//	key-file          PEM: its key
//
// Without credentials-file and token-file the login is that of EnvCreds, EnvUsername and EnvPassword, or EnvToken, where they are set.
func Open(_ context.Context, u *url.URL) (transport.Transport, error) {
	c, params, err := natsconn.Parse(u, words(), "max-message")
	if err != nil {
		return nil, err
	}
	o := Options{Servers: c.Servers, Username: c.Username, Password: c.Password, Token: c.Token, CredentialsFile: c.CredentialsFile, TLS: c.TLS}
	if v, ok := params["max-message"]; ok {
		if o.MaxMessage, err = strconv.Atoi(v); err != nil || o.MaxMessage < 1 {
			return nil, fmt.Errorf("transport: nats: max-message %q is no number of bytes", v)
		}
	}
	t, err := New(o)
	if err != nil {
		return nil, err // not a Transport that holds a nil *Transport
	}
	return t, nil
}
