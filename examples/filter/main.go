// Command filter runs three nodes of a service and calls those that it chooses.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/selector"
)

// Empty is a message without fields.
type Empty struct{}

// Where is who answered.
type Where struct {
	Version string `json:"version"`
	Zone    string `json:"zone"`
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 3)
	for _, w := range []Where{{"1.0.0", "a"}, {"1.0.0", "b"}, {"2.0.0", "b"}} {
		if err := start(ctx, w, done); err != nil {
			return err
		}
	}
	caller, err := micro.New("caller", micro.FromEnv(micro.Drivers{}))
	if err != nil {
		return err
	}
	defer func() { _ = caller.Close() }()
	ask := func(what string, opts ...client.CallOption) {
		where, err := client.Call[Where](ctx, caller.Client(), "where", "Where.Am", &Empty{}, opts...)
		if errors.Is(err, selector.ErrNoneMatch) {
			fmt.Println(what, "none")
			return
		}
		if err != nil {
			fmt.Println(what, err)
			return
		}
		fmt.Println(what, where.Version, where.Zone)
	}
	ask("version 2.0.0:", client.Filter(selector.Version("2.0.0")))
	ask("zone a:", client.Filter(selector.Label("zone", "a")))
	ask("version 1.0.0 in zone b:", client.Filter(selector.Version("1.0.0"), selector.Label("zone", "b")))
	ask("zone c:", client.Filter(selector.Label("zone", "c")))
	cancel()
	return errors.Join(<-done, <-done, <-done)
}

// start runs a node until ctx ends, and returns when it is listed.
func start(ctx context.Context, w Where, done chan<- error) error {
	ready := make(chan struct{})
	svc, err := micro.New("where", micro.FromEnv(micro.Drivers{}), micro.Version(w.Version), micro.Metadata("zone", w.Zone),
		micro.AfterStart(func(context.Context) error { close(ready); return nil }))
	if err != nil {
		return err
	}
	_ = micro.Handle(svc, "Where.Am", func(context.Context, *Empty) (*Where, error) { return &w, nil })
	failed := make(chan error, 1)
	go func() {
		err := svc.Run(ctx)
		failed <- err
		done <- err
	}()
	select {
	case err := <-failed:
		return err
	case <-ready:
		return nil
	}
}
