package main

import (
	"context"
	"errors"
	"time"

	"github.com/cb02dfca/micro/bench/echo"
	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
	"github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// bare is a call over a connection of the transport, with the codec, to the same handler: what the framework adds to it is
// the difference to full.
type bare struct{}

func (bare) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call || c.Nodes > 0 || c.Endpoints > 0 {
		return worker.Place{}, worker.ErrUnfit
	}
	return serving{}.serve()
}

func (bare) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	callers, err := dialCallers(at, c.Conns)
	if err != nil {
		return nil, err
	}
	var ops []worker.Op
	for i := range c.Callers {
		ops = append(ops, bareCall(callers[i%len(callers)], c.Payload))
	}
	return ops, nil
}

// dialCallers opens connections of the transport.
func dialCallers(at worker.Place, n int) ([]transport.Caller, error) {
	t, err := dialler(at)
	if err != nil {
		return nil, err
	}
	callers := make([]transport.Caller, n)
	for i := range callers {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		conn, err := t.Dial(ctx, at.Address)
		cancel()
		if err != nil {
			return nil, err
		}
		c, ok := conn.(transport.Caller)
		if !ok {
			c = transport.NewCaller(conn)
		}
		callers[i] = c
	}
	return callers, nil
}

func bareCall(caller transport.Caller, size int) worker.Op {
	ctx, want := context.Background(), worker.Payload(size)
	in, out := &echo.Message{Payload: want}, new(echo.Message)
	req := &transport.Message{Kind: transport.Call, Header: metadata.Of(
		transport.HeaderService, service, transport.HeaderEndpoint, endpoint, transport.HeaderContentType, proto.ContentType)}
	rsp := new(transport.Message)
	return func() error {
		n := in.SizeVT()
		if cap(req.Body) < n {
			req.Body = make([]byte, n)
		}
		req.Body = req.Body[:n]
		if _, err := in.MarshalToSizedBufferVT(req.Body); err != nil {
			return err
		}
		if err := caller.Call(ctx, req, rsp); err != nil {
			return err
		}
		if e := status.Parse(rsp.Header.Get(transport.HeaderError)); e != nil {
			return e
		}
		out.ResetVT()
		if err := out.UnmarshalVT(rsp.Body); err != nil {
			return errors.Join(errors.New("the answer does not decode"), err)
		}
		return worker.Check(out.Payload, want)
	}
}

// idle opens connections, each of which carries one call and then rests.
func idle(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	callers, err := dialCallers(at, c.Conns)
	if err != nil {
		return nil, err
	}
	var ops []worker.Op
	for _, caller := range callers {
		ops = append(ops, bareCall(caller, c.Payload))
	}
	return ops, nil
}
