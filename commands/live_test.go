package commands_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	registryhttp "github.com/cb02dfca/micro/pkg/registry/http"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// live is a run of the program that goes on until it is interrupted.
type live struct {
	stdout, stderr *sharedBuffer
	interrupt      func()
	code           chan int
}

// sharedBuffer may be read while the program writes.
type sharedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *sharedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *sharedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, d commands.Deps) *live {
	t.Helper()
	l := &live{stdout: &sharedBuffer{}, stderr: &sharedBuffer{}, code: make(chan int, 1)}
	d.Stdout, d.Stderr = l.stdout, l.stderr
	ctx, interrupt := commands.Interrupt(context.Background())
	l.interrupt = interrupt
	go func() { l.code <- commands.Main(ctx, d) }()
	t.Cleanup(interrupt)
	return l
}

// stop interrupts the program and gives its exit code.
func (l *live) stop(t *testing.T) int {
	t.Helper()
	l.interrupt()
	return l.end(t)
}

func (l *live) end(t *testing.T) int {
	t.Helper()
	select {
	case code := <-l.code:
		return code
	case <-time.After(10 * time.Second):
		t.Fatalf("the program does not end; stdout %q, stderr %q", l.stdout, l.stderr)
		return -1
	}
}

// until waits until text holds want.
func until(t *testing.T, text *sharedBuffer, want string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(text.String(), want) {
		if time.Now().After(deadline) {
			t.Fatalf("%q does not come; there is %q", want, text)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestListWatch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		line                    string
		on                      terminal
		added, changed, removed string
	}{
		"pipe":     {"list nodes -w", pipe, "added\tb-1\tb\t127.0.0.1:2\t-", "changed\tb-1\tb\t127.0.0.1:3", "removed\tb-1\tb\t127.0.0.1:3"},
		"terminal": {"list nodes --watch --color never", tty, "added     b-1    b         127.0.0.1:2", "changed   b-1    b", "removed   b-1    b"},
		"jsonl":    {"list nodes -w -o jsonl", pipe, `{"event":"added","item":{"id":"b-1"`, `{"event":"changed","item":{"id":"b-1"`, `{"event":"removed","item":{"id":"b-1"`},
		"json":     {"list nodes -w -o json", pipe, "\"added\",\n    \"item\": {\n      \"id\": \"b-1\"", `"changed"`, `"removed"`},
		"query":    {"list nodes -w -q .event+.item.id", pipe, "addedb-1", "changedb-1", "removedb-1"},
		"services": {"list -w -o tsv", pipe, "added\tb\t", "", "removed\tb\t"},
		"one":      {"list nodes b -w", pipe, "added\tb-1", "changed\tb-1", "removed\tb-1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.register(t, node("a-1", "a", "", "127.0.0.1:1", 0))
			d, _, _ := w.deps(c.on, nil, strings.Fields(c.line)...)
			l := start(t, d)
			if name != "one" {
				until(t, l.stdout, "a-1"[:len("a-1")-2*boolInt(name == "services")])
			}
			w.register(t, node("b-1", "b", "", "127.0.0.1:2", 0))
			until(t, l.stdout, c.added)
			w.register(t, node("b-1", "b", "", "127.0.0.1:3", 0))
			until(t, l.stdout, c.changed)
			if err := w.registry.Deregister(t.Context(), node("b-1", "b", "", "127.0.0.1:3", 0)); err != nil {
				t.Fatal(err)
			}
			until(t, l.stdout, c.removed)
			if code := l.stop(t); code != 0 || l.stderr.String() != "" {
				t.Errorf("exit %d, stderr %q", code, l.stderr)
			}
			if name == "json" && !json.Valid([]byte(l.stdout.String())) {
				t.Errorf("%s is not one document", l.stdout)
			}
		})
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestWatchOfADeadRegistry holds that a watch says once that the registry is away, and goes on.
func TestWatchOfADeadRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fault = errDown
	d, _, _ := w.deps(pipe, nil, "list", "-w", "-o", "json")
	l := start(t, d)
	until(t, l.stderr, "warning: registry default is not answering")
	if code := l.stop(t); code != 0 || l.stdout.String() != "[]\n" {
		t.Errorf("exit %d, stdout %q", code, l.stdout)
	}
}

func TestStatsWatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.greeter(t, "greeter-1", "1", 0)
	d, _, _ := w.deps(pipe, nil, "stats", "greeter", "-w", "--interval", "100ms", "-o", "json")
	l := start(t, d)
	until(t, l.stdout, "},\n") // the second look
	if code := l.stop(t); code != 0 || !json.Valid([]byte(l.stdout.String())) {
		t.Errorf("exit %d, %s", code, l.stdout)
	}
}

func TestStatsTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.greeter(t, "greeter-1", "1", 0)
	w.register(t, node("greeter-2", "greeter", "1", "nobody:1", 0))
	got := w.run(t, pipe, nil, "stats", "greeter")
	if got.code != 9 || !strings.HasPrefix(got.stdout, "greeter-1\t*\t0\t0\t0\t-\t-\t-\t") || !strings.Contains(got.stdout, "greeter-1\tSay.Hello\t0\t0\t0\t-") ||
		!strings.HasPrefix(got.stderr, "warning: node greeter-2 nobody:1 did not answer: connection refused") {
		t.Errorf("exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
}

// TestHealthStates holds the exit code against what nodes tell of themselves.
func TestHealthStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	state := server.Health{Status: server.HealthStarting, Detail: "warming up"}
	var mu sync.Mutex
	s, err := server.New("slow", server.NodeID("slow-1"), server.HealthFunc(func() server.Health {
		mu.Lock()
		defer mu.Unlock()
		return state
	}))
	if err != nil {
		t.Fatal(err)
	}
	w.serve(t, s, "slow-1")
	w.register(t, node("slow-1", "slow", "1", "slow-1:1", 0))
	got := w.run(t, pipe, nil, "health", "slow")
	if want := "slow-1\tslow\tslow-1:1\tstarting\t0.0ms\twarming up\n"; got.code != 8 || got.stdout != want || got.stderr != "" {
		t.Errorf("exit %d, %q, want %q; stderr %q", got.code, got.stdout, want, got.stderr)
	}
	d, _, _ := w.deps(pipe, nil, "health", "slow", "--wait", "30s")
	d.Now = time.Now
	l := start(t, d)
	mu.Lock()
	state = server.Health{Status: server.HealthOK}
	mu.Unlock()
	if code := l.end(t); code != 0 || !strings.Contains(l.stdout.String(), "\tok\t") {
		t.Errorf("exit %d, %q, %q", code, l.stdout, l.stderr)
	}
}

// TestHealthWaits holds that --wait waits for a service that is not there yet.
func TestHealthWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d, _, _ := w.deps(pipe, nil, "health", "greeter", "--wait", "30s", "-o", "name")
	d.Now = time.Now
	l := start(t, d)
	w.greeter(t, "greeter-1", "1", 0)
	if code := l.end(t); code != 0 || l.stdout.String() != "greeter-1\n" {
		t.Errorf("exit %d, %q, %q", code, l.stdout, l.stderr)
	}
}

// stuckRegistry answers nothing.
type stuckRegistry struct{ downRegistry }

