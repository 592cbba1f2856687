package commands

import (
	"context"
	"fmt"
	"net/url"

	"github.com/cb02dfca/micro/pkg/broker"
	brokerhttp "github.com/cb02dfca/micro/pkg/broker/http"
	brokermemory "github.com/cb02dfca/micro/pkg/broker/memory"
	brokernats "github.com/cb02dfca/micro/pkg/broker/nats"
	"github.com/cb02dfca/micro/pkg/broker/nsq"
	brokerrabbitmq "github.com/cb02dfca/micro/pkg/broker/rabbitmq"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/bson"
	"github.com/cb02dfca/micro/pkg/codec/bsonrpc"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/jsonrpc"
	"github.com/cb02dfca/micro/pkg/codec/msgpack"
	"github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/codec/protorpc"
	"github.com/cb02dfca/micro/pkg/codec/raw"
	"github.com/cb02dfca/micro/pkg/codec/vom"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/consul"
	"github.com/cb02dfca/micro/pkg/registry/dns"
	"github.com/cb02dfca/micro/pkg/registry/etcd"
	"github.com/cb02dfca/micro/pkg/registry/gossip"
	registryhttp "github.com/cb02dfca/micro/pkg/registry/http"
	"github.com/cb02dfca/micro/pkg/registry/local"
	"github.com/cb02dfca/micro/pkg/registry/mdns"
	registrymemory "github.com/cb02dfca/micro/pkg/registry/memory"
	registrynats "github.com/cb02dfca/micro/pkg/registry/nats"
	"github.com/cb02dfca/micro/pkg/registry/zookeeper"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
	transportmemory "github.com/cb02dfca/micro/pkg/transport/memory"
	transportnats "github.com/cb02dfca/micro/pkg/transport/nats"
	transportrabbitmq "github.com/cb02dfca/micro/pkg/transport/rabbitmq"
	"github.com/cb02dfca/micro/pkg/transport/websocket"
)

// Backends is what URLs can name, by scheme. A backend that is not listed here is not in the binary.
type Backends struct {
	Registries registry.Openers
	Transports transport.Openers
	// Brokers gives what a broker's URL can name. A broker that stands on the registry asks for it; it is not closed by it.
	Brokers func(reg func(context.Context) (registry.Registry, error)) broker.Openers
	// Codecs is what the services of run speak, and what streams are opened in; none is the default of a server or client.
	Codecs codec.Set
	// Forms are the codecs beside JSON whose bodies are typed, and shown, as JSON.
	Forms codec.Set
}

// DefaultBackends lists the backends of the binary.
func DefaultBackends() Backends {
	beside := transport.Openers{"grpc": grpc.Open, "ws": websocket.Open}
	return Backends{
		Registries: registry.Openers{
			"default":   micro.DefaultRegistry,
			"local":     local.Open,
			"mdns":      mdns.Open,
			"memory":    registrymemory.Open,
			"consul":    consul.Open,
			"dns":       dns.Open,
			"etcd":      etcd.Open,
			"gossip":    gossip.Open,
			"zookeeper": zookeeper.Open,
			"nats":      registrynats.Open,
			"http":      registryhttp.Open,
			"https":     registryhttp.Open,
		},
		Transports: transport.Openers{
			"http":     transporthttp.OpenBeside(beside, "grpc"),
			"https":    transporthttp.OpenBeside(beside, "grpc"),
			"grpc":     grpc.Open,
			"grpcs":    grpc.Open,
			"memory":   transportmemory.Open,
			"ws":       websocket.Open,
			"wss":      websocket.Open,
			"nats":     transportnats.Open,
			"rabbitmq": transportrabbitmq.Open,
			"amqp":     transportrabbitmq.Open,
		},
		Codecs: codec.Set{json.Strict(), proto.New(), raw.New(), msgpack.Strict(), codec.Alias(msgpack.Strict(), msgpack.Registered), bson.Strict(), vom.New(),
			jsonrpc.New(json.Strict()), protorpc.New(proto.New()), bsonrpc.New(bson.Strict())},
		Forms: codec.Set{msgpack.New(), codec.Alias(msgpack.New(), msgpack.Registered), bson.New(), jsonrpc.New(json.New()), bsonrpc.New(bson.New())},
		Brokers: func(reg func(context.Context) (registry.Registry, error)) broker.Openers {
			return addTagged(broker.Openers{
				"memory":   brokermemory.Open,
				"nats":     brokernats.Open,
				"rabbitmq": brokerrabbitmq.Open,
				"amqp":     brokerrabbitmq.Open,
				"nsq":      nsq.Open,
				"http": func(ctx context.Context, u *url.URL) (broker.Broker, error) {
					r, err := reg(ctx)
					if err != nil {
						return nil, fmt.Errorf("broker http: %w", err)
					}
					return brokerhttp.Open(r, brokerhttp.Options{})(ctx, u)
				},
			})
		},
	}
}
