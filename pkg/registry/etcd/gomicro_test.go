package etcd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry/etcd"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// shell runs the command line with what stands in one etcd.
type shell struct {
	t   *testing.T
	url string
}

// run gives what a command prints, and its exit code.
func (s shell) run(args ...string) (string, int) {
	s.t.Helper()
	var out bytes.Buffer
	code := s.in(s.t.Context(), &out, args...)
	return out.String(), code
}

func (s shell) in(ctx context.Context, out io.Writer, args ...string) int {
	d := commands.System(append(args, "--registry", s.url))
	d.Stdin, d.Stdout, d.Stderr = strings.NewReader(""), out, out
	d.StdinTTY, d.StdoutTTY, d.StderrTTY, d.StdinData, d.Width, d.Now = false, false, false, false, 0, time.Now
	return commands.Main(ctx, d)
}

// wants runs a command, which is to print something and end with a code.
func (s shell) wants(code int, want string, args ...string) {
	s.t.Helper()
	if out, got := s.run(args...); got != code || !strings.Contains(out, want) {
		s.t.Errorf("micro %s gave %d and\n%s\nwant %d and %s", strings.Join(args, " "), got, out, code, want)
	}
}

// begin runs a command until it is ended, by the end of the test at the latest, and waits until it says something.
func (s shell) begin(says string, args ...string) (said *registrytest.Journal, end func()) {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	out, done := &registrytest.Journal{}, make(chan struct{})
	go func() { defer close(done); s.in(ctx, out, args...) }()
	end = func() { stop(); <-done }
	s.t.Cleanup(end)
	registrytest.Eventually(s.t, "micro "+args[0]+" says "+says, func() bool { return strings.Contains(out.String(), says) })
	return out, end
}

// protobuf calls an endpoint that answers with what it gets.
func (s shell) protobuf(service, endpoint string) {
	s.t.Helper()
	r := open(s.t, etcd.Options{Endpoints: []string{strings.TrimPrefix(s.url, "etcd://")}})
	caller, err := micro.New("caller", micro.Registry(r))
	must(s.t, err)
	defer caller.Close()
	want, err := structpb.NewStruct(map[string]any{"a": "ü", "n": 1.5})
	must(s.t, err)
	got, err := client.Call[structpb.Struct](s.t.Context(), caller.Client(), service, endpoint, want, client.ContentType("application/protobuf"))
	if err != nil || !proto.Equal(got, want) {
		s.t.Errorf("the call in protobuf gave %v, %v", got, err)
	}
}

// TestCallsGoMicro: services of go-micro v5 in the same etcd are listed, described, called, and get messages.
func TestCallsGoMicro(t *testing.T) {
	t.Parallel()
	s := shell{t, "etcd://" + own(t).Addr}
	theirs := testserver.GoMicro(t, "service", s.url, "theirs", "users/created")
	s.wants(0, "theirs\tlatest\t1\t", "list", "services")
	s.wants(0, "theirs-", "list", "nodes", "theirs", "-o", "name")
	s.wants(0, "Say.Hello   unary    HelloRequest -> HelloResponse", "describe", "theirs")
	s.wants(0, "as the registry has it", "describe", "theirs", "Say.Hello")
	s.wants(0, "alive", "list", "nodes", "theirs", "--health")
	s.wants(0, "no Debug.Health", "health", "theirs")
	s.wants(0, `{"message":"Hello x"}`, "call", "theirs", "Say.Hello", `{"name":"x"}`)
	s.wants(0, `{"message":"Hey x"}`, "call", "theirs", "Say.Hello", "name=x", "-H", "greeting:Hey")
	s.wants(6, "400 Bad Request: no name", "call", "theirs", "Say.Hello", "name=")
	s.wants(6, "500 Internal Server Error: a plain error", "call", "theirs", "Say.Hello", "name=plain")
	s.wants(6, "500 Internal Server Error: rpc: can't find method Nope", "call", "theirs", "Say.Nope")
	s.wants(0, `{"n":3}`, "call", "theirs", "Say.Count", "to:=3") // of those that it sends at once it may send the last one thrice

	s.protobuf("theirs", "Say.Echo")

	s.wants(0, "", "publish", "users/created", "name=ann", "-H", "trace:ours", "--require-subscriber")
	var e struct {
		Name   string
		Header map[string]string
	}
	must(t, json.Unmarshal([]byte(told(t, theirs)), &e))
	if e.Name != "ann" || e.Header["Trace"] != "ours" || e.Header["Content-Type"] != "application/json" {
		t.Errorf("its subscriber got %+v", e)
	}

	// Of two, one is killed: who calls does not notice, and it is on no list when its ttl, of 5 s, is over.
	other := testserver.GoMicro(t, "service", s.url, "theirs", "users/created")
	s.wants(0, "theirs\tlatest\t2\t", "list", "services")
	other.Kill()
	for range 10 {
		s.wants(0, `{"message":"Hello x"}`, "call", "theirs", "Say.Hello", "name=x")
	}
	registrytest.Eventually(t, "it is listed no more", func() bool {
		out, _ := s.run("list", "services")
		return strings.Contains(out, "theirs\tlatest\t1\t")
	})
	theirs.Stop()
	s.wants(3, `service "theirs" not found`, "call", "theirs", "Say.Hello", "name=x")
}

