package server_test

import (
	"context"
	stdjson "encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/jsonrpc"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// speaking are the codecs of a server that takes JSON-RPC.
func speaking() server.Option {
	return server.Codecs(codec.Set{json.Strict(), jsonrpc.New(json.Strict())})
}

// Subtract is a request whose fields have an order.
type Subtract struct {
	Minuend    int `json:"minuend"`
	Subtrahend int `json:"subtrahend"`
}

// rpcServer is a server with endpoints for JSON-RPC; the channel tells what middleware saw.
func rpcServer(t *testing.T, opts ...server.Option) (*server.Server, chan string) {
	t.Helper()
	seen := make(chan string, 1000)
	see := func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) error {
			seen <- c.Endpoint() + " " + c.ContentType() + " " + c.Header().Get("who")
			return next(ctx, c)
		}
	}
	s := newServer(t, append([]server.Option{speaking(), server.WithMiddleware(see)}, opts...)...)
	err := errors.Join(
		server.Handle(s, "Say.Hello", hello),
		server.Handle(s, "Math.Subtract", func(_ context.Context, in *Subtract) (*int, error) {
			n := in.Minuend - in.Subtrahend
			return &n, nil
		}),
		server.Handle(s, "Math.Sum", func(_ context.Context, in *[]int) (*int, error) {
			n := 0
			for _, i := range *in {
				n += i
			}
			return &n, nil
		}),
		server.Handle(s, "Say.Fail", func(context.Context, *Hello) (*Greeting, error) { return nil, status.New(409, "not now") }),
		server.Handle(s, "Say.Plain", func(context.Context, *Hello) (*Greeting, error) { return nil, errors.New("secret") }),
		server.Handle(s, "Say.Panic", func(context.Context, *Hello) (*Greeting, error) { panic("secret") }),
		s.Handle(server.Endpoint{Name: "Say.Large"}, func(_ context.Context, c *server.Call) error {
			return c.SendRaw("", []byte(`"`+strings.Repeat("x", 3<<20)+`"`))
		}),
		s.Handle(server.Endpoint{Name: "Say.Text"}, func(_ context.Context, c *server.Call) error { return c.SendRaw("text/x", []byte("hi")) }),
		s.Handle(server.Endpoint{Name: "Say.Header"}, func(_ context.Context, c *server.Call) error {
			return errors.Join(c.SetHeader("x-answer", "yes"), c.SendRaw("", []byte("1")))
		}),
		s.Handle(server.Endpoint{Name: "Say.Late"}, func(_ context.Context, c *server.Call) error {
			return errors.Join(c.SetHeader("retry-after", "5"), status.New(429, "later"))
		}),
		s.Handle(server.Endpoint{Name: "Say.Hang"}, func(ctx context.Context, c *server.Call) error {
			<-ctx.Done()
			return ctx.Err()
		}),
		server.HandleBidi(s, "Say.Chat", func(_ context.Context, st *server.Stream[Hello, Greeting]) error {
			for {
				h, err := st.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := st.Send(&Greeting{Msg: "Hello " + h.Name}); err != nil {
					return err
				}
			}
		}),
		server.Subscribe(s, "events", func(_ context.Context, h *Hello) error {
			if h.Name != "event" {
				return status.New(400, "no event: %+v", h)
			}
			return nil
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return s, seen
}

// rpc is a message of JSON-RPC: endpoint is what its header names, and may be empty.
func rpc(endpoint, body string, header ...string) *transport.Message {
	return call(endpoint, body, append([]string{transport.HeaderContentType, jsonrpc.ContentType}, header...)...)
}

// two is a request of version 2.0.
func two(method, params, id string) string {
	if id != "" {
		id = `,"id":` + id
	}
	if params != "" {
		params = `,"params":` + params
	}
	return `{"jsonrpc":"2.0","method":"` + method + `"` + params + id + `}`
}

// TestEnvelope: the calls of a message go the way of plain ones, and answer within the envelope.
func TestEnvelope(t *testing.T) {
	s, seen := rpcServer(t)
	c := start(t, s)
	for name, tt := range map[string]struct {
		m    *transport.Message
		want string // the answer, or a part of it
		sees string // what middleware sees; empty where nothing runs
	}{
		"named":                   {rpc("", two("Say.Hello", `{"name":"x"}`, "1"), "who", "ann"), `{"jsonrpc":"2.0","result":{"msg":"Hello x"},"id":1}`, "Say.Hello application/json ann"},
		"positional":              {rpc("", two("Math.Subtract", `[42,23]`, "1")), `"result":19,`, "Math.Subtract application/json "},
		"positional, one":         {rpc("", two("Math.Subtract", `[42]`, "1")), `"result":42,`, "Math.Subtract application/json "},
		"positional, one object":  {rpc("", two("Math.Subtract", `[{"minuend":1,"subtrahend":3}]`, "1")), `"result":-2,`, "Math.Subtract application/json "},
		"a list":                  {rpc("", two("Math.Sum", `[1,2,3]`, "1")), `"result":6,`, "Math.Sum application/json "},
		"positional, too many":    {rpc("", two("Math.Subtract", `[1,2,3]`, "1")), `"code":-32602,"message":"3 params, and the request has 2 fields"`, ""},
		"1.0, header and body":    {rpc("Say.Hello", `{"method":"Say.Hello","params":[{"name":"x"}],"id":"0"}`), `{"id":"0","result":{"msg":"Hello x"},"error":null}`, "Say.Hello application/json "},
		"another in the header":   {rpc("Say.Fail", two("Say.Hello", "", "1")), `the header names endpoint \"Say.Fail\" and the message \"Say.Hello\"`, ""},
		"unknown":                 {rpc("", two("Say.Nope", "", "1")), `"code":-32601,"message":"greeter has no endpoint \"Say.Nope\"","data":{"id":"greeter","code":404,`, ""},
		"a stream":                {rpc("", two("Say.Chat", "", "1")), `"code":501,`, ""},
		"params that do not fit":  {rpc("", two("Say.Hello", `{"nme":"x"}`, "1")), `"code":-32602,"message":"request does not decode: codec/json: unknown field \"nme\""`, "Say.Hello application/json "},
		"params that nest deep":   {rpc("", two("Say.Hello", strings.Repeat("[", 100)+strings.Repeat("]", 100), "1")), `"code":-32602`, "Say.Hello application/json "},
		"a handler's error":       {rpc("", two("Say.Fail", "", "1")), `"code":409,"message":"not now","data":{"id":"greeter","code":409,"detail":"not now","status":"Conflict"}`, "Say.Fail application/json "},
		"another error":           {rpc("", two("Say.Plain", "", "1")), `"code":500,"message":"the handler failed"`, "Say.Plain application/json "},
		"a panic":                 {rpc("", two("Say.Panic", "", "1")), `"code":500,"message":"the handler panicked"`, "Say.Panic application/json "},
		"an answer of no JSON":    {rpc("", two("Say.Text", "", "1")), `the answer of Say.Text is text/x, which application/json-rpc does not carry`, "Say.Text application/json "},
		"another service":         {rpc("", two("Say.Hello", "", "1"), transport.HeaderService, "orders"), `"code":421,"message":"this is greeter, not orders"`, ""},
		"no JSON":                 {rpc("", `{"jsonrpc"`), `"code":-32700`, ""},
		"nothing":                 {rpc("", ``), `"code":-32700`, ""},
		"a notification":          {rpc("", two("Say.Hello", `{"name":"x"}`, "")), ``, "Say.Hello application/json "},
		"broken JSON":             {call("", `{"jsonrpc":"2.0","method":"Say.Hello`), `"code":-32700`, ""},
		"JSON that says its form": {call("", two("Say.Hello", `{"name":"x"}`, "1")), `{"jsonrpc":"2.0","result":{"msg":"Hello x"},"id":1}`, "Say.Hello application/json "},
		"1.0 as plain JSON":       {call("", `{"method":"Say.Hello","params":[{"name":"x"}],"id":1}`), `{"id":1,"result":{"msg":"Hello x"},"error":null}`, "Say.Hello application/json "},
		"debug":                   {rpc("", two("Debug.Health", "", "1")), `"result":{"status":"ok"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			rsp := exchange(t, c, tt.m)
			want := tt.m.Header.Get(transport.HeaderContentType)
			if tt.want == "" {
				want = "" // there is no answer
			}
			if e := errorOf(rsp); e != nil || !strings.Contains(string(rsp.Body), tt.want) || tt.want == "" && len(rsp.Body) > 0 ||
				rsp.Header.Get(transport.HeaderContentType) != want || strings.Contains(string(rsp.Body), "secret") {
				t.Errorf("answered %s, %v, %s; want %s as %s", rsp.Body, e, rsp.Header.Get(transport.HeaderContentType), tt.want, want)
			}
			sees := ""
			select {
			case sees = <-seen:
			default:
			}
			if sees != tt.sees {
				t.Errorf("middleware saw %q, want %q", sees, tt.sees)
			}
		})
	}
	for name, tt := range map[string]struct {
		m    *transport.Message
		code status.Code
	}{
		"plain JSON without an endpoint": {call("", `{"name":"x"}`), status.NotFound},
		"what is like 1.0, and is not":   {call("", `{"method":"Say.Hello","params":[],"id":1,"name":"x"}`), status.NotFound},
		"JSON-RPC to a plain endpoint":   {call("Say.Hello", two("Say.Hello", "", "1")), status.InvalidArgument},
		"another form":                   {rpc("", `{}`, transport.HeaderContentType, "application/proto-rpc"), status.UnsupportedMedia},
	} {
		if e := errorOf(exchange(t, c, tt.m)); name != "another form" && (e == nil || e.Code != tt.code) || e == nil {
			t.Errorf("%s: %v", name, e)
		}
	}
	if rsp := exchange(t, c, rpc("", `{"name":"event"}`, transport.HeaderTopic, "events")); errorOf(rsp) != nil || len(rsp.Body) > 0 {
		t.Errorf("an event: %s %v", rsp.Body, errorOf(rsp))
	}
	if rsp := exchange(t, c, rpc("", two("Say.Header", "", "1"))); rsp.Header.Get("x-answer") != "yes" || rsp.Header.Get(transport.HeaderContentType) != jsonrpc.ContentType {
		t.Errorf("the header of the answer: %q", rsp.Header)
	}
	if rsp := exchange(t, c, rpc("", two("Say.Late", "", "1"))); rsp.Header.Get("retry-after") != "5" || !strings.Contains(string(rsp.Body), `"code":429`) {
		t.Errorf("a failed call: %q %s", rsp.Header, rsp.Body)
	}
}

// TestEnvelopeBatch: calls run one after the other, each under the server's limits.
func TestEnvelopeBatch(t *testing.T) {
	s, _ := rpcServer(t, server.MaxCalls(1))
	c := start(t, s)
	type answer struct {
		Result any
		Error  *struct{ Code int }
		ID     any
	}
	batch := func(m *transport.Message) (answers []answer) {
		t.Helper()
		rsp := exchange(t, c, m)
		if err := stdjson.Unmarshal(rsp.Body, &answers); err != nil {
			t.Fatalf("%s, %v: %v", rsp.Body, errorOf(rsp), err)
		}
		if rsp.Header.Get("x-answer") != "" {
			t.Errorf("headers of one call of several: %q", rsp.Header)
		}
		return answers
	}
	got := batch(rpc("", `[`+two("Say.Header", "", `"a"`)+`,`+two("Math.Sum", `[1,2]`, "")+`,`+two("Math.Sum", `[1,2]`, "7")+`,`+two("Nope", "", "7")+`,5]`))
	if len(got) != 4 || got[0].ID != "a" || got[1].Result != 3.0 || got[1].ID != 7.0 || got[2].Error.Code != -32601 || got[3].Error.Code != -32600 || got[3].ID != nil {
		t.Errorf("answers %+v", got)
	}
	if rsp := exchange(t, c, rpc("", `[`+two("Say.Hello", "", "")+`]`)); len(rsp.Body) > 0 || errorOf(rsp) != nil {
		t.Errorf("a batch of notifications: %s, %v", rsp.Body, errorOf(rsp))
	}
	// What all answers take together is bounded.
	large := strings.TrimSuffix(strings.Repeat(two("Say.Large", "", "")+`,`, 200), ",")
	got = batch(rpc("", `[`+large+`,`+two("Math.Sum", `[1]`, "1")+`]`))
	if len(got) != 1 || got[0].Error == nil || got[0].Error.Code != int(status.TooLarge) {
		t.Errorf("after too much: %+v", got)
	}
}

// TestEnvelopeInTime: a batch has the time of one call.
func TestEnvelopeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seen := rpcServer(t, server.HandlerTimeout(3*time.Second))
		h, served, cancel := servePlain(s)
		began := time.Now()
		var rsp transport.Message
		h(t.Context(), "peer:1", rpc("", `[`+two("Say.Hang", "", "1")+`,`+two("Say.Hello", "", "2")+`]`), &rsp)
		// Who of the two that wait for that moment comes first is open: the answer tells it, or the server in its place.
		if e := errorOf(&rsp); (e == nil || e.Code != status.HandlerTimeout) && !strings.Contains(string(rsp.Body), `"the time was over before this call's turn"`) ||
			time.Since(began) != 3*time.Second {
			t.Errorf("%v after %v: %s", e, time.Since(began), rsp.Body)
		}
		synctest.Wait()
		if len(seen) != 1 {
			t.Errorf("%d calls ran, want the first alone", len(seen))
		}
		s.Stop()
		rsp = transport.Message{}
		h(t.Context(), "peer:1", rpc("", two("Say.Hello", "", "2")), &rsp)
		if !strings.Contains(string(rsp.Body), `"code":503,"message":"greeter is stopping"`) || !strings.Contains(string(rsp.Body), `"refused":true`) {
			t.Errorf("while stopping: %s %v", rsp.Body, errorOf(&rsp))
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// TestEnvelopeGoMicro: a stream of a go-micro client's has each message in an envelope, also the last.
func TestEnvelopeGoMicro(t *testing.T) {
	const answered = `{"id":"0","result":{"msg":"Hello x"},"error":null}`
	hello := `{"method":"Say.Chat","params":[{"name":"x"}],"id":"7"}`
	for name, test := range map[string]struct {
		sent, want []string
		code       status.Code // of the end
	}{
		"messages":         {[]string{hello, hello}, []string{answered, answered}, 0},
		"none":             {nil, nil, 0},
		"no envelope":      {[]string{hello, `{"name":"x"}`}, []string{answered}, status.InvalidArgument},
		"no JSON":          {[]string{`{"method"`}, nil, status.InvalidArgument},
		"another endpoint": {[]string{`{"method":"Say.Hello","params":[{"name":"x"}],"id":"7"}`}, nil, status.InvalidArgument},
		"a batch":          {[]string{`[` + two("Say.Chat", "", "1") + `,` + two("Say.Chat", "", "2") + `]`}, nil, status.InvalidArgument},
		"another value":    {[]string{`{"method":"Say.Chat","params":[{"nme":"x"}],"id":"7"}`}, nil, status.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := rpcServer(t)
			c := start(t, s)
			open := rpc("Say.Chat", "", transport.HeaderID, "7")
			open.Kind = transport.Open
			messages := []*transport.Message{open}
			for _, body := range test.sent {
				messages = append(messages, &transport.Message{Kind: transport.Data, ID: open.ID, Body: []byte(body)})
			}
			for _, m := range append(messages, &transport.Message{Kind: transport.End, ID: open.ID}) {
				if err := c.Send(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for {
				var rsp transport.Message
				if err := c.Recv(t.Context(), &rsp); err != nil {
					t.Fatal(err)
				}
				if ct := rsp.Header.Get(transport.HeaderContentType); rsp.Kind != transport.Opened && ct != jsonrpc.ContentType {
					t.Errorf("%s in %q", rsp.Kind, ct)
				}
				if rsp.Kind == transport.Data {
					got = append(got, string(rsp.Body))
				}
				if rsp.Kind != transport.End {
					continue
				}
				if e := errorOf(&rsp); (e == nil) != (test.code == 0) || e != nil && e.Code != test.code {
					t.Errorf("ended with %v, want %v", e, test.code)
				}
				if string(rsp.Body) != `{"id":"0","result":null,"error":null}` || !slices.Equal(got, test.want) {
					t.Errorf("%q, ended with %s", got, rsp.Body)
				}
				return
			}
		})
	}
}

// TestEnvelopeStream: a stream of others has no envelope.
func TestEnvelopeStream(t *testing.T) {
	s, _ := rpcServer(t)
	c := start(t, s)
	m := rpc("Say.Chat", "")
	m.Kind = transport.Open
	if err := c.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	for {
		var rsp transport.Message
		if err := c.Recv(t.Context(), &rsp); err != nil {
			t.Fatal(err)
		}
		if rsp.Kind != transport.End {
			continue
		}
		if e := errorOf(&rsp); e == nil || e.Code != status.UnsupportedMedia || !strings.Contains(e.Detail, "application/json-rpc is for calls: a stream's messages are application/json") {
			t.Errorf("%v", e)
		}
		return
	}
}
