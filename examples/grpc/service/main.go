// Command service is a greeter that speaks gRPC beside everything else, on its one port.
package main

import (
	"context"
	"log"

	"github.com/cb02dfca/micro/examples/grpc/greet"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
)

func hello(_ context.Context, in *greet.Request) (*greet.Response, error) {
	if in.Name == "" {
		return nil, status.New(status.InvalidArgument, "hello to whom?")
	}
	return &greet.Response{Msg: "Hello " + in.Name}, nil
}

func chat(ctx context.Context, s *server.Stream[greet.Request, greet.Response]) error {
	for in, err := range s.All() {
		if err != nil {
			return err
		}
		rsp, err := hello(ctx, in)
		if err != nil {
			return err
		}
		if err := s.Send(rsp); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	speaks, err := grpc.New(grpc.Options{})
	if err != nil {
		log.Fatal(err)
	}
	svc, err := micro.New("greeter", micro.Beside(speaks), micro.FromEnv(micro.Drivers{}))
	if err != nil {
		log.Fatal(err)
	}
	_ = micro.Handle(svc, "Say.Hello", hello) // Run tells what is wrong with a registration
	_ = server.HandleBidi(svc.Server(), "Say.Chat", chat)
	if err := svc.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
