package consul_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/consul"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

type note struct {
	Text string `json:"text"`
}

// TestByURL: a service that takes its registry from the environment is found by another program, and by the command, of the same
// URL; and it is gone when it stops.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	url := "consul://" + addrOf(t) + "?ttl=5s"
	t.Setenv(micro.EnvRegistry, url)
	drivers := micro.Drivers{Registries: registry.Openers{"consul": consul.Open}}
	ready := make(chan struct{})
	svc, err := micro.New("notes", micro.Signals(false), micro.Grace(0), micro.FromEnv(drivers), micro.AfterStart(func(context.Context) error { close(ready); return nil }))
	must(t, err)
	must(t, micro.Handle(svc, "Notes.Echo", func(_ context.Context, n *note) (*note, error) { return n, nil }))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	// The agent has it; the catalog, a moment later.
	registrytest.Eventually(t, "it is listed", func() bool { return strings.HasPrefix(command(t, "list", "nodes", "-o", "name"), "notes-") })
	caller, err := micro.New("caller", micro.FromEnv(drivers))
	must(t, err)
	defer caller.Close()
	if got, err := client.Call[note](t.Context(), caller.Client(), "notes", "Notes.Echo", &note{Text: "hello"}); err != nil || got.Text != "hello" {
		t.Errorf("the call gave %+v, %v", got, err)
	}
	if out := command(t, "call", "notes", "Notes.Echo", "text=hi", "-q", ".text"); out != "hi\n" {
		t.Errorf("micro call printed %q", out)
	}
	stop()
	must(t, <-done)
	registrytest.Eventually(t, "it is listed no more", func() bool { return command(t, "list", "nodes", "-o", "name", "--registry", url, "--quiet") == "" })

	t.Setenv(micro.EnvRegistry, "consul://"+testserver.FreeAddr())
	if out := command(t, "list", "nodes"); !strings.Contains(out, "error: registry 127.0.0.1:") || !strings.Contains(out, " is not answering: connection refused\n") ||
		strings.Count(out, "127.0.0.1") != 1 || strings.Contains(out, "micro registry") {
		t.Errorf("without consul micro list nodes printed %q", out)
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
