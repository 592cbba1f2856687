package rabbitmq

import (
	"context"
	"fmt"
	"net/url"
	"strconv"

	"github.com/cb02dfca/micro/internal/amqpconn"
	"github.com/cb02dfca/micro/pkg/broker"
)

// The environment that Open reads where the URL names no credentials-file.
const (
	EnvUsername = amqpconn.EnvUsername
	EnvPassword = amqpconn.EnvPassword
)

// Open makes a client for a URL:
//
//	rabbitmq://host:5672,host2:5672/vhost?tries=10
//
// Without a host it is the RabbitMQ of this machine, without a port 5672, or 5671 with TLS, without a path the virtual host "/".
// The parameters are
//
//	exchange          Options.Exchange
//	queue-type        Options.QueueType
//	tries             Options.Tries
//	credentials-file  Options.CredentialsFile; else EnvUsername and EnvPassword are read, where they are set
//	tls               true: TLS, with the system's authorities; each of the files below says the same
//	ca-file           PEM: the authorities that RabbitMQ's certificate may be of
//	cert-file         PEM: this client's certificate, and
//	key-file          PEM: its key
func Open(_ context.Context, u *url.URL) (broker.Broker, error) {
	conn, params, err := amqpconn.Parse(u, "exchange", "queue-type", "tries")
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	o := Options{
		Addrs: conn.Addrs, VHost: conn.VHost, Username: conn.Username, Password: conn.Password, TLS: conn.TLS,
		Exchange: params["exchange"], QueueType: params["queue-type"],
	}
	if v, ok := params["tries"]; ok {
		if o.Tries, err = strconv.Atoi(v); err != nil || o.Tries < 1 {
			return nil, fmt.Errorf("broker: rabbitmq: tries %q is not a number from 1 to %d", v, maxTries)
		}
	}
	b, err := New(o)
	if err != nil {
		return nil, err // not a Broker that holds a nil *Broker
	}
	return b, nil
}