func (stuckRegistry) List(ctx context.Context) ([]registry.Node, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (stuckRegistry) Watch(ctx context.Context, _ string) iter.Seq2[[]registry.Node, error] {
	return func(func([]registry.Node, error) bool) { <-ctx.Done() }
}

func TestTimeoutAndInterrupt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d, _, _ := w.deps(tty, map[string]string{"NO_COLOR": "1"}, "list", "--timeout", "350ms")
	d.Backends.Registries["default"] = func(context.Context, *url.URL) (registry.Registry, error) { return stuckRegistry{}, nil }
	l := start(t, d)
	if code := l.end(t); code != 5 || !strings.Contains(l.stderr.String(), "error: registry default did not answer within 350ms\n  more time: --timeout 30s\n") {
		t.Errorf("exit %d, %q", code, l.stderr)
	}
	if !strings.HasPrefix(l.stderr.String(), "waiting for registry default ...\r\x1b[K") {
		t.Errorf("nobody says what is waited for: %q", l.stderr)
	}
	env := d.Env
	d.Env = func(name string) (string, bool) {
		if name == "TERM" {
			return "dumb", true
		}
		return env(name)
	}
	l = start(t, d)
	if code := l.end(t); code != 5 || !strings.HasPrefix(l.stderr.String(), "waiting for registry default ...\nerror: ") {
		t.Errorf("a dumb terminal: exit %d, %q", code, l.stderr)
	}
	d.Args = []string{"list"}
	l = start(t, d)
	until(t, l.stderr, "waiting for")
	if code := l.stop(t); code != 130 || strings.Contains(l.stderr.String(), "error") {
		t.Errorf("exit %d, %q", code, l.stderr)
	}
}

func TestRegistryServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	state := t.TempDir()
	d, _, _ := w.deps(pipe, map[string]string{"XDG_STATE_HOME": state}, "registry", "--address", ":0", "-o", "json")
	l := start(t, d)
	until(t, l.stdout, "}\n")
	var v struct{ URL, Address, Data string }
	if err := json.Unmarshal([]byte(l.stdout.String()), &v); err != nil || !strings.HasPrefix(v.Address, "127.0.0.1:") || v.Data != filepath.Join(state, "micro", "registry") {
		t.Fatalf("%v, %+v", err, v)
	}
	r, err := registryhttp.New(registryhttp.Options{URL: v.URL})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Register(t.Context(), node("a-1", "a", "1", "127.0.0.1:1", 0), time.Minute); err != nil {
		t.Fatal(err)
	}
	d, stdout, stderr := w.deps(pipe, nil, "list", "nodes", "-o", "name", "--registry", v.URL)
	d.Backends.Registries["http"] = registryhttp.Open
	if code := commands.Main(t.Context(), d); code != 0 || stdout.String() != "a-1\n" {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	got := w.run(t, pipe, nil, "registry", "--memory", "--address", v.Address)
	if got.code != 1 || !strings.HasPrefix(got.stderr, "error: "+v.Address+" is taken: another program listens there\n  any free port: micro registry --address 127.0.0.1:0") {
		t.Errorf("a taken port: exit %d, %q", got.code, got.stderr)
	}
	got = w.run(t, pipe, nil, "registry", "--data", v.Data, "--address", ":0")
	if got.code != 1 || !strings.Contains(got.stderr, "another registry server has it open\n  another folder: --data DIR") {
		t.Errorf("a taken folder: exit %d, %q", got.code, got.stderr)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if code := l.stop(t); code != 0 || l.stderr.String() != "" {
		t.Errorf("after Ctrl-C: exit %d, %q", code, l.stderr)
	}
}

// TestRegistryCommands changes what a server has by hand.
func TestRegistryCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func() (*live, string) {
		d, _, _ := w.deps(pipe, nil, "registry", "--address", ":0", "--memory", "--token-file", token, "-o", "name")
		l := start(t, d)
		until(t, l.stdout, "\n")
		return l, strings.TrimSpace(l.stdout.String())
	}
	run := func(url, stdin string, args ...string) outcome {
		t.Helper()
		d, stdout, stderr := w.deps(pipe, nil, append(args, "--registry", url+"?token-file="+token)...)
		d.Backends.Registries["http"] = registryhttp.Open
		d.Stdin = strings.NewReader(stdin)
		return outcome{commands.Main(t.Context(), d), stdout.String(), stderr.String()}
	}
	one, url := serve()
	other, otherURL := serve()
	d, _, _ := w.deps(pipe, nil, "registry", "watch", "-o", "name", "--registry", url+"?token-file="+token)
	d.Backends.Registries["http"] = registryhttp.Open
	watching := start(t, d)
	d, _, _ = w.deps(tty, nil, "registry", "register", "testdata/node.json", "--registry", url+"?token-file="+token)
	d.Backends.Registries["http"] = registryhttp.Open
	holding := start(t, d)
	until(t, watching.stdout, "db-1\n")
	for _, step := range []struct {
		url, stdin string
		args       []string
		code       int
		want       string
	}{
		{url, "", []string{"registry", "get", "db", "-o", "name"}, 0, "db-1\n"},
		{url, `{"id":"x-1","service":"x","address":"10.0.0.9:1"}`, []string{"registry", "register", "-", "--ttl", "1m", "-o", "name"}, 0, "x-1\n"},
		{url, `[{"id":"x-1","service":"x","address":"10.0.0.9:2"},{"id":"db-1","service":"db","address":"10.0.0.9:1"}]`, []string{"registry", "import", "-", "-o", "name"}, 9, "x-1\ndb-1\n"},
		{url, "", []string{"registry", "list", "-o", "name"}, 0, "db\nx\n"},
		{otherURL, "(what export prints)", []string{"registry", "import", "-", "-o", "name"}, 0, "db-1\nx-1\n"},
		{otherURL, "", []string{"registry", "export", "x", "-q", ".[].address"}, 0, "10.0.0.9:2\n"},
		{url, "", []string{"registry", "deregister", "x-1", "-o", "name"}, 0, "x-1\n"},
		{url, "", []string{"registry", "deregister", "x-1"}, 3, ""},
		{url, "", []string{"registry", "prune", "--yes", "-o", "name"}, 0, "db-1\n"},
		{strings.Replace(url, "http://", "http://u:s3cret@", 1), "", []string{"registry", "list"}, 2, ""},
	} {
		if strings.HasPrefix(step.stdin, "(") {
			step.stdin = run(url, "", "registry", "export").stdout
		}
		got := run(step.url, step.stdin, step.args...)
		if got.code != step.code || got.stdout != step.want || strings.Contains(got.stderr, "s3cret") {
			t.Errorf("%q: exit %d, %q, %q; want %d, %q", step.args, got.code, got.stdout, got.stderr, step.code, step.want)
		}
	}
	for name, l := range map[string]*live{"register": holding, "watch": watching, "one": one, "other": other} {
		if code := l.stop(t); code != 0 && code != 130 {
			t.Errorf("%s: exit %d, %q", name, code, l.stderr)
		}
	}
}

