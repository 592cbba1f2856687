package commands_test

import (
	"context"
	"net/url"
	"os"
	"runtime"
	"testing"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/registry"
)

// TestSignals sends this process a real SIGINT. It is not parallel: a signal is the process's.
func TestSignals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot send itself an interrupt")
	}
	ctx, stop := commands.Signals(context.Background())
	defer stop()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	d, stdout, stderr := newWorld(t).deps(pipe, nil, "list")
	d.Backends.Registries["default"] = func(context.Context, *url.URL) (registry.Registry, error) {
		return stuckRegistry{}, self.Signal(os.Interrupt) // the command now waits, and is interrupted
	}
	if code := commands.Main(ctx, d); code != 130 || stdout.Len() > 0 || stderr.Len() > 0 {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}

// TestSignalsStop holds that stop frees the goroutine when no signal came; TestMain looks for it.
func TestSignalsStop(t *testing.T) {
	t.Parallel()
	ctx, stop := commands.Signals(context.Background())
	stop()
	if ctx.Err() == nil {
		t.Error("the context goes on after stop")
	}
	stop()
}
