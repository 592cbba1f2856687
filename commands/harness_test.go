package commands_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/broker"
	brokermemory "github.com/cb02dfca/micro/pkg/broker/memory"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	transportmemory "github.com/cb02dfca/micro/pkg/transport/memory"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the time in every test.
var now = time.Date(2026, 11, 22, 14, 2, 11, 0, time.UTC)

// world is what the program finds: a registry, a transport, and the services on them.
type world struct {
	registry  *memory.Registry
	transport *transportmemory.Transport
	broker    *brokermemory.Broker
	fault     error // of the registry, where it is not nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{registry: memory.New(), transport: transportmemory.New(), broker: brokermemory.New()}
	t.Cleanup(func() {
		if err := errors.Join(w.registry.Close(), w.broker.Close()); err != nil {
			t.Errorf("closing the world: %v", err)
		}
	})
	return w
}

// backends are the world's, under the names of the defaults.
func (w *world) backends() commands.Backends {
	open := func(context.Context, *url.URL) (registry.Registry, error) {
		if w.fault != nil {
			return downRegistry{w.fault}, nil
		}
		return w.registry.View(), nil
	}
	return commands.Backends{
		Registries: registry.Openers{"default": open, "local": open, "http": open, "memory": memory.Open},
		Transports: transport.Openers{"http": func(context.Context, *url.URL) (transport.Transport, error) { return w.transport, nil }},
		Brokers: func(func(context.Context) (registry.Registry, error)) broker.Openers {
			return broker.Openers{"http": func(context.Context, *url.URL) (broker.Broker, error) { return keepOpen{w.broker}, nil }}
		},
		Codecs: commands.DefaultBackends().Codecs,
		Forms:  commands.DefaultBackends().Forms,
	}
}

// keepOpen is a broker that outlives the program under test.
type keepOpen struct{ broker.Broker }

func (keepOpen) Close() error { return nil }

// downRegistry is a registry that cannot be reached.
type downRegistry struct{ err error }

func (d downRegistry) Register(context.Context, registry.Node, time.Duration) error { return d.err }
func (d downRegistry) Deregister(context.Context, registry.Node) error              { return d.err }
func (d downRegistry) Get(context.Context, string) ([]registry.Node, error)         { return nil, d.err }
func (d downRegistry) List(context.Context) ([]registry.Node, error)                { return nil, d.err }
func (d downRegistry) Close() error                                                 { return nil }
func (d downRegistry) Watch(ctx context.Context, _ string) iter.Seq2[[]registry.Node, error] {
	return func(yield func([]registry.Node, error) bool) {
		if yield(nil, d.err) {
			<-ctx.Done()
		}
	}
}

var errDown = fmt.Errorf("%w: connection refused", registry.ErrUnavailable)

// request and answer are the greeter's messages.
type request struct {
	Name  string `json:"name" doc:"who to greet" required:"true"`
	Times int    `json:"times" doc:"how often" default:"1"`
	Mood  string `json:"mood,omitempty" enum:"glad,sad"`
}
type answer struct {
	Msg string `json:"msg"`
}

// greeter starts a node of the demo service.
func (w *world) greeter(t *testing.T, id, version string, age time.Duration, meta ...string) {
	t.Helper()
	s, err := server.New("greeter", server.Version(version), server.NodeID(id))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		server.Handle(s, "Say.Hello", func(_ context.Context, r *request) (*answer, error) {
			if r.Name == "" {
				return nil, status.New(status.InvalidArgument, "name is empty")
			}
			return &answer{"Hello " + r.Name}, nil
		}, server.Doc("Greets by name")),
		server.HandleBidi(s, "Say.Chat", func(_ context.Context, st *server.Stream[request, answer]) error { return nil }),
		server.HandleServerStream(s, "Say.Count", func(context.Context, *request, *server.Sender[answer]) error { return nil }),
	)
	if err != nil {
		t.Fatal(err)
	}
	w.serve(t, s, id)
	w.register(t, node(id, "greeter", version, id+":1", age, meta...), "Say.Hello", "Say.Chat", "Say.Count")
}

