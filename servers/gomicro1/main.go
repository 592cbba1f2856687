// Program gomicro1 is go-micro v1.18 in a process of its own, for the tests of what it and this project have of each other:
// gomicropeer.Main says what it does by its arguments.
package main

import (
	"fmt"

	"github.com/cb02dfca/micro/servers/gomicropeer"
	"github.com/micro/go-micro/broker"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
)

const made = "v1.18.0"

func main() {
	gomicropeer.Main(gomicropeer.Version{
		Client: newClient, Serve: serve,
		Request: func() any { return new(Request) }, Response: func() any { return new(Response) },
	})
}

// parts are what a service and a client of the flags are made of. They are put together here as micro.NewService does it: its package
// brings a QUIC in, by go-micro's flags, that refuses to start with a Go later than 1.13.
type parts struct {
	registry registry.Registry
	broker   broker.Broker
}

func newParts(o *gomicropeer.Options) (parts, error) {
	if o.Protocol != "" && o.Protocol != "mucp" {
		return parts{}, fmt.Errorf("no protocol %s", o.Protocol)
	}
	r := registry.NewRegistry()
	if o.Registry == "memory" {
		r = memory.NewRegistry()
	}
	options := []broker.Option{broker.Registry(r)}
	if o.BrokerAddress != "" {
		options = append(options, broker.Addrs(o.BrokerAddress))
	}
	return parts{r, broker.NewBroker(options...)}, nil
}