func TestRegistryServerRecovers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "registry.db"), []byte("a file of another program's"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	got := w.run(t, pipe, nil, "registry", "--address", ":0", "--data", dir)
	if got.code != 1 || !strings.Contains(got.stderr, "is damaged, or no registry's file") || !strings.Contains(got.stderr, "--recover") || got.stdout != "" {
		t.Errorf("exit %d, %q, %q", got.code, got.stdout, got.stderr)
	}
	d, _, _ := w.deps(pipe, nil, "registry", "--address", ":0", "--data", dir, "--recover", "-o", "name")
	l := start(t, d)
	until(t, l.stdout, "http://127.0.0.1:")
	if code := l.stop(t); code != 0 || !strings.Contains(l.stderr.String(), "nodes that could be read: 0; the damaged file is "+dir) {
		t.Errorf("--recover: exit %d, %q", code, l.stderr)
	}
}

// TestImportOfMany: what is more than a server takes at once is taken all the same.
func TestImportOfMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d, _, _ := w.deps(pipe, nil, "registry", "--address", ":0", "--memory", "-o", "name")
	server := start(t, d)
	until(t, server.stdout, "\n")
	url := strings.TrimSpace(server.stdout.String())
	nodes := make([]registry.Node, 520) // a server takes 500 at once from one client, and 50 a second
	for i := range nodes {
		nodes[i] = registry.Node{ID: fmt.Sprintf("n-%d", i), Service: "many", Address: "127.0.0.1:1"}
	}
	body, err := json.Marshal(nodes)
	if err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, args ...string) outcome {
		d, stdout, stderr := w.deps(pipe, nil, append(args, "--registry", url)...)
		d.Backends.Registries["http"] = registryhttp.Open
		d.Stdin = strings.NewReader(stdin)
		return outcome{commands.Main(t.Context(), d), stdout.String(), stderr.String()}
	}
	if got := run(string(body), "registry", "import", "-", "-o", "name"); got.code != 0 || strings.Count(got.stdout, "\n") != len(nodes) {
		t.Errorf("import: exit %d, %d nodes, %q", got.code, strings.Count(got.stdout, "\n"), got.stderr)
	}
	if got := run("", "registry", "export", "-q", "length"); got.stdout != "520\n" {
		t.Errorf("export: %q, %q", got.stdout, got.stderr)
	}
	if code := server.stop(t); code != 0 {
		t.Errorf("after Ctrl-C: exit %d, %q", code, server.stderr)
	}
}

