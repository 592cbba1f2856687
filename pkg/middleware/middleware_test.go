package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/middleware"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type Request struct {
	Do string `json:"do"`
}

type Response struct{}

// system runs a server with middleware, and gives a function that calls it.
func system(t *testing.T, m []server.Middleware, opts ...client.Option) func(do string) error {
	t.Helper()
	srv, err := server.New("worker", server.WithMiddleware(m...))
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Handle(srv, "Work.Do", func(ctx context.Context, in *Request) (*Response, error) {
		switch in.Do {
		case "panic":
			panic("secret")
		case "refuse":
			return nil, status.New(status.InvalidArgument, "not this")
		case "fail":
			return nil, errors.New("secret")
		case "hang":
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, nil
	})
	tr := memory.New()
	l, err := tr.Listen(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	c, err := client.New(append([]client.Option{client.WithTransport(tr)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		cancel()
		<-done
	})
	return func(do string) error {
		return c.Call(t.Context(), "worker", "Work.Do", &Request{Do: do}, nil, client.Address(l.Addr()))
	}
}

func TestRecover(t *testing.T) {
	t.Parallel()
	var seen any
	call := system(t, []server.Middleware{middleware.Recover(func(_ context.Context, c *server.Call, p any, stack []byte) {
		if c.Endpoint() != "Work.Do" || !bytes.Contains(stack, []byte("middleware_test")) {
			t.Errorf("endpoint %s, stack %s", c.Endpoint(), stack)
		}
		seen = p
	})})
	err := call("panic")
	if status.CodeOf(err) != status.Internal || strings.Contains(err.Error(), "secret") || seen != "secret" {
		t.Errorf("error %v, report of %v", err, seen)
	}
	if err := call(""); err != nil {
		t.Errorf("the call after it: %v", err)
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	var served, called bytes.Buffer
	logger := func(b *bytes.Buffer) *slog.Logger {
		return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	call := system(t, []server.Middleware{middleware.Log(logger(&served))}, client.WithMiddleware(middleware.LogCalls(logger(&called))))
	for _, do := range []string{"", "refuse", "fail"} {
		_ = call(do)
	}
	for name, log := range map[string]string{"served": served.String(), "called": called.String()} {
		lines := strings.Split(strings.TrimSpace(log), "\n")
		if len(lines) != 3 {
			t.Fatalf("%s: %q", name, log)
		}
		for i, want := range []string{"level=DEBUG", "level=INFO", "level=ERROR"} {
			if !strings.Contains(lines[i], want) || !strings.Contains(lines[i], "endpoint=Work.Do") || !strings.Contains(lines[i], "msg="+name) {
				t.Errorf("%s: %s, want %s", name, lines[i], want)
			}
		}
	}
	if !strings.Contains(served.String(), "secret") || strings.Contains(called.String(), "secret") {
		t.Errorf("the cause belongs to the server's log alone: %s %s", served.String(), called.String())
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	call := system(t, []server.Middleware{middleware.Timeout(10 * time.Millisecond)})
	if err := call("hang"); status.CodeOf(err) != status.HandlerTimeout || !strings.Contains(err.Error(), "10ms") {
		t.Errorf("error %v", err)
	}
	if err := call(""); err != nil {
		t.Error(err)
	}
}
