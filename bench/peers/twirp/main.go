// Command twirp is Twirp with protobuf, over HTTP/1.1: each caller has a connection of its own, whatever the cell says.
package main

import (
	"context"
	"net"
	"net/http"

	"github.com/cb02dfca/micro/bench/echo"
	"github.com/cb02dfca/micro/bench/echo/twirpecho"
	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

func main() { worker.Main(map[string]worker.Peer{"twirp": peer{}}) }

type peer struct{}

type service struct{}

func (service) Call(_ context.Context, m *echo.Message) (*echo.Message, error) { return m, nil }

func (peer) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call {
		return worker.Place{}, worker.ErrUnfit
	}
	return worker.Listen(func(l net.Listener) { http.Serve(l, twirpecho.NewEchoServer(service{})) })
}

func (peer) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	h := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: c.Callers, DisableCompression: true}}
	client := twirpecho.NewEchoProtobufClient("http://"+at.Address, h)
	var ops []worker.Op
	for range c.Callers {
		req := &echo.Message{Payload: worker.Payload(c.Payload)}
		ops = append(ops, func() error {
			rsp, err := client.Call(context.Background(), req)
			if err != nil {
				return err
			}
			return worker.Check(rsp.Payload, req.Payload)
		})
	}
	return ops, nil
}
