// Program gomicro2 is go-micro v2.9 in a process of its own, for the tests of what it and this project have of each other:
// gomicropeer.Main says what it does by its arguments. Its protocol is gRPC, go-micro v2's default, or mucp.
package main

import (
	"fmt"

	"github.com/cb02dfca/micro/servers/gomicropeer"
	"github.com/micro/go-micro/v2"
	"github.com/micro/go-micro/v2/broker"
	"github.com/micro/go-micro/v2/client"
	grpcclient "github.com/micro/go-micro/v2/client/grpc"
	"github.com/micro/go-micro/v2/registry"
	"github.com/micro/go-micro/v2/registry/memory"
	"github.com/micro/go-micro/v2/server"
	grpcserver "github.com/micro/go-micro/v2/server/grpc"
)

const made = "v2.9.1"

func main() {
	gomicropeer.Main(gomicropeer.Version{
		Client: newClient, Serve: serve,
		Request: func() any { return new(Request) }, Response: func() any { return new(Response) },
	})
}

// parts are what a service or a client of the flags is made of.
func parts(o *gomicropeer.Options) ([]micro.Option, error) {
	var own []micro.Option
	switch o.Protocol {
	case "", "grpc":
		own = []micro.Option{micro.Server(grpcserver.NewServer()), micro.Client(grpcclient.NewClient())}
	case "mucp":
		own = []micro.Option{micro.Server(server.NewServer()), micro.Client(client.NewClient())}
	default:
		return nil, fmt.Errorf("no protocol %s", o.Protocol)
	}
	r := registry.NewRegistry()
	if o.Registry == "memory" {
		r = memory.NewRegistry()
	}
	options := []broker.Option{broker.Registry(r)}
	if o.BrokerAddress != "" {
		options = append(options, broker.Addrs(o.BrokerAddress))
	}
	return append(own, micro.Registry(r), micro.Broker(broker.NewBroker(options...))), nil
}
