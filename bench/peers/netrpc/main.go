// Command netrpc is the standard library's net/rpc with its own codec, gob.
package main

import (
	"net/rpc"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

func main() { worker.Main(map[string]worker.Peer{"netrpc-gob": peer{}}) }

type peer struct{}

// Message is the message, for gob.
type Message struct{ Payload []byte }

// Echo is the service.
type Echo struct{}

// Call answers what it got.
func (Echo) Call(req, rsp *Message) error {
	*rsp = *req
	return nil
}

func (peer) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call {
		return worker.Place{}, worker.ErrUnfit
	}
	s := rpc.NewServer()
	if err := s.Register(Echo{}); err != nil {
		return worker.Place{}, err
	}
	return worker.Listen(s.Accept)
}

func (peer) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	clients := make([]*rpc.Client, c.Conns)
	for i := range clients {
		var err error
		if clients[i], err = rpc.Dial("tcp", at.Address); err != nil {
			return nil, err
		}
	}
	var ops []worker.Op
	for i := range c.Callers {
		client, req := clients[i%len(clients)], &Message{Payload: worker.Payload(c.Payload)}
		ops = append(ops, func() error {
			var rsp Message
			if err := client.Call("Echo.Call", req, &rsp); err != nil {
				return err
			}
			return worker.Check(rsp.Payload, req.Payload)
		})
	}
	return ops, nil
}
