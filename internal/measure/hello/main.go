// Hello is the small service that is measured: one typed handler on all defaults. It prints its address, and the time at
// which it began to listen in nanoseconds since 1970, when it is registered.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/cb02dfca/micro/pkg/micro"
)

type request struct {
	Name string `json:"name"`
}

type response struct {
	Msg string `json:"msg"`
}

func hello(_ context.Context, in *request) (*response, error) {
	return &response{Msg: "Hello " + in.Name}, nil
}

func main() {
	var begun time.Time
	var svc *micro.Service
	svc, err := micro.New("hello", micro.FromEnv(micro.Drivers{}),
		micro.BeforeStart(func(context.Context) error { begun = time.Now(); return nil }),
		micro.AfterStart(func(context.Context) error {
			_, err := fmt.Println(svc.Node().Address, begun.UnixNano())
			return err
		}))
	if err == nil {
		if err = micro.Handle(svc, "Say.Hello", hello); err == nil {
			err = svc.Run(context.Background())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
