// Command plugins runs a service and its caller on a registry and a broker that were written outside the framework.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/cb02dfca/micro/examples/plugins/board"
	"github.com/cb02dfca/micro/examples/plugins/loop"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
)

// Note is the message of everything here.
type Note struct {
	Text string `json:"text"`
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	notices, messages := board.New(), loop.New()
	defer func() { _ = messages.Close() }()

	reg := notices.Open()
	defer func() { _ = reg.Close() }()
	ready := make(chan struct{})
	svc, err := micro.New("notes", micro.Registry(reg), micro.Broker(messages),
		micro.AfterStart(func(context.Context) error { close(ready); return nil }))
	if err != nil {
		return err
	}
	_ = micro.Handle(svc, "Notes.Echo", func(_ context.Context, n *Note) (*Note, error) { return n, nil })
	_ = micro.Subscribe(svc, "notes", func(_ context.Context, n *Note) error {
		fmt.Println("heard", n.Text)
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ready:
	}

	other := notices.Open()
	defer func() { _ = other.Close() }()
	caller, err := micro.New("caller", micro.Registry(other), micro.Broker(messages))
	if err != nil {
		return err
	}
	defer func() { _ = caller.Close() }()
	echo, err := client.Call[Note](ctx, caller.Client(), "notes", "Notes.Echo", &Note{Text: "hello"})
	if err != nil {
		return err
	}
	fmt.Println("called", echo.Text)
	if _, err := caller.Client().Publish(ctx, "notes", &Note{Text: "world"}); err != nil {
		return err
	}
	cancel()
	return <-done
}
