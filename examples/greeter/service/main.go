// Command service is the greeter, in as few lines as it takes.
package main

import (
	"context"
	"log"

	"github.com/cb02dfca/micro/pkg/micro"
)

// HelloRequest is what Say.Hello takes.
type HelloRequest struct {
	Name string `json:"name" doc:"who to greet"`
}

// HelloResponse is what Say.Hello gives.
type HelloResponse struct {
	Msg string `json:"msg"`
}

func main() {
	svc, err := micro.New("greeter", micro.FromEnv(micro.Drivers{}))
	if err != nil {
		log.Fatal(err)
	}
	_ = micro.Handle(svc, "Say.Hello", func(_ context.Context, in *HelloRequest) (*HelloResponse, error) {
		return &HelloResponse{Msg: "Hello " + in.Name}, nil
	})
	if err := svc.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
