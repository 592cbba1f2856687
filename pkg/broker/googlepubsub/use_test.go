package googlepubsub_test

import (
	"context"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/internal/tryout"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/googlepubsub"
	"github.com/cb02dfca/micro/pkg/registry"
)

// TestByURL: a service that takes its broker from the environment hears from another program, and from the command, of the same
// URL; and it finds what came while it was away.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	noEnvironment(t)
	t.Setenv(googlepubsub.EnvEmulator, startServer(t).addr)
	command := func(t testing.TB, args ...string) string { // the binary has it by a build tag
		return tryout.CommandWith(t, func(d *commands.Deps) {
			d.Backends.Brokers = func(func(context.Context) (registry.Registry, error)) broker.Openers { return openers }
		}, args...)
	}
	tryout.Broker{URL: "googlepubsub://test?timeout=2s", Openers: openers, Command: command}.Try(t)

	t.Setenv(googlepubsub.EnvEmulator, testserver.FreeAddr())
	if out := command(t, "publish", "notes", "text=x"); !strings.Contains(out, "error: broker googlepubsub://test?timeout=2s is not answering: connection refused\n") {
		t.Errorf("without an emulator micro publish printed %q", out)
	}
}
