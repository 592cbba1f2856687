package examples_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/examples/grpc/greet"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
)

// binaries is where build puts the examples.
var binaries string

func TestMain(m *testing.M) {
	var err error
	if binaries, err = os.MkdirTemp("", "examples"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(binaries) // what cannot be removed is the system's to clear
		os.Exit(code)
	}))
}

// build builds all examples once.
var build = sync.OnceValues(func() (string, error) {
	dir := binaries
	out, err := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./service", "./function", "./middleware", "./filter", "./plugins", "./browser").CombinedOutput()
	for _, nested := range []string{"greeter/service", "greeter/client", "pubsub/subscriber", "pubsub/publisher", "stream/service", "stream/client", "grpc/service", "grpc/client"} {
		if err == nil {
			out, err = exec.Command("go", "build", "-o", filepath.Join(dir, strings.ReplaceAll(nested, "/", "-")+exe()), "./"+nested).CombinedOutput()
		}
	}
	for _, program := range []string{"service", "client"} { // of a module of its own
		if err == nil {
			cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "generated-"+program+exe()), "./"+program)
			cmd.Dir = "generated"
			out, err = cmd.CombinedOutput()
		}
	}
	if err != nil {
		err = errors.New(err.Error() + "\n" + string(out))
	}
	return dir, err
})

func exe() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// world is a registry that one test's programs share, and nobody else sees.
type world struct {
	t    *testing.T
	bin  string
	env  []string
	reg  registry.Registry
	call *client.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "registry")
	reg, err := local.New(local.Options{Dir: folder})
	if err != nil {
		t.Fatal(err)
	}
	svc, err := micro.New("test", micro.Registry(reg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = svc.Close(); _ = reg.Close() })
	return &world{t, bin, append(os.Environ(), "MICRO_REGISTRY=local://?dir="+folder), reg, svc.Client()}
}

func (w *world) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(w.bin, name+exe()), args...)
	cmd.Env = w.env
	return cmd
}

// run runs a program to its end and gives what it printed.
func (w *world) run(name string, args ...string) string {
	w.t.Helper()
	var stderr bytes.Buffer
	cmd := w.command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", name, err, stderr.String())
	}
	return string(out)
}

// program is a program that runs, with the node of its service.
type program struct {
	node registry.Node
	stop func() string // ends it, and gives what it printed
	wait func()        // waits until it has ended by itself
}

// serve starts a program and waits until its service is listed.
func (w *world) serve(name, service string) program {
	w.t.Helper()
	var out bytes.Buffer
	cmd := w.command(name)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	wait := sync.OnceFunc(func() {
		if err := cmd.Wait(); err != nil {
			w.t.Errorf("%s ended: %v\n%s", name, err, out.String())
		}
	})
	stop := func() string {
		_ = cmd.Process.Signal(os.Interrupt) // no error where it has ended and was waited for
		wait()
		return out.String()
	}
	w.t.Cleanup(func() { stop() })
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	for nodes, err := range w.reg.Watch(ctx, service) {
		if err == nil && len(nodes) > 0 {
			return program{nodes[0], stop, wait}
		}
	}
	w.t.Fatalf("%s did not register", name)
	return program{}
}

func (w *world) want(got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve("service", "clock")
	rsp, err := client.Call[struct{ Time string }](t.Context(), w.call, "clock", "Clock.Now", map[string]string{"zone": "UTC"})
	if err != nil || !strings.HasSuffix(rsp.Time, "Z") {
		t.Errorf("%v %v", rsp, err)
	}
	if _, err := client.Call[struct{}](t.Context(), w.call, "clock", "Clock.Now", map[string]string{"zone": "Nowhere"}); err == nil || !strings.Contains(err.Error(), `no such zone: "Nowhere"`) {
		t.Errorf("error %v", err)
	}
}