// TestNoSecretIsShown: a URL with a password, whatever characters that has, is refused without it, by each command and setting.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"nats://u:s3cret@127.0.0.1:1", "nats://s3cret@127.0.0.1:1", "nats://u:s3cret/x@127.0.0.1:1", "nats://u:%zzs3cret@127.0.0.1:1", "nats://u:s3cret@127.0.0.1:none",
		"nats:u:s3cret@127.0.0.1:1", "u:s3cret@127.0.0.1:1", "s3cret@127.0.0.1:1", "nats://127.0.0.1:1?password=s3cret", "nats://127.0.0.1:1?token=s3cret",
	} {
		for _, args := range [][]string{
			{"list", "services", "--registry", url}, {"registry", "list", "--registry", url}, {"registry", "--memory", "--store", url}, {"registry", "--memory", "--address", url},
			{"publish", "topic", "--broker", url}, {"subscribe", "topic", "--broker", url}, {"run", "builtin:echo", "--transport", url}, {"run", "builtin:echo", "--address", url},
			{"call", "a", "A.B", "--transport", url}, {"call", "a", "A.B", "--address", url},
		} {
			for _, args := range [][]string{args, append(args, "-v", "-o", "json")} {
				if got := newWorld(t).run(t, pipe, nil, args...); got.code == 0 || strings.Contains(got.stdout+got.stderr, "s3cret") {
					t.Errorf("micro %q: exit %d, %q", args, got.code, got.stderr)
				}
			}
		}
	}
}

func TestRegistryServerRefuses(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"registry --memory --address 0.0.0.0:0":       "is reached by other machines, and without a token whoever reaches it may register what he likes",
		"registry --memory --address nonsense":        `error: flag --address: "nonsense" is not HOST:PORT`,
		"registry --ttl 1ms":                          "error: flag --ttl: 1ms is not a second or more",
		"registry":                                    "error: there is no folder to keep nodes in: HOME is not set\n  choose one: --data DIR",
		"registry --memory --data /tmp":               "error: flags --data and --memory do not go together",
		"registry --tls-cert x":                       "error: flags --tls-cert and --tls-key go together",
		"registry --tls-cert /none --tls-key x":       "error: flags --tls-cert, --tls-key: open /none",
		"registry --token-file /nowhere/to/found":     "error: flag --token-file: ",
		"registry --memory --token-file live_test.go": "holds white space or what is not ASCII, or is longer than 4096 bytes\n  make one: openssl",
	} {
		got := newWorld(t).run(t, pipe, nil, strings.Fields(line)...)
		if got.code != 2 || !strings.Contains(got.stderr, want) || got.stdout != "" {
			t.Errorf("micro %s: exit %d, %q", line, got.code, got.stderr)
		}
	}
}

