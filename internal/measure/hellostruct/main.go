// Hellostruct is hello with its handlers registered by reflection, which keeps every exported method in the binary. It
// prints its address when it is registered.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/cb02dfca/micro/pkg/micro"
)

type request struct {
	Name string `json:"name"`
}

type response struct {
	Msg string `json:"msg"`
}

// Say has the handlers.
type Say struct{}

// Hello greets.
func (Say) Hello(_ context.Context, in *request, out *response) error {
	out.Msg = "Hello " + in.Name
	return nil
}

func main() {
	var svc *micro.Service
	svc, err := micro.New("hello", micro.FromEnv(micro.Drivers{}), micro.AfterStart(func(context.Context) error {
		_, err := fmt.Println(svc.Node().Address, 0)
		return err
	}))
	if err == nil {
		if err = svc.Register(Say{}); err == nil {
			err = svc.Run(context.Background())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
