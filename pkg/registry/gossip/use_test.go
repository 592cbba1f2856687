package gossip_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/gossip"
)

type note struct {
	Text string `json:"text"`
}

// TestByURL: a service that takes its registry from the environment is found by another program, and by the command, of the same
// URL, at the first answer; and it is gone when it stops.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	url := "gossip://" + testserver.FreeAddr()
	t.Setenv(micro.EnvRegistry, url)
	t.Setenv(gossip.EnvKey, base64.StdEncoding.EncodeToString([]byte(rightKey)))
	drivers := micro.Drivers{Registries: registry.Openers{"gossip": gossip.Open}}
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
	if out := command(t, "list", "nodes", "-o", "name"); !strings.HasPrefix(out, "notes-") {
		t.Errorf("micro list nodes printed %q", out)
	}
	caller, err := micro.New("caller", micro.FromEnv(drivers))
	must(t, err)
	if got, err := client.Call[note](t.Context(), caller.Client(), "notes", "Notes.Echo", &note{Text: "hello"}); err != nil || got.Text != "hello" {
		t.Errorf("the call gave %+v, %v", got, err)
	}
	if out := command(t, "call", "notes", "Notes.Echo", "text=hi", "-q", ".text"); out != "hi\n" {
		t.Errorf("micro call printed %q", out)
	}
	t.Setenv(gossip.EnvKey, base64.StdEncoding.EncodeToString([]byte(wrongKey)))
	if out := command(t, "list", "nodes"); !strings.Contains(out, "its members have another key") || strings.Contains(out, "wrong-key") {
		t.Errorf("with another key micro list nodes printed %q", out)
	}
	t.Setenv(gossip.EnvKey, base64.StdEncoding.EncodeToString([]byte(rightKey)))
	stop()
	must(t, <-done)
	must(t, caller.Close())
	if out := command(t, "list", "nodes", "-o", "name", "--registry", url, "--quiet"); out != "" {
		t.Errorf("after its end micro list nodes printed %q", out)
	}
}

// command runs micro, and gives what it prints.
func command(t *testing.T, args ...string) string {
	t.Helper()
	d := commands.System(args)
	var out bytes.Buffer
	d.Stdin, d.Stdout, d.Stderr = strings.NewReader(""), &out, &out
	d.StdinTTY, d.StdoutTTY, d.StderrTTY, d.StdinData, d.Width, d.Now = false, false, false, false, 0, time.Now
	begun := time.Now()
	commands.Main(t.Context(), d)
	t.Logf("micro %s took %v", strings.Join(args, " "), time.Since(begun).Round(time.Millisecond))
	return out.String()
}