// serve runs s on the address that is made of its id, until the test ends.
func (w *world) serve(t *testing.T, s *server.Server, id string) {
	t.Helper()
	l, err := w.transport.Listen(t.Context(), id+":1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving %s: %v", id, err)
		}
	})
}

func node(id, service, version, address string, age time.Duration, meta ...string) registry.Node {
	n := registry.Node{ID: id, Service: service, Version: version, Address: address,
		Metadata: map[string]string{registry.MetaStarted: now.Add(-age).Format(time.RFC3339), registry.MetaTransport: "http", registry.MetaProtocol: "mucp"}}
	for i := 0; i+1 < len(meta); i += 2 {
		n.Metadata[meta[i]] = meta[i+1]
	}
	return n
}

func (w *world) register(t *testing.T, n registry.Node, endpoints ...string) {
	t.Helper()
	for _, e := range endpoints {
		re := registry.Endpoint{Name: e}
		if e == "Say.Chat" || e == "Say.Count" {
			re.Metadata = map[string]string{"stream": "true", "kind": map[string]string{"Say.Chat": "bidi", "Say.Count": "server"}[e]}
		}
		n.Endpoints = append(n.Endpoints, re)
	}
	if err := w.registry.Register(t.Context(), n, 0); err != nil {
		t.Fatal(err)
	}
}

// outcome is what a run of the program left.
type outcome struct {
	code           int
	stdout, stderr string
}

// terminal says which streams are terminals.
type terminal bool

const (
	tty  terminal = true
	pipe terminal = false
)

// deps are the world's Deps for a command line.
func (w *world) deps(on terminal, env map[string]string, args ...string) (commands.Deps, *bytes.Buffer, *bytes.Buffer) {
	var stdout, stderr bytes.Buffer
	return commands.Deps{
		Args: args, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
		StdinTTY: bool(on), StdoutTTY: bool(on), StderrTTY: bool(on), Width: map[terminal]int{tty: 100}[on],
		Env:     func(name string) (string, bool) { v, found := env[name]; return v, found },
		Environ: func() []string { return nil }, Now: func() time.Time { return now },
		Backends: w.backends(), Version: "1.0.0",
	}, &stdout, &stderr
}

// run runs the program to its end.
func (w *world) run(t *testing.T, on terminal, env map[string]string, args ...string) outcome {
	t.Helper()
	d, stdout, stderr := w.deps(on, env, args...)
	code := commands.Main(t.Context(), d)
	return outcome{code, stdout.String(), stderr.String()}
}

// golden compares an outcome with testdata/NAME.golden.
func golden(t *testing.T, name string, args []string, got outcome) {
	t.Helper()
	text := fmt.Sprintf("$ micro %s\nexit %d\n--- stdout\n%s--- stderr\n%s", strings.Join(args, " "), got.code,
		visible(got.stdout), visible(got.stderr))
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if text != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("%s differs (go test -update accepts):\n%s\nwant\n%s", file, text, want)
	}
}

// visible shows tabs and escapes as text, so that a golden file can be read.
func visible(s string) string {
	return strings.NewReplacer("\t", "<tab>", "\x1b", "<esc>").Replace(s)
}

func merged(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, b)
	return out
}

// listing is a registry that gives records as they are, unchecked.
type listing struct {
	downRegistry
	nodes []registry.Node
}

func (l listing) List(context.Context) ([]registry.Node, error) { return l.nodes, nil }

func (l listing) open(d *commands.Deps) {
	d.Backends.Registries["default"] = func(context.Context, *url.URL) (registry.Registry, error) { return l, nil }
}

func runMain(t *testing.T, d commands.Deps) int {
	t.Helper()
	return commands.Main(t.Context(), d)
}
