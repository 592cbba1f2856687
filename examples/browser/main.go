// Command browser is a service and the web page that calls it, on one port: the page speaks WebSocket, everybody else HTTP.
package main

import (
	"context"
	"embed"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/status"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
	"github.com/cb02dfca/micro/pkg/transport/websocket"
)

//go:embed index.html micro.js
var pages embed.FS

// Greeting is what Say.Hello takes and gives.
type Greeting struct {
	Text string `json:"text"`
}

// Number is the message of the streams.
type Number struct {
	N int `json:"n"`
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ws, err := websocket.New(websocket.Options{})
	if err != nil {
		return err
	}
	port, err := transporthttp.New(transporthttp.Options{Beside: []transporthttp.Beside{ws}, Pages: http.FileServerFS(pages)})
	if err != nil {
		return err
	}
	var svc *micro.Service
	svc, err = micro.New("page", micro.Transport(port), micro.FromEnv(micro.Drivers{}), micro.AfterStart(func(context.Context) error {
		fmt.Printf("open http://%s/\n", svc.Node().Address)
		return nil
	}))
	if err != nil {
		return err
	}
	_ = micro.Handle(svc, "Say.Hello", hello)
	_ = micro.HandleServerStream(svc, "Numbers.Count", count)
	_ = micro.HandleBidi(svc, "Numbers.Double", double)
	return svc.Run(context.Background())
}

func hello(_ context.Context, in *Greeting) (*Greeting, error) {
	if in.Text == "" {
		return nil, status.New(status.InvalidArgument, "hello to whom?")
	}
	return &Greeting{"Hello " + in.Text}, nil
}

// count gives numbers from 1 on, up to n where that is not 0, until the page has enough.
func count(ctx context.Context, to *Number, out *micro.Sender[Number]) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 1; to.N == 0 || n <= to.N; n++ {
		if err := out.Send(&Number{n}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			fmt.Println("the page has had enough")
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// double answers each number as it comes.
func double(_ context.Context, st *micro.Stream[Number, Number]) error {
	for n, err := range st.All() {
		if err != nil {
			return err
		}
		if err := st.Send(&Number{2 * n.N}); err != nil {
			return err
		}
	}
	return nil
}
