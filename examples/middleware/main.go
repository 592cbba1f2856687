// Command middleware runs a service behind middleware, and calls it through middleware.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/middleware"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// Empty is a message without fields.
type Empty struct{}

// authenticate refuses calls without the token. It runs before the request is decoded.
func authenticate(token string) server.Middleware {
	return func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) error {
			if metadata.Incoming(ctx).Get("authorization") != "Bearer "+token {
				return status.New(status.Unauthenticated, "no token, or a wrong one")
			}
			return next(ctx, c)
		}
	}
}

// present sends the token with every call.
func present(token string) client.Middleware {
	return func(next client.Invoker) client.Invoker {
		return func(ctx context.Context, req *client.Request) (*client.Response, error) {
			ctx, err := metadata.Append(ctx, "authorization", "Bearer "+token)
			if err != nil {
				return nil, err
			}
			return next(ctx, req)
		}
	}
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ready := make(chan struct{})
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	svc, err := micro.New("vault",
		micro.FromEnv(micro.Drivers{}),
		micro.ServerOptions(server.WithMiddleware(
			middleware.Log(logger), // the outermost: it sees what the others refuse
			authenticate("open-sesame"),
			middleware.Timeout(time.Second),
		)),
		micro.AfterStart(func(context.Context) error { close(ready); return nil }),
	)
	if err != nil {
		return err
	}
	_ = micro.Handle(svc, "Vault.Open", func(context.Context, *Empty) (*Empty, error) { return nil, nil })
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ready:
	}
	for _, token := range []string{"guess", "open-sesame"} {
		caller, err := micro.New("caller", micro.FromEnv(micro.Drivers{}), micro.ClientOptions(client.WithMiddleware(present(token))))
		if err != nil {
			return err
		}
		_, err = client.Call[Empty](ctx, caller.Client(), "vault", "Vault.Open", &Empty{})
		fmt.Printf("%s %d\n", token, status.CodeOf(err))
		_ = caller.Close()
	}
	cancel()
	return <-done
}
