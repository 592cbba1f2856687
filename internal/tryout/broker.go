package tryout

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

// Broker is a broker that is tried: one that keeps what a queue's members miss.
type Broker struct {
	// URL names it, and Openers open it.
	URL     string
	Openers broker.Openers
	// Command runs the command. Default Command.
	Command func(t testing.TB, args ...string) string
}

// Try hears in a service of the broker what another program and the command publish, and what came while it was away. It sets the
// environment.
func (b Broker) Try(t *testing.T) {
	t.Helper()
	if b.Command == nil {
		b.Command = Command
	}
	t.Setenv(micro.EnvRegistry, "memory")
	t.Setenv(micro.EnvBroker, b.URL)
	drivers := micro.Drivers{Brokers: b.Openers, Registries: registry.Openers{"memory": memory.Open}}
	heard := make(chan string, 10)
	run := func() (stop func()) {
		t.Helper()
		return Run(t, "notes", func(svc *micro.Service) error {
			return micro.Subscribe(svc, "notes", func(_ context.Context, n *Note) error { heard <- n.Text; return nil }, broker.Queue("readers"))
		}, micro.FromEnv(drivers))
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
		t.Helper()
		_, err := publisher.Client().Publish(t.Context(), "notes", &Note{Text: text})
		must(t, err)
	}
	say("from Go")
	hear("from Go")
	if out := b.Command(t, "publish", "notes", "text=typed"); !strings.HasPrefix(out, `published to "notes": 1 message, 16 B`) {
		t.Errorf("micro publish printed %q", out)
	}
	hear("typed")
	stop()
	say("while away")
	stop = run()
	hear("while away")
	stop()
}
