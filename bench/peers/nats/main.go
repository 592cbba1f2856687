// Command nats is nats.go: its micro services for calls, NATS core for messages to subscribers. The NATS server is in the
// process of the service or of the subscribers, which spares it a process and costs it nothing: all is done over TCP.
package main

import (
	"errors"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/cb02dfca/micro/bench/echo"
	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

func main() { worker.Main(map[string]worker.Peer{"nats-micro": peer{}}) }

type peer struct{}

const (
	callSubject = "echo.call"
	topic       = "echo.events"
	patience    = 5 * time.Second
)

func (peer) Serve(c cell.Cell, delivered *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call && c.Kind != cell.Fanout {
		return worker.Place{}, worker.ErrUnfit
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, MaxPayload: 8 << 20})
	if err != nil {
		return worker.Place{}, err
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		return worker.Place{}, errors.New("the NATS server does not get ready")
	}
	at := worker.Place{Address: s.ClientURL()}
	if c.Kind == cell.Fanout {
		return at, subscribe(at.Address, c.Conns, delivered)
	}
	return at, serve(at.Address)
}

func serve(url string) error {
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	svc, err := micro.AddService(nc, micro.Config{Name: "echo", Version: "1.0.0"})
	if err != nil {
		return err
	}
	err = svc.AddEndpoint("call", micro.HandlerFunc(func(r micro.Request) {
		var m echo.Message
		if err := m.UnmarshalVT(r.Data()); err != nil {
			_ = r.Error("400", err.Error(), nil)
			return
		}
		body, _ := m.MarshalVT() // never fails
		_ = r.Respond(body)
	}), micro.WithEndpointSubject(callSubject))
	if err != nil {
		return err
	}
	return nc.Flush()
}

// subscribe has n subscribers with a connection each, and no bound on what waits for them.
func subscribe(url string, n int, delivered *worker.Counter) error {
	for i := range n {
		nc, err := nats.Connect(url)
		if err != nil {
			return err
		}
		count := delivered.Shard(i)
		sub, err := nc.Subscribe(topic, func(*nats.Msg) { count.Add(1) })
		if err != nil {
			return err
		}
		if err := errors.Join(sub.SetPendingLimits(-1, -1), nc.Flush()); err != nil {
			return err
		}
	}
	return nil
}

func (peer) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	n := c.Conns
	if c.Kind == cell.Fanout {
		n = c.Callers
	}
	conns := make([]*nats.Conn, n)
	for i := range conns {
		var err error
		if conns[i], err = nats.Connect(at.Address); err != nil {
			return nil, err
		}
	}
	var ops []worker.Op
	for i := range c.Callers {
		nc := conns[i%len(conns)]
		if c.Kind == cell.Fanout {
			ops = append(ops, publish(nc, worker.Payload(c.Payload), worker.Batch(c)))
		} else {
			ops = append(ops, call(nc, &echo.Message{Payload: worker.Payload(c.Payload)}))
		}
	}
	return ops, nil
}

func call(nc *nats.Conn, req *echo.Message) worker.Op {
	var rsp echo.Message
	return func() error {
		body, err := req.MarshalVT()
		if err != nil {
			return err
		}
		m, err := nc.Request(callSubject, body, patience)
		if err != nil {
			return err
		}
		rsp.ResetVT()
		if err := rsp.UnmarshalVT(m.Data); err != nil {
			return err
		}
		return worker.Check(rsp.Payload, req.Payload)
	}
}

// publish gives an operation that publishes as many messages as the other peers do at once, and waits until the server has
// them, so that they do not heap up.
func publish(nc *nats.Conn, body []byte, batch int) worker.Op {
	return func() error {
		for range batch {
			if err := nc.Publish(topic, body); err != nil {
				return err
			}
		}
		return nc.FlushTimeout(patience)
	}
}
