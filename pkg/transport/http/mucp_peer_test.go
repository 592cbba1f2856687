package http_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// goMicroVersions are the clients that TestGoMicroClients runs, and how each is told to speak HTTP.
var goMicroVersions = map[string][]string{
	"v1.18.0": nil,
	"v2.9.1":  {"-protocol", "mucp"},
	"v4.11.0": nil,
	"v5.3.0":  nil,
	"v5.30.0": nil,
}

// TestGoMicroClients: real clients of go-micro call and stream, one process of each for all of it.
func TestGoMicroClients(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds go-micro")
	}
	for version, flags := range goMicroVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			address := greeter(t, "us", http.Options{}, nil)
			testserver.BuildGoMicro(t, version)
			for _, contentType := range []string{"application/json", "application/protobuf", "application/json-rpc", "application/proto-rpc"} {
				p := testserver.GoMicroOf(t, version, append([]string{"client", "-registry", "memory", "-address", address, "-type", contentType}, flags...)...)
				goMicroCalls(t, p)
				if !strings.HasSuffix(contentType, "-rpc") { // a stream's messages are in no envelope here
					goMicroStreams(t, p)
				}
				if contentType == "application/protobuf" { // their messages have the text as field 1, and so has the answer
					if a := ask(t, p, `call greeter Debug.Health {}`); a.Error != nil || a.Reply.Msg != "ok" {
						t.Errorf("health: %+v", a)
					}
				}
				p.Stop()
			}
		})
	}
}

// TestGoMicroClientsAfterRestart: a service that goes away and comes back at its address costs go-micro's clients the calls on the connections that they
// have kept, and no more.
func TestGoMicroClientsAfterRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds go-micro")
	}
	for version, flags := range goMicroVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			testserver.BuildGoMicro(t, version)
			address, first := serveAt(t, newGreeter(t, "first"), http.Options{}, "127.0.0.1:0")
			p := testserver.GoMicroOf(t, version, append([]string{"client", "-registry", "memory", "-address", address, "-type", "application/json"}, flags...)...)
			const call = `call greeter Say.Hello {"name":"John"}`
			for range 3 {
				if a := ask(t, p, call); a.Error != nil || a.Reply.Msg != "Hello John from first" {
					t.Fatalf("before: %+v", a)
				}
			}
			first()
			_, second := serveAt(t, newGreeter(t, "second"), http.Options{}, address)
			defer second()
			failed := 0
			for range 5 {
				a := ask(t, p, call)
				if a.Error != nil {
					failed++
				} else if a.Reply.Msg != "Hello John from second" {
					t.Errorf("after: %+v", a)
				}
			}
			if failed > 1 {
				t.Errorf("%d calls failed after the restart, want that on the connection that was kept at most", failed)
			}
		})
	}
}

// answerOf is what a peer answers.
type answerOf struct {
	Reply    struct{ Msg string }
	Messages []struct {
		Msg string
		Seq json.RawMessage
	}
	End   string
	Error any
}

// ask gives a peer an order.
func ask(t *testing.T, p *testserver.Peer, order string) (a answerOf) {
	t.Helper()
	said := p.Do(order)
	if err := json.Unmarshal([]byte(said), &a); err != nil {
		t.Fatalf("%s: %v: %s", order, err, said)
	}
	return a
}

func goMicroCalls(t *testing.T, p *testserver.Peer) {
	t.Helper()
	for range 3 { // by a connection that it has already
		if a := ask(t, p, `call greeter Say.Hello {"name":"John"}`); a.Error != nil || a.Reply.Msg != "Hello John from us" {
			t.Errorf("a call: %+v", a)
		}
	}
	for endpoint, want := range map[string][2]string{
		`Say.Fail {"name":"xx"}`:    {"400", "bad name: xx"},
		`Say.Fail {"name":"panic"}`: {"500", "the handler panicked"},
		`Say.Nope {"name":"xx"}`:    {"404", "no endpoint"},
	} {
		a := ask(t, p, "call greeter "+endpoint)
		text := fmt.Sprint(a.Error)
		if e, ok := a.Error.(map[string]any); !ok || fmt.Sprint(e["code"]) != want[0] || !strings.Contains(text, want[1]) {
			t.Errorf("%s: %v, want %v", endpoint, text, want)
		}
	}
}

func goMicroStreams(t *testing.T, p *testserver.Peer) {
	t.Helper()
	texts := func(a answerOf) (list []string) {
		for _, m := range a.Messages {
			list = append(list, m.Msg)
		}
		return list
	}
	a := ask(t, p, `stream greeter Stream.Echo [{"name":"a","count":1},{"name":"b"},{"name":"c"}]`)
	if got := strings.Join(texts(a), ","); a.Error != nil || got != "echo a,echo b,echo c" {
		t.Errorf("a stream that the client ends: %+v", a)
	}
	a = ask(t, p, `stream greeter Stream.Echo [{"name":"a"},{"name":"finish"}]`)
	if got := strings.Join(texts(a), ","); a.Error != nil || a.End != "EOF" || got != "echo a" {
		t.Errorf("a stream that the server ends: %+v", a)
	}
	a = ask(t, p, `stream greeter Stream.Echo [{"name":"a"},{"name":"fail"}]`)
	if !strings.Contains(fmt.Sprint(a.Error), "stream refused") {
		t.Errorf("a stream that fails: %+v", a)
	}
	a = ask(t, p, `count greeter Stream.Count {"name":"a","count":1000}`)
	if a.Error != nil || a.End != "EOF" || len(a.Messages) != 1000 || strings.Trim(string(a.Messages[999].Seq), `"`) != "1000" {
		t.Errorf("a stream of the server: %d messages, end %q, %v", len(a.Messages), a.End, a.Error)
	}
	a = ask(t, p, `count greeter Stream.Nope {"name":"a","count":1}`)
	if !strings.Contains(fmt.Sprint(a.Error), "no endpoint") {
		t.Errorf("a stream that there is not: %+v", a)
	}
}
