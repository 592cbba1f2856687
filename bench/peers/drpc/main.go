// Command drpc is drpc. A connection has one call or stream under way, so each caller has one of its own, whatever the cell
// says.
package main

import (
	"context"
	"net"

	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcserver"

	"github.com/cb02dfca/micro/bench/echo"
	"github.com/cb02dfca/micro/bench/echo/drpcecho"
	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

func main() { worker.Main(map[string]worker.Peer{"drpc": peer{}}) }

type peer struct{}

type service struct{}

func (service) Call(_ context.Context, m *echo.Message) (*echo.Message, error) { return m, nil }

func (service) Stream(m *echo.Message, out drpcecho.DRPCSource_StreamStream) error {
	for {
		if err := out.Send(m); err != nil {
			return err
		}
	}
}

func (peer) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call && c.Kind != cell.Stream {
		return worker.Place{}, worker.ErrUnfit
	}
	mux := drpcmux.New()
	if err := drpcecho.DRPCRegisterEcho(mux, service{}); err != nil {
		return worker.Place{}, err
	}
	if err := drpcecho.DRPCRegisterSource(mux, service{}); err != nil {
		return worker.Place{}, err
	}
	return worker.Listen(func(l net.Listener) { drpcserver.New(mux).Serve(context.Background(), l) })
}

func (peer) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	var ops []worker.Op
	for range c.Callers {
		raw, err := net.Dial("tcp", at.Address)
		if err != nil {
			return nil, err
		}
		conn, req := drpcconn.New(raw), &echo.Message{Payload: worker.Payload(c.Payload)}
		if c.Kind == cell.Stream {
			in, err := drpcecho.NewDRPCSourceClient(conn).Stream(context.Background(), req)
			if err != nil {
				return nil, err
			}
			ops = append(ops, checked(in.Recv, req))
			continue
		}
		client := drpcecho.NewDRPCEchoClient(conn)
		ops = append(ops, checked(func() (*echo.Message, error) { return client.Call(context.Background(), req) }, req))
	}
	return ops, nil
}

func checked(f func() (*echo.Message, error), want *echo.Message) worker.Op {
	return func() error {
		m, err := f()
		if err != nil {
			return err
		}
		return worker.Check(m.Payload, want.Payload)
	}
}