// TestExplain holds the texts and exit codes of what can become of a call.
func TestExplain(t *testing.T) {
	t.Parallel()
	w := worlds["ok"](t)
	d, _, _ := w.deps(pipe, nil)
	refused := errors.Join(transport.ErrNotSent, errors.New("dial: refused"))
	orders := []client.Attempt{
		{Node: node("orders-7f3a", "orders", "2.0.1", "10.0.0.4:41233", 0), Phase: client.Dial, Err: refused},
		{Node: node("orders-91bc", "orders", "2.0.1", "10.0.0.9:40110", 0), Phase: client.Dial, Err: status.Parse(`{"id":"other","code":421,"detail":"this is other, not orders","refused":true}`)},
	}
	hello := []client.Attempt{{Node: node("greeter-7f3a", "greeter", "1.4.0", "greeter-7f3a:1", 0), Phase: client.Done}}
	remote := func(code status.Code, detail string) *status.Error {
		return &status.Error{ID: "greeter", Code: code, Detail: detail, Remote: true}
	}
	for name, c := range map[string]struct {
		err  client.Error
		code int
		want string
	}{
		"no service": {client.Error{Service: "greter", Endpoint: "Say.Hello", Err: selector.ErrNotFound, Elapsed: 500 * time.Millisecond}, 3,
			"error: service \"greter\" not found (registry default, waited 500ms, knows 2 services)\n  did you mean: greeter          all: micro list services\n"},
		"no endpoint": {client.Error{Service: "greeter", Endpoint: "Say.Helo", Err: remote(404, `greeter has no endpoint "Say.Helo"`), Attempts: hello}, 3,
			"error: greeter 1.4.0 has no endpoint \"Say.Helo\"\n  did you mean: Say.Hello        all: micro list endpoints greeter\n"},
		"handler's 404": {client.Error{Service: "greeter", Endpoint: "Say.Hello", Err: remote(404, "no such name"), Attempts: hello, Elapsed: 1200 * time.Microsecond}, 6,
			"error: greeter Say.Hello: 404 Not Found: no such name\n  node greeter-7f3a greeter-7f3a:1 · 1.2ms\n"},
		"bad request": {client.Error{Service: "greeter", Endpoint: "Say.Hello", Err: remote(400, "name is empty"), Attempts: hello, Elapsed: 1200 * time.Microsecond}, 6,
			"error: greeter Say.Hello: 400 Bad Request: name is empty\n  node greeter-7f3a greeter-7f3a:1 · 1.2ms\n"},
		"denied":       {client.Error{Service: "greeter", Endpoint: "Say.Hello", Err: remote(403, ""), Attempts: hello}, 7, "error: greeter Say.Hello: 403 Forbidden\n"},
		"overloaded":   {client.Error{Service: "greeter", Endpoint: "Say.Hello", Err: remote(429, "full"), Attempts: hello}, 4, "error: greeter Say.Hello: 429 Too Many Requests: full\n"},
		"handler slow": {client.Error{Service: "greeter", Endpoint: "Say.Hello", Err: remote(504, ""), Attempts: hello}, 5, "error: greeter Say.Hello: 504 Gateway Timeout\n"},
		"the connection took too long": {client.Error{Service: "greeter", Endpoint: "Say.Hello", Err: context.DeadlineExceeded, Attempts: hello, Elapsed: 2009 * time.Millisecond}, 5,
			"error: greeter Say.Hello: no answer within 2.009s\n  node greeter-7f3a greeter-7f3a:1 · 2.009s\n  more time: --timeout 30s\n"},
		"time ran out": {client.Error{Service: "greeter", Endpoint: "Say.Hello", Err: context.DeadlineExceeded, Attempts: hello, Elapsed: 4999 * time.Millisecond}, 5,
			"error: greeter Say.Hello: no answer within 5s\n  node greeter-7f3a greeter-7f3a:1 · 4.999s\n  more time: --timeout 30s\n"},
		"nobody": {client.Error{Service: "orders", Endpoint: "Orders.Get", Err: refused, Attempts: orders}, 4,
			"error: no node of \"orders\" answered (2 tried)\n  orders-7f3a 10.0.0.4:41233  not sent\n  dial: refused\n  orders-91bc 10.0.0.9:40110  another service has the port: this is other, not orders\n  how they are: micro list nodes orders --health\n"},
		"none matches": {client.Error{Service: "orders", Endpoint: "Orders.Get", Err: selector.ErrNoneMatch}, 3,
			"error: no node of \"orders\" matches (1 node known)\n  orders-7f3a 10.0.0.4:41233  version 2.0.1\n  all: micro list nodes orders\n"},
		"too large":     {client.Error{Service: "orders", Endpoint: "Orders.Get", Err: transport.ErrTooLarge, Attempts: orders}, 2, "error: orders Orders.Get: the request is too large: message too large\n"},
		"registry away": {client.Error{Service: "orders", Endpoint: "Orders.Get", Err: selector.ErrUnavailable}, 4, "error: registry default is not answering: registry unavailable\n"},
		"killed":        {client.Error{Service: "greeter", Endpoint: "Say.Hello", Err: io.ErrUnexpectedEOF, Attempts: hello}, 4, "error: greeter Say.Hello: the node closed the connection before the answer was whole\n  node greeter-7f3a"},
		"reset":         {client.Error{Service: "greeter", Endpoint: "Say.Hello", Err: fmt.Errorf("read: %w", syscall.ECONNRESET), Attempts: hello}, 4, "error: greeter Say.Hello: the node closed the connection before the answer was whole\n  node greeter-7f3a"},
		"cut off":       {client.Error{Service: "greeter", Endpoint: "Say.Hello", Err: net.ErrClosed, Attempts: hello}, 1, "error: greeter Say.Hello: use of closed network connection\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, text := commands.Explain(t.Context(), d, &c.err)
			if code != c.code || !strings.HasPrefix(text, c.want) {
				t.Errorf("exit %d, want %d\n%s\nwant\n%s", code, c.code, text, c.want)
			}
		})
	}
}