// TestGoMicroCalls: clients of go-micro v5 call, and publish to, services of ours in the same etcd.
func TestGoMicroCalls(t *testing.T) {
	t.Parallel()
	s := shell{t, "etcd://" + own(t).Addr}
	_, end := s.begin("greeter latest is ready", "run", "builtin:greeter")
	for _, contentType := range []string{"application/json", "application/json-rpc"} {
		theirs := testserver.GoMicro(t, "client", s.url, contentType)
		for order, want := range map[string]string{
			`call greeter Say.Hello {"name":"x"}`:   `{"msg":"Hello x"}`,
			`call greeter Say.Hello {"name":""}`:    `"{\"id\":\"greeter\",\"code\":400,\"detail\":\"name is empty\",\"status\":\"Bad Request\"}"`,
			`call greeter Say.Echo {"a":[1,"<&>"]}`: `{"a":[1,"<&>"]}`,
			`call greeter Say.Nope {}`:              `"{\"id\":\"greeter\",\"code\":404,\"detail\":\"greeter has no endpoint \\\"Say.Nope\\\"\",\"status\":\"Not Found\",\"refused\":true}"`,
		} {
			if got := theirs.Do(order); decoded(t, got) != decoded(t, want) {
				t.Errorf("%s, %s: go-micro has %s, want %s", contentType, order, got, want)
			}
		}
	}
	if got := testserver.GoMicro(t, "client", s.url, "application/json").Do(`count greeter Say.Count {"to":3}`); decoded(t, got) != decoded(t, `[{"n":1},{"n":2},{"n":3}]`) {
		t.Errorf("its stream has %s", got)
	}
	for _, contentType := range []string{"application/protobuf", "application/proto-rpc"} {
		theirs := testserver.GoMicro(t, "client", s.url, contentType)
		if got := theirs.Do(`call greeter Say.Echo {"a":[1,"<&>"]}`); decoded(t, got) != decoded(t, `{"a":[1,"<&>"]}`) {
			t.Errorf("%s: go-micro has %s", contentType, got)
		}
	}
	out, _ := s.begin("subscribed", "subscribe", "users/created", "-v")
	theirs := testserver.GoMicro(t, "client", s.url, "application/json")
	if got := theirs.Do(`publish users/created {"name":"ann"}`); got != `"published"` {
		t.Errorf("go-micro has %s", got)
	}
	registrytest.Eventually(t, "the message comes", func() bool { return strings.Contains(out.String(), `{"name":"ann"}`) })

	// What its client knows of a service is kept up by what its watcher sees of ours. It begins to watch up to 100 ms after the first call, and for a
	// minute does not learn what came in between: so a node comes and goes until it is called.
	called := func() string {
		var info struct{ ID string }
		_ = json.Unmarshal([]byte(theirs.Do("call greeter Debug.Info {}")), &info) // an error is a string
		return info.ID
	}
	first := called()
	registrytest.Eventually(t, "go-micro calls a node that came later", func() bool {
		_, leave := s.begin("greeter latest is ready", "run", "builtin:greeter")
		defer leave()
		for range 50 {
			if id := called(); id != "" && id != first {
				return true
			}
		}
		return false
	})
	s.begin("greeter latest is ready", "run", "builtin:greeter")
	end()
	for range 10 {
		registrytest.Eventually(t, "go-micro calls those that are there", func() bool { id := called(); return id != "" && id != first })
	}
}

// decoded writes JSON in the one way: go-micro's process escapes what HTML has.
func decoded(t *testing.T, text string) string {
	t.Helper()
	var v any
	must(t, json.Unmarshal([]byte(text), &v))
	out, err := json.Marshal(v)
	must(t, err)
	return string(out)
}

// told waits for an event.
func told(t *testing.T, p *testserver.Peer) string {
	t.Helper()
	select {
	case text := <-p.Told("event"):
		return text
	case <-time.After(wait):
		t.Fatal("go-micro got no message")
		return ""
	}
}
