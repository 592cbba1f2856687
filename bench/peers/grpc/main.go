// Command grpc is gRPC-Go: with its defaults (grpc), over TLS (grpc-tls), and with what a call of a framework has beside:
// a deadline, four pairs of metadata and an interceptor on each side (grpc-full).
package main

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/cb02dfca/micro/bench/echo"
	"github.com/cb02dfca/micro/bench/echo/grpcecho"
	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

func main() {
	worker.Main(map[string]worker.Peer{"grpc": peer{}, "grpc-tls": peer{tls: true}, "grpc-full": peer{full: true}})
}

type peer struct{ tls, full bool }

type service struct {
	grpcecho.UnimplementedEchoServer
	grpcecho.UnimplementedSourceServer
}

func (service) Call(_ context.Context, m *echo.Message) (*echo.Message, error) { return m, nil }

func (service) Stream(m *echo.Message, out grpc.ServerStreamingServer[echo.Message]) error {
	for {
		if err := out.Send(m); err != nil {
			return err
		}
	}
}

func (p peer) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if (p.tls || p.full) && c.Kind != cell.Call {
		return worker.Place{}, worker.ErrUnfit
	}
	if c.Kind == cell.Fanout || c.Nodes > 0 || c.Endpoints > 0 {
		return worker.Place{}, worker.ErrUnfit
	}
	opts, certificate := []grpc.ServerOption{grpc.MaxRecvMsgSize(8 << 20)}, []byte(nil)
	if p.tls {
		config, der, err := worker.Certificate()
		if err != nil {
			return worker.Place{}, err
		}
		certificate = der
		opts = append(opts, grpc.Creds(credentials.NewTLS(config)))
	}
	if p.full {
		opts = append(opts, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return next(ctx, req)
		}))
	}
	s := grpc.NewServer(opts...)
	grpcecho.RegisterEchoServer(s, service{})
	grpcecho.RegisterSourceServer(s, service{})
	at, err := worker.Listen(func(l net.Listener) { s.Serve(l) })
	at.Certificate = certificate
	return at, err
}

func (p peer) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	conns := make([]*grpc.ClientConn, c.Conns)
	for i := range conns {
		var err error
		if conns[i], err = p.dial(at); err != nil {
			return nil, err
		}
	}
	callers := c.Callers
	if c.Kind == cell.Idle {
		callers = c.Conns
	}
	var ops []worker.Op
	for i := range callers {
		conn := conns[i%len(conns)]
		if c.Kind == cell.Stream {
			op, err := stream(conn, c.Payload)
			if err != nil {
				return nil, err
			}
			ops = append(ops, op)
			continue
		}
		ops = append(ops, p.call(grpcecho.NewEchoClient(conn), c.Payload))
	}
	return ops, nil
}

// dial connects at once: a ClientConn does so at its first call otherwise.
func (p peer) dial(at worker.Place) (*grpc.ClientConn, error) {
	opts := []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(8 << 20))}
	config, err := at.TLS()
	if err != nil {
		return nil, err
	}
	if config != nil {
		opts = append(opts, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	} else {
		opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	if p.full {
		opts = append(opts, grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return next(ctx, method, req, reply, cc, opts...)
		}))
	}
	conn, err := grpc.NewClient("passthrough:///"+at.Address, opts...)
	if err != nil {
		return nil, err
	}
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		changed := conn.WaitForStateChange(ctx, state)
		cancel()
		if !changed {
			return nil, ctx.Err()
		}
	}
	return conn, nil
}

func (p peer) call(client grpcecho.EchoClient, size int) worker.Op {
	req := &echo.Message{Payload: worker.Payload(size)}
	ctx := context.Background()
	if p.full {
		ctx = metadata.AppendToOutgoingContext(ctx, echo.Metadata...)
	}
	return func() error {
		ctx, cancel := p.deadline(ctx)
		rsp, err := client.Call(ctx, req)
		cancel()
		if err != nil {
			return err
		}
		return worker.Check(rsp.Payload, req.Payload)
	}
}

func (p peer) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.full {
		return context.WithTimeout(ctx, 5*time.Second)
	}
	return ctx, func() {}
}

func stream(conn *grpc.ClientConn, size int) (worker.Op, error) {
	req := &echo.Message{Payload: worker.Payload(size)}
	in, err := grpcecho.NewSourceClient(conn).Stream(context.Background(), req)
	if err != nil {
		return nil, err
	}
	return func() error {
		m, err := in.Recv()
		if err != nil {
			return err
		}
		return worker.Check(m.Payload, req.Payload)
	}, nil
}
