// Command client calls the service greeter by the client that micro generate made of greeter.proto.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/cb02dfca/micro/pkg/micro"

	"example.com/generated/greeterpb"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	svc, err := micro.New("greeter-client", micro.FromEnv(micro.Drivers{}))
	if err != nil {
		return err
	}
	defer func() { _ = svc.Close() }()
	say := greeterpb.NewSayClient(svc.Client(), "greeter")

	hello, err := say.Hello(ctx, &greeterpb.HelloRequest{Name: "Ada"})
	if err != nil {
		return err
	}
	fmt.Println(hello.Msg)

	again, err := say.Repeat(ctx, &greeterpb.RepeatRequest{Name: "Grace", Times: 2})
	if err != nil {
		return err
	}
	for reply, err := range again.All() { // closes the stream
		if err != nil {
			return err
		}
		fmt.Println(reply.Msg)
	}

	all, err := say.Everybody(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{"Ada", "Grace"} {
		if err := all.Send(&greeterpb.HelloRequest{Name: name}); err != nil {
			return err
		}
	}
	both, err := all.CloseAndRecv()
	if err != nil {
		return err
	}
	fmt.Println(both.Msg)
	return nil
}
