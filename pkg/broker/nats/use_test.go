package nats_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/nats"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

type note struct {
	Text string `json:"text"`
}

// TestByURL: a service that takes its broker from the environment hears from another program, and from the command, of the same
// URL; with a stream it finds what came while it was away.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	noLogin(t)
	o := account(t)
	t.Setenv(nats.EnvUsername, o.Username)
	t.Setenv(nats.EnvPassword, o.Password)
	t.Setenv(micro.EnvRegistry, "memory")
	url := "nats://" + o.Servers[0] + "?stream=notes"
	t.Setenv(micro.EnvBroker, url)
	drivers := micro.Drivers{Brokers: broker.Openers{"nats": nats.Open}, Registries: registry.Openers{"memory": memory.Open}}
	heard := make(chan string, 10)
	run := func() (stop func()) {
		ready := make(chan struct{})
		svc, err := micro.New("notes", micro.Signals(false), micro.Grace(0), micro.FromEnv(drivers), micro.AfterStart(func(context.Context) error { close(ready); return nil }))
		must(t, err)
		must(t, micro.Subscribe(svc, "notes", func(_ context.Context, n *note) error { heard <- n.Text; return nil }, broker.Queue("readers")))
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- svc.Run(ctx) }()
		select {
		case <-ready:
		case err := <-done:
			t.Fatal(err)
		}
		return func() { end(); must(t, <-done) }
	}
	hear := func(want string) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("waited in vain for %q", want)
		}
	}
	stop := run()
	publisher, err := micro.New("publisher", micro.FromEnv(drivers))
	must(t, err)
	defer publisher.Close()
	must(t, second(publisher.Client().Publish(t.Context(), "notes", &note{Text: "from Go"})))
	hear("from Go")
	if out := command(t, "publish", "notes", "text=typed"); !strings.HasPrefix(out, `published to "notes": 1 message, 16 B`) {
		t.Errorf("micro publish printed %q", out)
	}
	hear("typed")
	stop()
	must(t, second(publisher.Client().Publish(t.Context(), "notes", &note{Text: "while away"})))
	stop = run()
	hear("while away")
	stop()

	t.Setenv(micro.EnvBroker, "nats://"+testserver.FreeAddr())
	if out := command(t, "publish", "notes", "text=x"); !strings.Contains(out, "error: broker nats://127.0.0.1:") || !strings.Contains(out, " is not answering: connection refused\n") {
		t.Errorf("without NATS micro publish printed %q", out)
	}
	t.Setenv(nats.EnvPassword, "wrong-"+password)
	t.Setenv(micro.EnvBroker, url)
	if out := command(t, "publish", "notes", "text=x"); !strings.Contains(out, "wrong name or password") || strings.Contains(out, password) {
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
