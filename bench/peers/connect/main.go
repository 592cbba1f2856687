// Command connect is Connect's own protocol, over HTTP/1.1 (connect-h1) and over HTTP/2 without TLS (connect-h2c).
// Compression is off, as with all peers: with it Connect's streams take five times as long.
package main

import (
	"context"
	"net"
	"net/http"

	"connectrpc.com/connect"

	"github.com/cb02dfca/micro/bench/echo"
	"github.com/cb02dfca/micro/bench/echo/connectecho"
	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

func main() {
	worker.Main(map[string]worker.Peer{"connect-h1": peer{}, "connect-h2c": peer{h2c: true}})
}

type peer struct{ h2c bool }

type service struct{}

func (service) Call(_ context.Context, req *connect.Request[echo.Message]) (*connect.Response[echo.Message], error) {
	return connect.NewResponse(req.Msg), nil
}

func (service) Stream(_ context.Context, req *connect.Request[echo.Message], out *connect.ServerStream[echo.Message]) error {
	for {
		if err := out.Send(req.Msg); err != nil {
			return err
		}
	}
}

func (p peer) protocols() *http.Protocols {
	var ps http.Protocols
	ps.SetHTTP1(!p.h2c)
	ps.SetUnencryptedHTTP2(p.h2c)
	return &ps
}

func (p peer) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call && c.Kind != cell.Stream {
		return worker.Place{}, worker.ErrUnfit
	}
	mux := http.NewServeMux()
	mux.Handle(connectecho.NewEchoHandler(service{}))
	mux.Handle(connectecho.NewSourceHandler(service{}))
	s := &http.Server{Handler: mux, Protocols: p.protocols()}
	return worker.Listen(func(l net.Listener) { s.Serve(l) })
}

func (p peer) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	clients := make([]*http.Client, c.Conns)
	if !p.h2c { // a connection for each caller
		clients = make([]*http.Client, c.Callers)
	}
	for i := range clients {
		clients[i] = &http.Client{Transport: &http.Transport{Protocols: p.protocols(), DisableCompression: true}}
	}
	plain := connect.WithAcceptCompression("gzip", nil, nil)
	var ops []worker.Op
	for i := range c.Callers {
		h, url := clients[i%len(clients)], "http://"+at.Address
		if c.Kind == cell.Stream {
			op, err := stream(connectecho.NewSourceClient(h, url, plain), c.Payload)
			if err != nil {
				return nil, err
			}
			ops = append(ops, op)
			continue
		}
		ops = append(ops, call(connectecho.NewEchoClient(h, url, plain), c.Payload))
	}
	return ops, nil
}

func call(client connectecho.EchoClient, size int) worker.Op {
	req := &echo.Message{Payload: worker.Payload(size)}
	return func() error {
		rsp, err := client.Call(context.Background(), connect.NewRequest(req))
		if err != nil {
			return err
		}
		return worker.Check(rsp.Msg.Payload, req.Payload)
	}
}

func stream(client connectecho.SourceClient, size int) (worker.Op, error) {
	req := &echo.Message{Payload: worker.Payload(size)}
	in, err := client.Stream(context.Background(), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return func() error {
		if !in.Receive() {
			return in.Err()
		}
		return worker.Check(in.Msg().Payload, req.Payload)
	}, nil
}
