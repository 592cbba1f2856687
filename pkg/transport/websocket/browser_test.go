package websocket_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/raw"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/websocket"
)

type number struct {
	N int `json:"n"`
}

// world is a service with an endpoint of each kind.
type world struct {
	addr     string
	begun    chan struct{} // a Say.Never has begun
	canceled chan string   // the endpoints whose caller has gone
	stop     func() error
}

// serve runs a service named "world" on a listener of tr.
func serve(t *testing.T, tr transport.Transport) *world {
	t.Helper()
	w := &world{begun: make(chan struct{}, 10), canceled: make(chan string, 10)}
	s, err := server.New("world", server.Codecs(codec.Set{json.Strict(), raw.New()}), server.ShutdownTimeout(5*time.Second))
	must(t, err)
	must(t, server.Handle(s, "Say.Twice", func(ctx context.Context, in *number) (*number, error) {
		if in.N < 0 {
			return nil, status.New(status.InvalidArgument, "%d is \"negative\"", in.N)
		}
		return &number{2 * in.N}, nil
	}))
	must(t, s.Handle(server.Endpoint{Name: "Say.Again"}, func(ctx context.Context, c *server.Call) error {
		body, err := c.RecvRaw()
		if err != nil {
			return err
		}
		if err := c.SetHeader("heard", metadata.Incoming(ctx).Get("say")); err != nil {
			return err
		}
		return c.SendRaw("", body)
	}))
	must(t, server.Handle(s, "Say.Never", func(ctx context.Context, _ *number) (*number, error) {
		w.begun <- struct{}{}
		<-ctx.Done()
		w.canceled <- "Say.Never"
		return nil, ctx.Err()
	}))
	must(t, server.HandleServerStream(s, "Numbers.Count", func(_ context.Context, to *number, out *server.Sender[number]) error {
		for n := 1; n <= to.N; n++ {
			if err := out.Send(&number{n}); err != nil {
				w.canceled <- "Numbers.Count"
				return err
			}
		}
		return nil
	}))
	must(t, server.HandleBidi(s, "Numbers.Double", func(ctx context.Context, st *server.Stream[number, number]) error {
		for in, err := range st.All() {
			if err != nil {
				w.canceled <- "Numbers.Double"
				return err
			}
			if in.N == 13 {
				return status.New(status.AlreadyExists, "not that one")
			}
			if err := st.Send(&number{2 * in.N}); err != nil {
				return err
			}
		}
		return nil
	}))
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	must(t, err)
	w.addr = l.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	w.stop = func() error { cancel(); err := <-done; done <- err; return err }
	t.Cleanup(func() { _ = w.stop() })
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) wantCanceled(t *testing.T, endpoint string) {
	t.Helper()
	select {
	case got := <-w.canceled:
		if got != endpoint {
			t.Errorf("the caller of %s has gone, want that of %s", got, endpoint)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("the handler of %s was not told that its caller has gone", endpoint)
	}
}

// site serves an empty page, of another origin than the service's.
func site(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>a page</title>"))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// talk is what a page has: it sends the messages one after another, and gives all that came until the WebSocket was closed, or as
// many messages as it was to wait for. With then it answers the first that comes.
const talk = `globalThis.talk = (url, protocols, messages, count, then) => new Promise((resolve) => {
	const got = [], ws = new WebSocket(url, protocols);
	const end = (e) => { got.push("closed " + e.code + " " + e.reason); resolve(got.join("\n")); };
	ws.onopen = () => messages.forEach((m) => ws.send(typeof m === "string" ? m : JSON.stringify(m)));
	ws.onclose = end;
	ws.onmessage = ({data}) => { got.push(data); if (then && got.length === 1) ws.send(JSON.stringify(then)); if (got.length === count) { ws.onclose = null; ws.close(); resolve(got.join("\n")); } };
}), "ready"`

// TestBrowser: a page calls, streams both ways, gets errors, and cancels.
func TestBrowser(t *testing.T) {
	t.Parallel()
	page := site(t)
	w := serve(t, newTransport(t, websocket.Options{Origins: []string{page}}))
	b := testserver.Browse(t, page+"/")
	b.Eval(t, talk)
	url := "'ws://" + w.addr + "', 'micro.json.v1', "
	for _, test := range []struct{ name, messages, want string }{
		{"calls, in any order", `[{kind: "call", id: 1, service: "world", endpoint: "Say.Twice", body: {n: 21}}], 1`, `{"kind":"reply","id":1,"body":{"n":42}}`},
		{"an error", `[{kind: "call", id: 2, endpoint: "Say.Twice", body: {n: -1}}], 1`,
			`{"kind":"reply","id":2,"error":{"id":"world","code":400,"detail":"-1 is \"negative\"","status":"Bad Request"}}`},
		{"another service", `[{kind: "call", id: 3, service: "moon", endpoint: "Say.Twice"}], 1`,
			`{"kind":"reply","id":3,"error":{"id":"world","code":421,`},
		{"metadata, and a body of bytes", `[{kind: "call", id: 4, endpoint: "Say.Again", metadata: {Say: "grüß"}, type: "application/octet-stream", base64: "AAH/"}], 1`,
			`{"kind":"reply","id":4,"metadata":{"heard":"grüß"},"type":"application/octet-stream","base64":"AAH/"}`},
		{"a time", `[{kind: "call", id: 5, endpoint: "Say.Never", timeout: 200}], 1`, `{"kind":"reply","id":5,"error":{"id":"world","code":408,`},
		{"a server stream", `[{kind: "open", id: 1, endpoint: "Numbers.Count"}, {kind: "data", id: 1, body: {n: 2}}], 4`,
			`{"kind":"opened","id":1}` + "\n" + `{"kind":"data","id":1,"body":{"n":1}}` + "\n" + `{"kind":"data","id":1,"body":{"n":2}}` + "\n" + `{"kind":"end","id":1}`},
		{"a stream both ways", `[{kind: "open", id: 1, endpoint: "Numbers.Double"}, {kind: "data", id: 1, body: {n: 1}}, {kind: "data", id: 1, body: {n: 4}}, {kind: "end", id: 1}], 4`,
			`{"kind":"opened","id":1}` + "\n" + `{"kind":"data","id":1,"body":{"n":2}}` + "\n" + `{"kind":"data","id":1,"body":{"n":8}}` + "\n" + `{"kind":"end","id":1}`},
		{"a stream that fails", `[{kind: "open", id: 1, endpoint: "Numbers.Double"}, {kind: "data", id: 1, body: {n: 13}}], 2`,
			`{"kind":"opened","id":1}` + "\n" + `{"kind":"end","id":1,"error":{"id":"world","code":409,"detail":"not that one","status":"Conflict"}}`},
		{"no JSON", `["{"]`, `closed 1002 `},
	} {
		got := b.Eval(t, "talk("+url+test.messages+")")
		if !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: the page got\n%s\nwant\n%s", test.name, got, test.want)
		}
		if test.name == "a time" {
			w.wantCanceled(t, "Say.Never")
		}
	}
	<-w.begun // the one with a time
	b.Eval(t, `globalThis.never = new WebSocket(`+strings.TrimSuffix(url, ", ")+`); never.onopen = () => never.send(JSON.stringify({kind: "call", id: 1, endpoint: "Say.Never"})), ""`)
	<-w.begun
	b.Eval(t, `never.send(JSON.stringify({kind: "cancel", id: 1})), ""`)
	w.wantCanceled(t, "Say.Never")
	b.Eval(t, "talk("+url+`[{kind: "open", id: 1, endpoint: "Numbers.Count"}, {kind: "data", id: 1, body: {n: 1e9}}], 100)`) // and the page leaves
	w.wantCanceled(t, "Numbers.Count")
	got := b.Eval(t, "talk("+url+`[{kind: "open", id: 1, endpoint: "Numbers.Double"}], 2, {kind: "cancel", id: 1})`)
	if !strings.HasPrefix(got, `{"kind":"opened","id":1}`+"\n"+`{"kind":"end","id":1,"error":{`) {
		t.Errorf("a stream that the page cancels gave\n%s", got)
	}
	w.wantCanceled(t, "Numbers.Double")
}

// TestBrowserIsKeptOut: a page of a foreign origin does not get in, nor one without the token.
func TestBrowserIsKeptOut(t *testing.T) {
	t.Parallel()
	const secret = "s3cret.word/+="
	page := site(t)
	other := serve(t, newTransport(t, websocket.Options{}))
	closed := serve(t, newTransport(t, websocket.Options{Origins: []string{page}, Token: secret}))
	b := testserver.Browse(t, page+"/")
	b.Eval(t, talk)
	call := `[{kind: "call", id: 1, endpoint: "Say.Twice", body: {n: 1}}], 1)`
	token := `"micro.bearer." + btoa("` + secret + `").replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")`
	for _, test := range []struct{ name, talk, want string }{
		{"a foreign origin", `talk("ws://` + other.addr + `", "micro.json.v1", ` + call, "closed 1006 "},
		{"no token", `talk("ws://` + closed.addr + `", "micro.json.v1", ` + call, "closed 1006 "},
		{"a wrong token", `talk("ws://` + closed.addr + `", ["micro.json.v1", "micro.bearer.AAAA"], ` + call, "closed 1006 "},
		{"the token", `talk("ws://` + closed.addr + `", ["micro.json.v1", ` + token + `], ` + call, `{"kind":"reply","id":1,"body":{"n":2}}`},
	} {
		if got := b.Eval(t, test.talk); got != test.want {
			t.Errorf("%s: the page got %q, want %q", test.name, got, test.want)
		}
	}
}