// TestRegistryServerTLS: who has no certificate is not let in, and who has one needs no token.
func TestRegistryServerTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca, cert, key := testserver.Certificates(t)
	d, _, _ := w.deps(pipe, nil, "registry", "--address", ":0", "--memory", "--tls-cert", cert, "--tls-key", key, "--tls-client-ca", ca, "-o", "name")
	l := start(t, d)
	until(t, l.stdout, "\n")
	server := strings.TrimSpace(l.stdout.String())
	for params, want := range map[string]string{
		"?ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key: "",
		"?ca-file=" + ca: "certificate required",
		"":               "certificate signed by unknown authority",
	} {
		d, stdout, stderr := w.deps(pipe, nil, "registry", "list", "--registry", server+params)
		d.Backends.Registries["https"] = registryhttp.Open
		code := commands.Main(t.Context(), d)
		if want == "" && code != 0 || want != "" && (code != 4 || !strings.Contains(stderr.String(), want)) {
			t.Errorf("%s: exit %d, %q, %q", params, code, stdout, stderr)
		}
	}
	if code := l.stop(t); code != 0 || !strings.HasPrefix(server, "https://") {
		t.Errorf("%s: exit %d, %q", server, code, l.stderr)
	}
}

// TestRunTLS: a service on all interfaces by https is called by who trusts its authority, with a certificate of the one that it wants; and one in
// the clear says so at its start.
func TestRunTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	w := newWorld(t)
	deps := func(args ...string) (commands.Deps, *bytes.Buffer, *bytes.Buffer) {
		d, stdout, stderr := w.deps(pipe, nil, args...)
		all := commands.DefaultBackends()
		d.Backends.Transports, d.Backends.Registries, d.Backends.Brokers = all.Transports, all.Registries, all.Brokers
		return d, stdout, stderr
	}
	serve := func(transport, address string) (l *live, ready map[string]any) {
		t.Helper()
		d, _, _ := deps("run", "--registry", "memory", "--broker", "memory", "--transport", transport, "--address", address, "-o", "jsonl", "builtin:echo")
		l = start(t, d)
		until(t, l.stdout, "\n")
		if err := json.Unmarshal([]byte(l.stdout.String()), &ready); err != nil {
			t.Fatalf("%v: %q, %q", err, l.stdout, l.stderr)
		}
		return l, ready
	}
	const open = "whoever reaches the address may call, in the clear"
	mine := "&cert-file=" + cert + "&key-file=" + key
	l, ready := serve("https://?client-ca-file="+ca+"&ca-file="+ca+mine, "0.0.0.0:0")
	_, port, err := net.SplitHostPort(ready["address"].(string))
	if err != nil {
		t.Fatal(err)
	}
	for transport, want := range map[string]string{
		"https://?ca-file=" + ca + mine: "",
		"https://?ca-file=" + ca:        "certificate required",
		"https://":                      "certificate signed by unknown authority",
		"http":                          "the peer speaks TLS",
	} {
		d, stdout, stderr := deps("call", "--transport", transport, "--address", "127.0.0.1:"+port, "echo", "Echo.Call", "text=hi", "-q", ".text")
		code := commands.Main(t.Context(), d)
		if want == "" && (code != 0 || stdout.String() != "hi\n") || want != "" && (code == 0 || !strings.Contains(stderr.String(), want)) {
			t.Errorf("%s: exit %d, %q, %q", transport, code, stdout, stderr)
		}
	}
	if code := l.stop(t); code != 0 || strings.Contains(l.stderr.String(), open) {
		t.Errorf("https: exit %d, %q", code, l.stderr)
	}
	for address, said := range map[string]bool{"0.0.0.0:0": true, "127.0.0.1:0": false} {
		l, _ := serve("http", address)
		if code := l.stop(t); code != 0 || strings.Contains(l.stderr.String(), open) != said {
			t.Errorf("http on %s: exit %d, %q", address, code, l.stderr)
		}
	}
}

