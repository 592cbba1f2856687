package rabbitmq_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/rabbitmq"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

type order struct {
	ID int `json:"id"`
}

// TestByURL: a service that takes its broker from the environment gets what the command, and another service, publish at the same URL.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	url := fmt.Sprintf("rabbitmq://%s?exchange=test-%d", servers.Addr(t), time.Now().UnixNano())
	t.Setenv(micro.EnvBroker, url)
	drivers := micro.Drivers{Brokers: broker.Openers{"rabbitmq": rabbitmq.Open}}
	ready, got := make(chan struct{}), make(chan int, 10)
	svc, err := micro.New("billing", micro.Registry(memory.New()), micro.Signals(false), micro.Grace(0), micro.FromEnv(drivers), micro.AfterStart(func(context.Context) error { close(ready); return nil }))
	must(t, err)
	must(t, micro.Subscribe(svc, "orders", func(_ context.Context, o *order) error { got <- o.ID; return nil }, broker.Queue("billing")))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	want := func(id int) {
		t.Helper()
		select {
		case n := <-got:
			if n != id {
				t.Errorf("order %d came, want %d", n, id)
			}
		case <-time.After(wait):
			t.Fatalf("order %d did not come", id)
		}
	}
	publisher, err := micro.New("shop", micro.Registry(memory.New()), micro.FromEnv(drivers))
	must(t, err)
	defer publisher.Close()
	_, err = publisher.Client().Publish(t.Context(), "orders", &order{ID: 7})
	must(t, err)
	want(7)
	if out := command(t, "publish", "orders", "id:=8"); !strings.HasPrefix(out, `published to "orders": 1 message`) {
		t.Errorf("micro publish printed %q", out)
	}
	want(8)
	if out := command(t, "publish", "nobody", "id:=9", "--require-subscriber"); !strings.Contains(out, "error: ") {
		t.Errorf("to nobody micro publish printed %q", out)
	}
	stop()
	must(t, <-done)

	t.Setenv(micro.EnvBroker, "amqp://"+testserver.FreeAddr())
	if out := command(t, "publish", "orders", "id:=8"); !strings.Contains(out, "error: broker amqp://127.0.0.1:") || !strings.Contains(out, " is not answering: connection refused\n") {
		t.Errorf("without RabbitMQ micro publish printed %q", out)
	}
	t.Setenv(micro.EnvBroker, "rabbitmq://"+servers.Addr(t))
	t.Setenv(rabbitmq.EnvUsername, "svc")
	t.Setenv(rabbitmq.EnvPassword, password)
	if out := command(t, "publish", "orders", "id:=8"); !strings.Contains(out, `401 Unauthorized: user "svc": wrong name or password`) || strings.Contains(out, password) {
		t.Errorf("with a wrong password micro publish printed %q", out)
	}
}

// command runs micro, and gives what it prints.
func command(t *testing.T, args ...string) string {
	t.Helper()
	d := commands.System(args)
	var out bytes.Buffer
	d.Stdin, d.Stdout, d.Stderr = strings.NewReader(""), &out, &out
	d.StdinTTY, d.StdoutTTY, d.StderrTTY, d.StdinData, d.Width, d.Now = false, false, false, false, 0, time.Now
	commands.Main(t.Context(), d)
	return out.String()
}
