// Command client sends numbers to be doubled, and reads the answers until the service has sent the last.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"

	"github.com/cb02dfca/micro/pkg/micro"
)

type number struct {
	N int `json:"n"`
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	svc, err := micro.New("numbers-client", micro.FromEnv(micro.Drivers{}))
	if err != nil {
		return err
	}
	defer func() { _ = svc.Close() }()
	st, err := svc.Client().Stream(ctx, "numbers", "Numbers.Double")
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }()
	for n := range 3 {
		if err := st.Send(&number{N: n + 1}); err != nil {
			return err
		}
	}
	if err := st.CloseSend(); err != nil { // the other half stays open
		return err
	}
	for {
		var n number
		err := st.Recv(&n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Println(n.N)
	}
}
