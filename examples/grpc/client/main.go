// Command client calls Say.Hello, and talks by Say.Chat, over gRPC. Usage: client ADDRESS NAME...
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/cb02dfca/micro/examples/grpc/greet"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
)

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: client ADDRESS NAME...")
	}
	if err := greetAll(context.Background(), os.Args[1], os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}

func greetAll(ctx context.Context, address string, names []string) error {
	over, err := grpc.New(grpc.Options{})
	if err != nil {
		return err
	}
	c, err := client.New(client.WithTransport(over))
	if err != nil {
		return err
	}
	defer c.Close()
	// Any gRPC server is called so: by the method's path, as its .proto file says it.
	rsp, err := client.Call[greet.Response](ctx, c, "", "greet.Say/Hello", &greet.Request{Name: names[0]}, client.Address(address))
	if err != nil {
		return err
	}
	fmt.Println(rsp.Msg)
	s, err := c.Stream(ctx, "", "greet.Say/Chat", client.Address(address))
	if err != nil {
		return err
	}
	defer s.Close()
	for _, name := range names {
		if err := s.Send(&greet.Request{Name: name}); err != nil {
			return err
		}
		var rsp greet.Response
		if err := s.Recv(&rsp); err != nil {
			return err
		}
		fmt.Println(rsp.Msg)
	}
	return s.CloseSend()
}
