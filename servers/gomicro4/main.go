// Program gomicro4 is go-micro v4.11 in a process of its own, for the tests of what it and this project have of each other:
// gomicropeer.Main says what it does by its arguments.
package main

import (
	"fmt"

	"github.com/cb02dfca/micro/servers/gomicropeer"
	"go-micro.dev/v4"
	"go-micro.dev/v4/broker"
	"go-micro.dev/v4/client"
	"go-micro.dev/v4/registry"
	"go-micro.dev/v4/server"
)

// made is the version, which the service says.
const made = "v4.11.0"

func main() {
	gomicropeer.Main(gomicropeer.Version{
		Client: newClient, Serve: serve,
		Request: func() any { return new(Request) }, Response: func() any { return new(Response) },
	})
}

// parts are what a service or a client of the flags is made of: the registry and the broker are the defaults.
func parts(o *gomicropeer.Options) ([]micro.Option, error) {
	if o.Protocol != "" && o.Protocol != "mucp" {
		return nil, fmt.Errorf("no protocol %s", o.Protocol)
	}
	r := registry.DefaultRegistry
	if o.Registry == "memory" {
		r = registry.NewMemoryRegistry()
	}
	options := []broker.Option{broker.Registry(r)}
	if o.BrokerAddress != "" {
		options = append(options, broker.Addrs(o.BrokerAddress))
	}
	b := broker.DefaultBroker
	if err := b.Init(options...); err != nil {
		return nil, err
	}
	return []micro.Option{micro.Server(server.NewServer()), micro.Client(client.NewClient()), micro.Registry(r), micro.Broker(b)}, nil
}
