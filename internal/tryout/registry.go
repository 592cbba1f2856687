package tryout

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
)

// Registry is a registry that is tried.
type Registry struct {
	// URL names it, and Openers open it.
	URL     string
	Openers registry.Openers
	// Late: what is registered shows a moment later.
	Late bool
	// While, where it is set, is called while the service runs.
	While func()
	// Away is a URL where none answers. Empty: that is not looked at.
	Away string
}

// Try finds a service of the registry by another program and by the command, and finds that it is gone when it stops. It sets the
// environment.
func (r Registry) Try(t *testing.T) {
	t.Helper()
	t.Setenv(micro.EnvRegistry, r.URL)
	drivers := micro.Drivers{Registries: r.Openers}
	stop := Run(t, "notes", func(svc *micro.Service) error {
		return micro.Handle(svc, "Notes.Echo", func(_ context.Context, n *Note) (*Note, error) { return n, nil })
	}, micro.FromEnv(drivers))
	r.lists(t, "while it runs", func(out string) bool { return strings.HasPrefix(out, "notes-") })
	caller, err := micro.New("caller", micro.FromEnv(drivers))
	must(t, err)
	defer caller.Close()
	if got, err := client.Call[Note](t.Context(), caller.Client(), "notes", "Notes.Echo", &Note{Text: "hello"}); err != nil || got.Text != "hello" {
		t.Errorf("the call gave %+v, %v", got, err)
	}
	if out := Command(t, "call", "notes", "Notes.Echo", "text=hi", "-q", ".text"); out != "hi\n" {
		t.Errorf("micro call printed %q", out)
	}
	if r.While != nil {
		r.While()
	}
	stop()
	must(t, caller.Close())
	r.lists(t, "after its end", func(out string) bool { return out == "" }, "--registry", r.URL, "--quiet")

	if r.Away == "" {
		return
	}
	t.Setenv(micro.EnvRegistry, r.Away)
	if out := Command(t, "list", "nodes"); !strings.Contains(out, "error: registry 127.0.0.1:") || !strings.Contains(out, " is not answering: connection refused\n") ||
		strings.Count(out, "127.0.0.1") != 1 || strings.Contains(out, "micro registry") {
		t.Errorf("where there is none micro list nodes printed %q", out)
	}
}

// lists wants a list of nodes to be so.
func (r Registry) lists(t *testing.T, when string, ok func(string) bool, more ...string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		out := Command(t, append([]string{"list", "nodes", "-o", "name"}, more...)...)
		if ok(out) {
			return
		}
		if !r.Late || time.Now().After(end) {
			t.Errorf("%s micro list nodes printed %q", when, out)
			return
		}
	}
}