func TestFunction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fn := w.serve("function", "job")
	rsp, err := client.Call[struct{ Done string }](t.Context(), w.call, "job", "Job.Do", map[string]string{"name": "tidy"})
	if err != nil || rsp.Done != "tidy" {
		t.Errorf("%v %v", rsp, err)
	}
	fn.wait() // it leaves by itself
	if nodes, err := w.reg.Get(t.Context(), "job"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("still listed: %v %v", nodes, err)
	}
}

func TestGreeter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	greeter := w.serve("greeter-service", "greeter")
	w.want(w.run("greeter-client", "Ada"), "Hello Ada\n")
	rsp, err := http.Post("http://"+greeter.node.Address+"/Say.Hello", "application/json", strings.NewReader(`{"name":"curl"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	var body bytes.Buffer
	_, _ = body.ReadFrom(rsp.Body)
	_ = rsp.Body.Close()
	w.want(body.String(), `{"msg":"Hello curl"}`)
	greeter.stop()
	if out, err := w.command("greeter-client").CombinedOutput(); err == nil || !bytes.Contains(out, []byte("greeter")) {
		t.Errorf("without the service the client ended with %v and printed %s", err, out)
	}
}

func TestPubSub(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mail := w.serve("pubsub-subscriber", "mail")
	w.want(w.run("pubsub-publisher", "Ada"), "2 of 2 subscribers took it\n")
	if got := w.run("pubsub-publisher"); !strings.HasPrefix(got, "1 of 2 subscribers took it\n") {
		t.Errorf("got %q", got)
	}
	if got := mail.stop(); !strings.Contains(got, "seen Ada\n") || !strings.Contains(got, "mailed Ada\n") {
		t.Errorf("the subscriber printed %q", got)
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve("stream-service", "numbers")
	w.want(w.run("stream-client"), "2\n4\n6\n")
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	greeter := w.serve("grpc-service", "greeter")
	w.want(w.run("grpc-client", greeter.node.Address, "Ada", "Bob"), "Hello Ada\nHello Ada\nHello Bob\n")
	rsp, err := client.Call[greet.Response](t.Context(), w.call, "greeter", "Say.Hello", &greet.Request{Name: "frames"}) // the same port
	if err != nil || rsp.Msg != "Hello frames" {
		t.Errorf("%q %v", rsp.GetMsg(), err)
	}
}

func TestGenerated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve("generated-service", "greeter")
	w.want(w.run("generated-client"), "Hello Ada\nHello Grace\nHello Grace\nHello Ada, Grace\n")
}

func TestMiddleware(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.run("middleware"), "guess 401\nopen-sesame 0\n")
}

func TestFilter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.run("filter"), "version 2.0.0: 2.0.0 b\nzone a: 1.0.0 a\nversion 1.0.0 in zone b: 1.0.0 b\nzone c: none\n")
}

func TestPlugins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.run("plugins"), "called hello\nheard world\n")
}

func TestBrowser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	page := w.serve("browser", "page")
	b := testserver.Browse(t, "http://"+page.node.Address+"/")
	got := b.Eval(t, `new Promise((resolve) => {
		const look = () => {
			const text = document.getElementById("log").textContent;
			text.endsWith("enough\n") ? resolve(text) : setTimeout(look, 20);
		};
		look();
	})`)
	w.want(got, `Hello page
400 Bad Request: hello to whom?
count 1
count 2
count 3
double 2
double 4
double 6
count 1
count 2
count 3
count 4
count 5
enough
`)
	rsp, err := http.Post("http://"+page.node.Address+"/Say.Hello", "application/json", strings.NewReader(`{"text":"curl"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	var body bytes.Buffer
	_, _ = body.ReadFrom(rsp.Body)
	_ = rsp.Body.Close()
	w.want(body.String(), `{"text":"Hello curl"}`)
	if got := page.stop(); !strings.Contains(got, "the page has had enough\n") {
		t.Errorf("the service printed %q", got)
	}
}
