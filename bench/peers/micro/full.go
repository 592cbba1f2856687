package main

import (
	"context"
	"strconv"

	"github.com/cb02dfca/micro/bench/echo"
	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// full is a call with everything that a call of the framework has.
type full struct{ tls, keep bool }

func (p full) Serve(c cell.Cell, delivered *worker.Counter) (worker.Place, error) {
	if p.tls && c.Kind != cell.Call || p.keep && c.Kind != cell.Fanout {
		return worker.Place{}, worker.ErrUnfit
	}
	if c.Kind == cell.Fanout {
		var opts []broker.SubscribeOption
		if !p.keep {
			opts = append(opts, broker.Reuse())
		}
		return subscribe(c, delivered, opts...)
	}
	return serving{middleware: true, tls: p.tls, endpoints: c.Endpoints}.serve()
}

func (p full) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	switch c.Kind {
	case cell.Fanout:
		return publish(c, at)
	case cell.Stream:
		return streams(c, at)
	case cell.Idle:
		return idle(c, at)
	}
	cl, err := connect(c, at)
	if err != nil {
		return nil, err
	}
	var ops []worker.Op
	for range c.Callers {
		ops = append(ops, call(cl, c))
	}
	return ops, nil
}

// connect makes the client, with the connections that the cell says.
func connect(c cell.Cell, at worker.Place) (*client.Client, error) {
	r, err := listing(at, c.Nodes)
	if err != nil {
		return nil, err
	}
	t, err := dialler(at)
	if err != nil {
		return nil, err
	}
	return client.New(client.WithRegistry(r), client.WithTransport(t), client.WithConnections(c.Conns), client.WithMiddleware(invoke))
}

func invoke(next client.Invoker) client.Invoker {
	return func(ctx context.Context, req *client.Request) (*client.Response, error) { return next(ctx, req) }
}

func call(cl *client.Client, c cell.Cell) worker.Op {
	req, rsp := &echo.Message{Payload: worker.Payload(c.Payload)}, new(echo.Message)
	ctx := metadata.WithOutgoing(context.Background(), metadata.Of(echo.Metadata...))
	names := []string{endpoint}
	for i := 1; i < c.Endpoints; i++ {
		names = append(names, endpoint+strconv.Itoa(i))
	}
	n := 0
	return func() error {
		name := names[n%len(names)]
		n++
		if err := cl.Call(ctx, service, name, req, rsp); err != nil {
			return err
		}
		return worker.Check(rsp.Payload, req.Payload)
	}
}

func streams(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	cl, err := connect(c, at)
	if err != nil {
		return nil, err
	}
	var ops []worker.Op
	for range c.Callers {
		req, rsp := &echo.Message{Payload: worker.Payload(c.Payload)}, new(echo.Message)
		s, err := cl.Stream(context.Background(), service, streamCall, client.ContentType(proto.ContentType))
		if err != nil {
			return nil, err
		}
		if err := s.Send(req); err != nil {
			return nil, err
		}
		if err := s.CloseSend(); err != nil {
			return nil, err
		}
		ops = append(ops, func() error {
			if err := s.Recv(rsp); err != nil {
				return err
			}
			return worker.Check(rsp.Payload, req.Payload)
		})
	}
	return ops, nil
}
