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
	// A service that is never run is a client with a registry.
	svc, err := micro.New("greeter-client", micro.FromEnv(micro.Drivers{}))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = svc.Close() }()
	rsp, err := client.Call[helloResponse](context.Background(), svc.Client(), "greeter", "Say.Hello", &helloRequest{Name: name})
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println(rsp.Msg)
}
