// Package v5 is a program of go-micro v5, in the version that the module of the program requires.
package v5

import (
	"fmt"

	"github.com/cb02dfca/micro/servers/gomicropeer"
	"go-micro.dev/v5"
	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/client"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/server"
)

var made string

// Main runs the program by its arguments. The service says what version it is of.
func Main(version string) {
	made = version
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
