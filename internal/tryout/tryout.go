// Package tryout uses a backend as its users do: by a service that takes it from the environment, by another program, and by the
// command, of the same URL. Tests alone import it.
package tryout

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/micro"
)

// patience is how long what was published may take, on a busy machine.
const patience = 30 * time.Second

// Note is what services here say and hear.
type Note struct {
	Text string `json:"text"`
}

// Command runs micro, and gives what it prints.
func Command(t testing.TB, args ...string) string {
	t.Helper()
	return CommandWith(t, nil, args...)
}

// CommandWith is Command with other things than the binary has: change, where it is not nil, puts them in.
func CommandWith(t testing.TB, change func(*commands.Deps), args ...string) string {
	t.Helper()
	d := commands.System(args)
	var out bytes.Buffer
	d.Stdin, d.Stdout, d.Stderr = strings.NewReader(""), &out, &out
	d.StdinTTY, d.StdoutTTY, d.StderrTTY, d.StdinData, d.Width, d.Now = false, false, false, false, 0, time.Now
	if change != nil {
		change(&d)
	}
	commands.Main(t.Context(), d)
	return out.String()
}

// Run runs a service, of those options and what it is given by set, and returns when it has started. stop ends it, and waits.
func Run(t testing.TB, name string, set func(*micro.Service) error, opts ...micro.Option) (stop func()) {
	t.Helper()
	ready := make(chan struct{})
	opts = append([]micro.Option{micro.Signals(false), micro.Grace(0), micro.AfterStart(func(context.Context) error { close(ready); return nil })}, opts...)
	svc, err := micro.New(name, opts...)
	must(t, err)
	must(t, set(svc))
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	return func() { t.Helper(); end(); must(t, <-done) }
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
