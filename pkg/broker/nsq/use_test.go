package nsq_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/nsq"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

type note struct {
	Text string `json:"text"`
}

// TestByURL: a service that takes its broker from the environment hears from another program, and from the command, of the same
// URL; and it finds what came while it was away.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	d := startNSQD(t, config{secrets: map[string]string{secret: ""}})
	t.Setenv(nsq.EnvSecret, secret)
	t.Setenv(micro.EnvRegistry, "memory")
	t.Setenv(micro.EnvBroker, "nsq://"+d.addr)
	drivers := micro.Drivers{Brokers: broker.Openers{"nsq": nsq.Open}, Registries: registry.Openers{"memory": memory.Open}}
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
	say := func(text string) {
		_, err := publisher.Client().Publish(t.Context(), "notes", &note{Text: text})
		must(t, err)
	}
	say("from Go")
	hear("from Go")
	if out := command(t, "publish", "notes", "text=typed"); !strings.HasPrefix(out, `published to "notes": 1 message, 16 B`) {
		t.Errorf("micro publish printed %q", out)
	}
	hear("typed")
	stop()
	say("while away")
	stop = run()
	hear("while away")
	stop()

	if out := command(t, "publish", "notes", "text=x", "--broker", "nsq://"+testserver.FreeAddr()); !strings.Contains(out, "error: broker ") ||
		!strings.Contains(out, " is not answering: connection refused\n") {
		t.Errorf("without nsqd micro publish printed %q", out)
	}
	t.Setenv(nsq.EnvSecret, "wrong-"+secret)
	if out := command(t, "publish", "notes", "text=x"); !strings.Contains(out, "the secret is not let in") || strings.Contains(out, secret) {
		t.Errorf("with a wrong secret micro publish printed %q", out)
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
