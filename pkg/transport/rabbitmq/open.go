package rabbitmq

import (
	"context"
	"fmt"
	"net/url"

	"github.com/cb02dfca/micro/internal/amqpconn"
	"github.com/cb02dfca/micro/pkg/transport"
)

// The environment that Open reads where the URL names no credentials-file.
const (
	EnvUsername = amqpconn.EnvUsername
	EnvPassword = amqpconn.EnvPassword
)

// Open makes a Transport for a URL:
//
//	rabbitmq://host:5672,host2:5672/vhost
//
// Without a host it is the RabbitMQ of this machine, without a port 5672, or 5671 with TLS, without a path the virtual host "/".
// The parameters are
//
//	credentials-file  Options.CredentialsFile; else EnvUsername and EnvPassword are read, where they are set
//	tls               true: TLS, with the system's authorities; each of the files below says the same
//	ca-file           PEM: the authorities that RabbitMQ's certificate may be of
//	cert-file         PEM: this program's certificate, and
//	key-file          PEM: its key
func Open(_ context.Context, u *url.URL) (transport.Transport, error) {
	conn, _, err := amqpconn.Parse(u)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	t, err := New(Options{Addrs: conn.Addrs, VHost: conn.VHost, Username: conn.Username, Password: conn.Password, TLS: conn.TLS})
	if err != nil {
		return nil, err // not a Transport that holds a nil *Transport
	}
	return t, nil
}
