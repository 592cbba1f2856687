//go:build unix

package commands_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/broker"
	brokermemory "github.com/cb02dfca/micro/pkg/broker/memory"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/registry"
	registrymemory "github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/transport"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// lockedBuffer is a stream that a test reads while the program writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// runBackends has a registry and a broker within the process, and HTTP.
func runBackends(reg registry.Registry, b broker.Broker) commands.Backends {
	return commands.Backends{
		Registries: registry.Openers{"default": func(context.Context, *url.URL) (registry.Registry, error) { return reg, nil }},
		Transports: transport.Openers{"http": func(context.Context, *url.URL) (transport.Transport, error) {
			return transporthttp.New(transporthttp.Options{})
		}},
		Brokers: func(func(context.Context) (registry.Registry, error)) broker.Openers {
			return broker.Openers{"http": func(context.Context, *url.URL) (broker.Broker, error) { return b, nil }}
		},
		Codecs: commands.DefaultBackends().Codecs,
	}
}

// running is a micro run inside the test.
type running struct {
	t              *testing.T
	stdout, stderr lockedBuffer
	registry       *registrymemory.Registry
	broker         *brokermemory.Broker
	stop           context.CancelFunc
	code           chan int
}

// serve starts micro run with args.
func serve(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{t: t, code: make(chan int, 1), registry: registrymemory.New(), broker: brokermemory.New()}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	d := commands.Deps{
		Args: append([]string{"run"}, args...), Stdin: strings.NewReader(""), Stdout: &r.stdout, Stderr: &r.stderr,
		Env: passedOnly, Now: time.Now,
		Backends: runBackends(r.registry, r.broker),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.code <- commands.Main(ctx, d)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return r
}

// passedOnly is an environment of one variable.
func passedOnly(name string) (string, bool) {
	if name == "PASSED" {
		return "ours", true
	}
	return "", false
}

var readyAt = regexp.MustCompile(`is ready on (\S+) `)

// address waits until the service is ready.
func (r *running) address() string {
	r.t.Helper()
	var at string
	runEventually(r.t, "ready", func() bool {
		select {
		case code := <-r.code:
			r.t.Fatalf("exit code %d before it was ready:\n%s", code, r.stderr.String())
		default:
		}
		if m := readyAt.FindStringSubmatch(r.stderr.String()); m != nil {
			at = m[1]
		}
		return at != ""
	})
	return at
}

// end stops the service as Ctrl-C does and gives the exit code.
func (r *running) end() int {
	r.stop()
	return <-r.code
}

func runEventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

// TestRunSpeaksForms: a service of run takes each form over plain HTTP, and answers in it.
func TestRunSpeaksForms(t *testing.T) {
	t.Parallel()
	r := serve(t, "builtin:greeter")
	at := r.address()
	for _, c := range commands.DefaultBackends().Forms {
		message := encoded(t, c.ContentType(), map[string]string{"name": "x"})
		rpc, enclosed := c.(codec.Envelope)
		if enclosed {
			request, err := rpc.AppendRequest(nil, "Say.Hello", 7, []byte(message))
			if err != nil {
				t.Fatal(err)
			}
			message = string(request)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at+"/Say.Hello", strings.NewReader(message))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", c.ContentType())
		tr := &http.Transport{DisableKeepAlives: true}
		rsp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(rsp.Body)
		_ = rsp.Body.Close()
		if enclosed && err == nil {
			body, err = rpc.ReadResponse(body, 7)
		}
		var got map[string]any
		if err := errors.Join(err, c.Unmarshal(body, &got)); err != nil || rsp.StatusCode != http.StatusOK || rsp.Header.Get("Content-Type") != c.ContentType() || got["msg"] != "Hello x" {
			t.Errorf("%s: %s, %s, %q, %v", c.ContentType(), rsp.Status, rsp.Header.Get("Content-Type"), body, err)
		}
	}
	if code := r.end(); code != 0 && code != 130 {
		t.Errorf("exit %d", code)
	}
}

// post calls an endpoint over plain HTTP and gives status, content type and body.
func post(t *testing.T, address, endpoint, body string) (int, string, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/"+endpoint, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Request-Id", "r-1")
	rsp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	text, err := io.ReadAll(rsp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return rsp.StatusCode, rsp.Header.Get("Content-Type"), string(text)
}

func handlerFile(t *testing.T, name string, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+strings.Join(lines, "\n")+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunServes(t *testing.T) {
	t.Parallel()
	hello := handlerFile(t, "hello.sh", `printf '{"got":%s,"endpoint":"%s","id":"%s","service":"%s","passed":"%s","set":"%s"}' "$(cat)" $MICRO_ENDPOINT $MICRO_REQUEST_ID $MICRO_SERVICE $PASSED $SET`)
	fails := handlerFile(t, "fails.sh", `echo 'first'>&2; printf '\033[31mlast' >&2; exit 3`)
	folder := filepath.Dir(handlerFile(t, "Say.Hello.sh", `echo '{"msg":"from a folder"}'`))
	for name, test := range map[string]struct {
		args     []string
		endpoint string
		code     int
		want     string
		stderr   []string
	}{
		"a script": {
			[]string{hello, "--env", "PASSED", "--env", "SET=1"}, "Hello.Call", 200,
			`{"got":{"a":1},"endpoint":"Hello.Call","id":"r-1","service":"hello","passed":"ours","set":"1"}`,
			[]string{"hello latest is ready on 127.0.0.1:", "registry default", "Hello.Call"},
		},
		"a script by names": {
			[]string{hello, "--name", "greeter", "--version", "1.2", "--endpoint", "Say.Hello"}, "Say.Hello", 200,
			`{"got":{"a":1},"endpoint":"Say.Hello","id":"r-1","service":"greeter","passed":"","set":""}`,
			[]string{"greeter 1.2 is ready on"},
		},
		"an endpoint's own program": {[]string{"--endpoint", "Say.Hello=" + hello, "--name", "g"}, "Say.Hello", 200,
			`{"got":{"a":1},"endpoint":"Say.Hello","id":"r-1","service":"g","passed":"","set":""}`, nil},
		"a command": {[]string{"--name", "count-words", "--", "wc", "-c"}, "CountWords.Call", 200, "7", nil},
		"a folder":  {[]string{folder, "--name", "greeter"}, "Say.Hello", 200, `{"msg":"from a folder"}`, nil},
		"greeter":   {[]string{"builtin:greeter"}, "Say.Echo", 200, `{"a":1}`, []string{"micro list services", `micro call greeter Say.Hello '{"name":"x"}'`, "micro publish topic"}},
		"echo":      {[]string{"builtin:echo"}, "Echo.Call", 200, `{"a":1}`, nil},
		"a failure": {
			[]string{fails}, "Fails.Call", 500, `exited with status 3: \\x1b[31mlast`,
			[]string{"fails | ", " INF first endpoint=Fails.Call request=r-1", ` INF \x1b[31mlast`, "WRN 500 Internal Server Error: exited with status 3"},
		},
		"a failure in silence": {[]string{fails, "--no-stderr-detail"}, "Fails.Call", 500, `"exited with status 3"`, nil},
		"over its time":        {[]string{"--timeout", "300ms", "--name", "x", "--", "sleep", "1000"}, "X.Call", 504, "the handler took longer than 300ms", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := serve(t, test.args...)
			code, _, body := post(t, r.address(), test.endpoint, `{"a":1}`)
			if code != test.code || code == 200 && strings.TrimSpace(body) != test.want || !strings.Contains(body, test.want) {
				t.Errorf("got %d %q, want %d %q\n%s", code, body, test.code, test.want, r.stderr.String())
			}
			if code := r.end(); code != 0 {
				t.Errorf("exit code %d, want 0\n%s", code, r.stderr.String())
			}
			for _, want := range test.stderr {
				if !strings.Contains(r.stderr.String(), want) {
					t.Errorf("standard error lacks %q:\n%s", want, r.stderr.String())
				}
			}
			if strings.Contains(r.stderr.String(), "\x1b") || r.stdout.String() != "" {
				t.Errorf("stderr %q, stdout %q, want no escapes and nothing", r.stderr.String(), r.stdout.String())
			}
			if nodes, err := r.registry.List(t.Context()); err == nil && len(nodes) > 0 {
				t.Errorf("still registered: %v", nodes)
			}
		})
	}
}

// TestRunBare is not parallel: it changes the working directory.
func TestRunBare(t *testing.T) {
	t.Run("in an empty folder", func(t *testing.T) {
		t.Chdir(t.TempDir())
		r := serve(t)
		if _, _, body := post(t, r.address(), "Say.Hello", `{"name":"x"}`); body != `{"msg":"Hello x"}` {
			t.Errorf("got %s", body)
		}
		if !strings.Contains(r.stderr.String(), "serving the demo, builtin:greeter") {
			t.Errorf("it does not say what it serves:\n%s", r.stderr.String())
		}
	})
	t.Run("the folder itself", func(t *testing.T) {
		t.Chdir(filepath.Dir(handlerFile(t, "Say.Hello", "echo 1")))
		r := serve(t, ".", "--name", "x")
		if _, _, body := post(t, r.address(), "Say.Hello", "{}"); body != "1" {
			t.Errorf("got %s", body)
		}
	})
	for name, test := range map[string]struct {
		file, text string
		want       []string
	}{
		"beside a Go program": {"x.go", "// Doc.\npackage main\n", []string{"go run .", "micro run builtin:greeter"}},
		"beside a micro.yaml": {"micro.yaml", "services: {}\n", []string{"micro.yaml", "micro run builtin:greeter"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile(test.file, []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			r := serve(t)
			if code := <-r.code; code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			for _, want := range test.want {
				if !strings.Contains(r.stderr.String(), want) {
					t.Errorf("standard error lacks %q:\n%s", want, r.stderr.String())
				}
			}
		})
	}
}

func TestRunFails(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain.py")
	if err := os.WriteFile(plain, []byte("print(1)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	goFile := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(goFile, []byte("package main\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	odd := t.TempDir()
	if err := os.WriteFile(filepath.Join(odd, "new\nline\x1b[2J"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ok := handlerFile(t, "ok", ":")
	for name, test := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"not there":             {[]string{filepath.Join(dir, "none")}, 127, []string{"not found", "none"}},
		"not in PATH":           {[]string{"--", "no-such-program-anywhere"}, 127, []string{"not in PATH"}},
		"not executable":        {[]string{plain}, 126, []string{plain + " is not executable", "chmod +x " + plain, "micro run -- python3 " + plain}},
		"hostile file name":     {[]string{odd}, 127, []string{`new\x0aline\x1b[2J: is not executable`}},
		"folder of nothing":     {[]string{dir}, 127, []string{"holds no executable", "plain.py: is not executable"}},
		"built-in of no name":   {[]string{"builtin:greter"}, 2, []string{"builtin:greeter"}},
		"a server":              {[]string{"http://127.0.0.1:1"}, 2, []string{"adopted"}},
		"a Go file":             {[]string{goFile}, 2, []string{"go run " + goFile}},
		"target and command":    {[]string{ok, "--", "wc"}, 2, []string{"both"}},
		"no command":            {[]string{"--"}, 2, []string{"nothing after --"}},
		"two targets":           {[]string{ok, ok}, 2, []string{"one argument too many"}},
		"address in use":        {[]string{ok, "--address", taken.Addr().String()}, 125, []string{"address " + taken.Addr().String() + " is in use", "--address :0"}},
		"address that is none":  {[]string{ok, "--address", "here"}, 2, []string{"HOST:PORT"}},
		"address elsewhere":     {[]string{ok, "--address", "192.0.2.1:0"}, 125, []string{"192.0.2.1:0"}},
		"name that is none":     {[]string{ok, "--name", "a b"}, 2, []string{"service's name"}},
		"endpoint that is none": {[]string{ok, "--endpoint", "a b"}, 2, []string{"endpoint"}},
		"endpoint of Debug":     {[]string{ok, "--endpoint", "Debug.X"}, 2, []string{"Debug"}},
		"endpoint twice":        {[]string{ok, "--endpoint", "A.B", "--endpoint", "A.B"}, 2, []string{"A.B"}},
		"endpoint of nothing":   {[]string{"--endpoint", "A.B"}, 2, []string{"NAME=TARGET"}},
		"topic that is none":    {[]string{ok, "--subscribe", "a b"}, 2, []string{"topic"}},
		"concurrency":           {[]string{ok, "--concurrency", "-1"}, 2, []string{"concurrency"}},
		"no concurrency":        {[]string{ok, "--concurrency", "0"}, 2, []string{"flag --concurrency: 0 is not 1 or more"}},
		"queue":                 {[]string{ok, "--queue", "-1"}, 2, []string{"queue"}},
		"meta":                  {[]string{ok, "--meta", "x"}, 2, []string{"KEY=VALUE"}},
		"environment":           {[]string{ok, "--env", "MICRO_ENDPOINT=x"}, 2, []string{"MICRO_ENDPOINT"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := serve(t, test.args...)
			if code := <-r.code; code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, want := range append(test.want, "error: ") {
				if !strings.Contains(r.stderr.String(), want) {
					t.Errorf("standard error lacks %q:\n%s", want, r.stderr.String())
				}
			}
			if r.stdout.String() != "" {
				t.Errorf("standard output is %q", r.stdout.String())
			}
		})
	}
}

func TestRunReadyJSON(t *testing.T) {
	t.Parallel()
	r := serve(t, "builtin:greeter", "-o", "json", "--meta", "zone=a", "--quiet")
	runEventually(t, "ready", func() bool { return strings.HasSuffix(r.stdout.String(), "}\n") })
	var v struct {
		Service, Version, Node, Address, Registry string
		Endpoints, Topics                         []string
	}
	if err := json.Unmarshal([]byte(r.stdout.String()), &v); err != nil {
		t.Fatal(err)
	}
	if v.Service != "greeter" || v.Address == "" || len(v.Endpoints) != 4 || len(v.Topics) != 1 || !strings.HasPrefix(v.Node, "greeter-") {
		t.Errorf("got %+v", v)
	}
	nodes, err := r.registry.Get(t.Context(), "greeter")
	if err != nil || len(nodes) != 1 || nodes[0].Metadata["zone"] != "a" || nodes[0].ID != v.Node {
		t.Errorf("got %v, %v", nodes, err)
	}
	if r.end() != 0 || r.stderr.String() != "" {
		t.Errorf("--quiet said %q", r.stderr.String())
	}
}

func TestRunSubscribes(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	r := serve(t, handlerFile(t, "mail.sh", `cat >`+out, `echo "$MICRO_TOPIC" >>`+out, `[ ! -e `+out+`.fail ] || exit 69`), "--subscribe", "orders.created")
	r.address()
	publish := func() broker.Report {
		t.Helper()
		report, err := r.broker.Publish(t.Context(), &broker.Message{Topic: "orders.created", Body: []byte("{}\n")})
		if err != nil || len(report.Deliveries) != 1 {
			t.Fatalf("got %v, %v", report, err)
		}
		return report
	}
	if err := publish().Err(); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(out); string(text) != "{}\norders.created\n" {
		t.Errorf("the handler got %q", text)
	}
	if err := os.WriteFile(out+".fail", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if publish().Err() == nil {
		t.Error("a handler that failed has acknowledged")
	}
	if !strings.Contains(r.stderr.String(), "exited with status 69 topic=orders.created request=") {
		t.Errorf("the log does not name the topic:\n%s", r.stderr.String())
	}
	if strings.Contains(r.stderr.String(), "endpoints") {
		t.Errorf("it serves an endpoint that nobody asked for:\n%s", r.stderr.String())
	}
}

func TestRunOnce(t *testing.T) {
	t.Parallel()
	r := serve(t, handlerFile(t, "one.sh", "echo 1"), "--once")
	if code, _, body := post(t, r.address(), "One.Call", "{}"); code != 200 || body != "1" {
		t.Errorf("got %d %s", code, body)
	}
	if code := <-r.code; code != 0 {
		t.Errorf("exit code %d, want 0\n%s", code, r.stderr.String())
	}
}

func TestRunQueue(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	started := fifo + ".started"
	r := serve(t, handlerFile(t, "slow.sh", `echo >`+started, `read line <`+fifo, `echo 1`), "--concurrency", "1", "--queue", "0")
	at := r.address()
	answered := make(chan int, 1)
	go func() {
		code, _, _ := post(t, at, "Slow.Call", "{}")
		answered <- code
	}()
	runEventually(t, "one runs", func() bool { _, err := os.Stat(started); return err == nil })
	if code, _, body := post(t, at, "Slow.Call", "{}"); code != 429 || !strings.Contains(body, `"refused":true`) {
		t.Errorf("got %d %s, want 429, refused", code, body)
	}
	if err := os.WriteFile(fifo, []byte("x\n"), 0); err != nil {
		t.Fatal(err)
	}
	if code := <-answered; code != 200 {
		t.Errorf("got %d, want 200", code)
	}
}