// TestTokenInTheClear: who sends a registry's token over a network without TLS is told.
func TestTokenInTheClear(t *testing.T) {
	t.Parallel()
	for url, said := range map[string]bool{"http://192.0.2.1:8000": true, "http://127.0.0.1:1": false, "https://192.0.2.1:8000": false} {
		d, _, stderr := newWorld(t).deps(pipe, map[string]string{registryhttp.EnvToken: "secret"}, "list", "--registry", url, "--timeout", "1ms")
		d.Backends.Registries["http"], d.Backends.Registries["https"] = registryhttp.Open, registryhttp.Open
		commands.Main(t.Context(), d)
		if strings.Count(stderr.String(), "in the clear") == 1 != said || strings.Contains(stderr.String(), "secret") {
			t.Errorf("%s: %q", url, stderr)
		}
	}
}

// TestEarlyTimeout: where a transport gives up earlier than the call's time, its own time is told.
func TestEarlyTimeout(t *testing.T) {
	t.Parallel()
	for elapsed, want := range map[time.Duration]string{2001 * time.Millisecond: "2.001s", 4999 * time.Millisecond: "5s", 0: "5s"} {
		if text := commands.TimeoutText(t.Context(), elapsed, 5*time.Second); !strings.HasSuffix(text, "no answer within "+want) {
			t.Errorf("after %v: %q", elapsed, text)
		}
	}
	over, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if text := commands.TimeoutText(over, 2*time.Second, 5*time.Second); !strings.HasSuffix(text, "no answer within 5s") {
		t.Errorf("a call that began late: %q", text)
	}
}
