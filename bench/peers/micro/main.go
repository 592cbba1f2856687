// Command micro is this project.
//
//	micro       a whole call: client.Call with a registry, a selector, the default timeout, four pairs of metadata and a
//	            middleware on each side, to a service that micro.Service runs; its handler is server.Pooled, that is, it
//	            agrees that its messages are used again
//	            and subscribers do with broker.Reuse; publishers are in a service, too
//	micro-keep  publish and subscribe without broker.Reuse: a handler may keep the messages that it is given
//	micro-bare  the same message over the transport alone, without client.Client, to the same handler
//	micro-tls   micro over TLS
//	micro-json  plain HTTP and JSON by net/http's client, as curl comes, to the same service
//
// and two that call nobody: micro-select chooses a node, micro-watch changes one and waits until those who watch know.
package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strconv"

	"github.com/cb02dfca/micro/bench/echo"
	"github.com/cb02dfca/micro/bench/internal/jsonhttp"
	"github.com/cb02dfca/micro/bench/internal/worker"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/transport"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

func main() {
	worker.Main(map[string]worker.Peer{
		"micro":      full{},
		"micro-tls":  full{tls: true},
		"micro-keep": full{keep: true},
		"micro-bare": bare{},
		"micro-json": plain{},

		"micro-select": selection{},
		"micro-watch":  selection{change: true},
	})
}

const (
	service     = "echo"
	endpoint    = "Echo.Call"
	jsonCall    = "Echo.JSON"
	streamCall  = "Echo.Stream"
	maxParallel = 100_000 // calls and connections: more than any cell has
)

// serving says how a service is set up.
type serving struct {
	middleware bool
	tls        bool
	endpoints  int // that a caller goes through by turns; 0 is 1
}

// serve runs the echo service and gives its place, with the node's record as the registry has it.
func (s serving) serve() (worker.Place, error) {
	at, o := worker.Place{}, transporthttp.Options{MaxConns: maxParallel, MaxMessage: 8 << 20}
	if s.tls {
		config, der, err := worker.Certificate()
		if err != nil {
			return at, err
		}
		o.TLSConfig, at.Certificate = config, der
	}
	t, err := transporthttp.New(o)
	if err != nil {
		return at, err
	}
	opts := []micro.Option{
		micro.Registry(memory.New()), micro.Transport(t),
		micro.ServerOptions(server.MaxCalls(maxParallel), server.MaxStreams(maxParallel)),
	}
	if s.middleware {
		opts = append(opts, micro.ServerOptions(server.WithMiddleware(passOn)))
	}
	svc, err := run(s.register, opts...)
	if err != nil {
		return at, err
	}
	node := svc.Node()
	node.Endpoints = nil
	at.Address = node.Address
	at.Extra, err = json.Marshal([]registry.Node{node})
	return at, err
}

// run runs a service with the handlers that register gives it, and returns when it is listed.
func run(register func(*micro.Service) error, opts ...micro.Option) (*micro.Service, error) {
	listed := make(chan struct{})
	svc, err := micro.New(service, append(opts, micro.Signals(false),
		micro.Logger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))),
		micro.AfterStart(func(context.Context) error { close(listed); return nil }))...)
	if err != nil {
		return nil, err
	}
	if err := register(svc); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(context.Background()) }()
	select {
	case err := <-ended:
		return nil, err
	case <-listed:
		return svc, nil
	}
}

func (s serving) register(svc *micro.Service) error {
	call := func(_ context.Context, m *echo.Message) (*echo.Message, error) { return m, nil }
	if err := micro.Handle(svc, endpoint, call, server.Pooled()); err != nil {
		return err
	}
	for i := 1; i < s.endpoints; i++ {
		if err := micro.Handle(svc, endpoint+strconv.Itoa(i), call, server.Pooled()); err != nil {
			return err
		}
	}
	if err := micro.Handle(svc, jsonCall, func(_ context.Context, d *jsonhttp.Document) (*jsonhttp.Document, error) { return d, nil }); err != nil {
		return err
	}
	return micro.HandleServerStream(svc, streamCall, func(_ context.Context, m *echo.Message, out *micro.Sender[echo.Message]) error {
		for {
			if err := out.Send(m); err != nil {
				return err
			}
		}
	})
}

func passOn(next server.Handler) server.Handler {
	return func(ctx context.Context, c *server.Call) error { return next(ctx, c) }
}

// nodes gives what a server told of itself.
func nodes(at worker.Place) ([]registry.Node, error) {
	var list []registry.Node
	return list, json.Unmarshal(at.Extra, &list)
}

// listing makes a registry that has the nodes of a server; with more than it has asked for, further ones at the same
// addresses.
func listing(at worker.Place, n int) (*memory.Registry, error) {
	list, err := nodes(at)
	if err != nil {
		return nil, err
	}
	r := memory.New()
	for i := range max(n, len(list)) {
		node := list[i%len(list)]
		if i >= len(list) {
			node.ID += "-" + strconv.Itoa(i)
		}
		if err := r.Register(context.Background(), node, 0); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// dialler makes the transport of a client.
func dialler(at worker.Place) (transport.Transport, error) {
	config, err := at.TLS()
	if err != nil {
		return nil, err
	}
	return transporthttp.New(transporthttp.Options{TLSConfig: config, MaxMessage: 8 << 20})
}
