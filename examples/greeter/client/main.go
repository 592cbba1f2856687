// Command client finds the greeter and calls it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
)

type helloRequest struct {
	Name string `json:"name"`
}

type helloResponse struct {
	Msg string `json:"msg"`
}

func main() {
	name := "world"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	if err := run(context.Background(), name); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, name string) error {
	// A service that is never run is a client with a registry.
	svc, err := micro.New("greeter-client", micro.FromEnv(micro.Drivers{}))
	if err != nil {
		return err
	}
	defer func() { _ = svc.Close() }()
	rsp, err := client.Call[helloResponse](ctx, svc.Client(), "greeter", "Say.Hello", &helloRequest{Name: name})
	if err != nil {
		return err
	}
	fmt.Println(rsp.Msg)
	return nil
}
