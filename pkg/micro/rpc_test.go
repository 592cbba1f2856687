package micro_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/rpc"
	rpcjson "net/rpc/jsonrpc"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/bson"
	"github.com/cb02dfca/micro/pkg/codec/bsonrpc"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/jsonrpc"
	"github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/codec/protorpc"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// formats are the RPC formats that a service has by its options alone.
func formats() codec.Set {
	return codec.Set{jsonrpc.New(json.Strict()), protorpc.New(proto.New()), bsonrpc.New(bson.Strict())}
}

// rpcService runs a service that takes messages of protobuf in any format, and tells what its middleware sees.
func rpcService(t *testing.T, reg registry.Registry) (address string, seen chan string) {
	t.Helper()
	seen = make(chan string, 100)
	see := func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) error {
			seen <- c.Endpoint() + " " + c.ContentType() + " " + c.Header().Get("who")
			return errors.Join(c.SetHeader("x-answer", "yes"), next(ctx, c))
		}
	}
	s, up := newService(t, reg, micro.ServerOptions(server.Codecs(append(codec.Set{json.Strict(), proto.New()}, formats()...)), server.WithMiddleware(see)))
	err := errors.Join(
		micro.Handle(s, "Say.Hello", func(_ context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
			if in.GetValue() == "bad" {
				return nil, status.New(status.AlreadyExists, "said %q", in.GetValue())
			}
			return wrapperspb.String("Hello " + in.GetValue()), nil
		}),
		micro.Handle(s, "Say.Greet", hello),
	)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	<-up
	nodes, err := reg.Get(t.Context(), "greeter")
	if err != nil {
		t.Fatal(err)
	}
	return nodes[0].Address, seen
}

// plainly gives an address where the service is to be had in plain HTTP alone, as go-micro's services are.
func plainly(t *testing.T, address string) string {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Upgrade")
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// TestRPCFormats calls in each format, over frames and over plain HTTP in go-micro's dialect.
func TestRPCFormats(t *testing.T) {
	t.Parallel()
	address, seen := rpcService(t, newRegistry(t))
	for name, at := range map[string]string{"frames": address, "plain": plainly(t, address)} {
		for _, format := range append(formats(), jsonrpc.New2(json.New())) {
			t.Run(name+" "+format.ContentType(), func(t *testing.T) {
				inner := format.(codec.Envelope).Values().ContentType()
				var passed []string
				watch := func(next client.Invoker) client.Invoker {
					return func(ctx context.Context, req *client.Request) (*client.Response, error) {
						rsp, err := next(ctx, req)
						if err == nil {
							passed = append(passed, string(req.Body)+" as "+req.ContentType+", "+string(rsp.Body)+" as "+rsp.ContentType+", "+rsp.Header.Get("x-answer"))
						}
						return rsp, err
					}
				}
				for _, mw := range []client.Option{client.WithMiddleware(), client.WithMiddleware(watch)} {
					s, err := micro.New("caller", micro.Registry(newRegistry(t)), micro.ClientOptions(client.WithCodecs(codec.Set{proto.New(), json.New(), format}), mw))
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = s.Close() })
					for _, who := range []string{"x", "y"} {
						opts := []client.CallOption{client.Address(at), client.ContentType(format.ContentType()), client.Header("who", who)}
						got, err := client.Call[wrapperspb.StringValue](t.Context(), s.Client(), "greeter", "Say.Hello", wrapperspb.String(who), opts...)
						if err != nil || got.GetValue() != "Hello "+who {
							t.Fatalf("got %v, %v", got, err)
						}
						if saw, want := <-seen, "Say.Hello "+inner+" "+who; saw != want {
							t.Errorf("the server's middleware saw %q, want %q", saw, want)
						}
					}
					checkRPCErrors(t, s.Client(), at, format.ContentType())
					for len(seen) > 0 {
						<-seen
					}
				}
				want := encoded(t, format, wrapperspb.String("y")) + " as " + format.ContentType() + ", " + encoded(t, format, wrapperspb.String("Hello y")) + " as " + inner + ", yes"
				if len(passed) < 2 || passed[1] != want {
					t.Errorf("the client's middleware saw %q, want %q", passed, want)
				}
			})
		}
	}
}

// encoded gives a value's body.
func encoded(t *testing.T, c codec.Codec, v any) string {
	t.Helper()
	data, err := c.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func checkRPCErrors(t *testing.T, c *client.Client, at, contentType string) {
	t.Helper()
	opts := []client.CallOption{client.Address(at), client.ContentType(contentType)}
	for name, tt := range map[string]struct {
		endpoint, in string
		want         status.Error
	}{
		"the handler's":    {"Say.Hello", "bad", status.Error{ID: "greeter", Code: status.AlreadyExists, Detail: `said "bad"`}},
		"unknown endpoint": {"Say.Nope", "x", status.Error{ID: "greeter", Code: status.NotFound, Detail: `greeter has no endpoint "Say.Nope"`, Refused: true}},
	} {
		err := c.Call(t.Context(), "greeter", tt.endpoint, wrapperspb.String(tt.in), nil, opts...)
		got, ok := errors.AsType[*status.Error](err)
		if !ok || !got.Remote || got.ID != tt.want.ID || got.Code != tt.want.Code || got.Detail != tt.want.Detail || got.Refused != tt.want.Refused {
			t.Errorf("%s: %+v, want %+v", name, err, tt.want)
		}
	}
	if err := c.Call(t.Context(), "orders", "Say.Hello", wrapperspb.String("x"), nil, opts...); status.CodeOf(err) != status.Misdirected {
		t.Errorf("another service: %v", err)
	}
	// Without a request there is an empty one, and the answer may be dropped.
	endpoint := "Say.Greet"
	if contentType == protorpc.ContentType {
		endpoint = "Say.Hello"
	}
	if err := c.Call(t.Context(), "greeter", endpoint, nil, nil, opts...); err != nil {
		t.Errorf("no request: %v", err)
	}
	rsp, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: endpoint, ContentType: contentType + "; charset=utf-8"}, client.Address(at))
	if err != nil || len(rsp.Body) == 0 || strings.HasSuffix(rsp.ContentType, "-rpc") {
		t.Errorf("Do: %+v, %v", rsp, err)
	}
	if _, err := c.Stream(t.Context(), "greeter", "Say.Chat", opts...); !errors.Is(err, codec.ErrUnsupported) {
		t.Errorf("a stream: %v", err)
	}
}

// TestRPCDefaults: a format in a client's set is for those who name it, and a service that has none refuses it.
func TestRPCDefaults(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	s, up := newService(t, reg)
	if err := micro.Handle(s, "Say.Hello", hello); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	<-up
	caller, err := micro.New("caller", micro.Registry(reg), micro.ClientOptions(client.WithCodecs(codec.Set{jsonrpc.New(json.New()), json.New()})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caller.Close() })
	if got, err := client.Call[Greeting](t.Context(), caller.Client(), "greeter", "Say.Hello", &Hello{"x"}); err != nil || got.Msg != "Hello x" {
		t.Errorf("%v, %v", got, err)
	}
	err = caller.Client().Call(t.Context(), "greeter", "Say.Hello", &Hello{"x"}, nil, client.ContentType(jsonrpc.ContentType))
	if e, ok := errors.AsType[*status.Error](err); !ok || e.Code != status.UnsupportedMedia {
		t.Errorf("%v", err)
	}
}

// TestRPCRefused: a call that one node refuses in its envelope goes to another.
func TestRPCRefused(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	for version, endpoint := range map[string]string{"1": "Say.Other", "2": "Say.Hello"} {
		s, up := newService(t, reg, micro.Version(version), micro.ServerOptions(server.Codecs(formats())))
		if err := micro.Handle(s, endpoint, hello); err != nil {
			t.Fatal(err)
		}
		run(t, s)
		<-up
	}
	caller, err := micro.New("caller", micro.Registry(reg), micro.ClientOptions(client.WithCodecs(formats())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caller.Close() })
	for range 20 {
		var got Greeting
		if err := caller.Client().Call(t.Context(), "greeter", "Say.Hello", &Hello{"x"}, &got, client.ContentType(bsonrpc.ContentType)); err != nil || got.Msg != "Hello x" {
			t.Fatalf("%v, %v", got, err)
		}
	}
}

// posted is a connection of net/rpc that posts each request.
type posted struct {
	url, contentType string
	answers          *io.PipeReader
	answer           *io.PipeWriter
}

func (p *posted) Read(b []byte) (int, error) { return p.answers.Read(b) }

func (p *posted) Close() error { return errors.Join(p.answers.Close(), p.answer.Close()) }

// Write takes requests as json.Encoder writes them: each whole, in one Write.
func (p *posted) Write(b []byte) (int, error) {
	rsp, err := http.Post(p.url, p.contentType, bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(rsp.Body)
	_ = rsp.Body.Close()
	if err == nil {
		go func() { _, _ = p.answer.Write(body) }() // whoever reads it is the one who is woken by this
	}
	return len(b), err
}

// TestNetRPCClient: the client of net/rpc/jsonrpc calls a service.
func TestNetRPCClient(t *testing.T) {
	t.Parallel()
	address, _ := rpcService(t, newRegistry(t))
	conn := &posted{url: "http://" + address + "/", contentType: jsonrpc.ContentType}
	conn.answers, conn.answer = io.Pipe()
	c := rpcjson.NewClient(conn)
	defer c.Close()
	for _, name := range []string{"x", "y"} {
		var got Greeting
		if err := c.Call("Say.Greet", &Hello{name}, &got); err != nil || got.Msg != "Hello "+name {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for endpoint, want := range map[string]string{
		"Say.Nope":  `{"id":"greeter","code":404,"detail":"greeter has no endpoint \"Say.Nope\"","status":"Not Found","refused":true}`,
		"Say.Greet": `{"id":"greeter","code":400,"detail":"request does not decode: codec/json: unknown field \"nme\"","status":"Bad Request"}`,
	} {
		var e rpc.ServerError
		if err := c.Call(endpoint, map[string]string{"nme": "x"}, nil); !errors.As(err, &e) || string(e) != want {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

// Arith is a receiver of net/rpc.
type Arith struct{}

// Pair is the argument of its method.
type Pair struct{ A, B int }

// Multiply is its method.
func (Arith) Multiply(p *Pair, product *int) error {
	if *product = p.A * p.B; p.A < 0 {
		return errors.New("below zero")
	}
	return nil
}

// TestNetRPCServer: a client calls a server of net/rpc/jsonrpc that stands behind HTTP.
func TestNetRPCServer(t *testing.T) {
	t.Parallel()
	s := rpc.NewServer()
	if err := s.Register(Arith{}); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		var answer bytes.Buffer
		_ = s.ServeRequest(rpcjson.NewServerCodec(struct {
			io.Reader
			io.Writer
			io.Closer
		}{r.Body, &answer, r.Body})) // its errors are in the answer
		w.Header().Set("Content-Type", "application/json")
		_, _ = answer.WriteTo(w)
	}))
	t.Cleanup(web.Close)
	caller, err := micro.New("caller", micro.Registry(newRegistry(t)), micro.ClientOptions(client.WithCodecs(formats())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caller.Close() })
	opts := []client.CallOption{client.Address(web.Listener.Addr().String()), client.ContentType(jsonrpc.ContentType)}
	for _, p := range []Pair{{6, 7}, {2, 3}} {
		if got, err := client.Call[int](t.Context(), caller.Client(), "Arith", "Arith.Multiply", p, opts...); err != nil || *got != p.A*p.B {
			t.Errorf("%v, %v", got, err)
		}
	}
	for endpoint, want := range map[string]string{"Arith.Multiply": "below zero", "Arith.Add": "rpc: can't find method Arith.Add"} {
		err := caller.Client().Call(t.Context(), "Arith", endpoint, Pair{-1, 1}, nil, opts...)
		if e, ok := errors.AsType[*status.Error](err); !ok || !e.Remote || e.Detail != want {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

// TestStrangeAnswers: what is no answer in the call's format is an error that says so.
func TestStrangeAnswers(t *testing.T) {
	t.Parallel()
	caller, err := micro.New("caller", micro.Registry(newRegistry(t)), micro.ClientOptions(client.WithCodecs(formats())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caller.Close() })
	for name, tt := range map[string]struct{ contentType, body, want string }{
		"a page":         {"text/html", "<html>", `the answer came as "text/html": codec/jsonrpc: the answer is no JSON: "<html>"`},
		"nothing":        {jsonrpc.ContentType, "", "is no JSON"},
		"another's":      {jsonrpc.ContentType, `{"id":"99","result":1,"error":null}`, `is to the call "\"99\""`},
		"not a number":   {jsonrpc.ContentType, `{"id":"ID","result":"x","error":null}`, "does not decode"},
		"as an upgrade":  {jsonrpc.ContentType, `{"id":"ID","result":5,"error":null}`, ""},
		"a batch's":      {jsonrpc.ContentType, `[{"id":"ID","result":5,"error":null}]`, "is no object"},
		"unsupported ct": {"text/plain", "unsupported Content-Type: application/json-rpc", "unsupported Content-Type"},
	} {
		t.Run(name, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost {
					w.WriteHeader(http.StatusMethodNotAllowed)
					return
				}
				request, _ := io.ReadAll(r.Body)
				_, rest, _ := strings.Cut(string(request), `"id":"`)
				id, _, _ := strings.Cut(rest, `"`)
				w.Header().Set("Content-Type", tt.contentType)
				_, _ = io.WriteString(w, strings.ReplaceAll(tt.body, "ID", id))
			}))
			defer web.Close()
			_, err := client.Call[int](t.Context(), caller.Client(), "x", "X.Y", 1, client.Address(web.Listener.Addr().String()),
				client.ContentType(jsonrpc.ContentType), client.Timeout(10*time.Second))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestCurlJSONRPC: what curl gets of a service that speaks JSON-RPC, over HTTP/1.1 and HTTP/2.
func TestCurlJSONRPC(t *testing.T) {
	t.Parallel()
	address, _ := rpcService(t, newRegistry(t))
	const hello = `{"jsonrpc":"2.0","method":"Say.Greet","params":{"name":"x"},"id":1}`
	const greeting = `{"jsonrpc":"2.0","result":{"msg":"Hello x"},"id":1}`
	for name, tt := range map[string]struct{ path, contentType, body, code, want string }{
		"JSON-RPC":                {"/", jsonrpc.ContentType, hello, "200", greeting},
		"with a charset":          {"/", jsonrpc.ContentType + "; charset=utf-8", hello, "200", greeting},
		"as JSON":                 {"/", json.ContentType, hello, "200", greeting},
		"by path":                 {"/Say.Greet", jsonrpc.ContentType, hello, "200", greeting},
		"as JSON, by path":        {"/Say.Greet", json.ContentType, hello, "400", ""},
		"another by path":         {"/Say.Hello", jsonrpc.ContentType, hello, "200", `{"jsonrpc":"2.0","error":{"code":400,"message":"the header names endpoint \"Say.Hello\" and the message \"Say.Greet\"","data":{"id":"greeter","code":400,"detail":"the header names endpoint \"Say.Hello\" and the message \"Say.Greet\"","status":"Bad Request"}},"id":1}`},
		"as text":                 {"/", "text/plain", hello, "415", ""},
		"a form":                  {"/", "application/x-www-form-urlencoded", hello, "415", ""},
		"1.0":                     {"/", jsonrpc.ContentType, `{"method":"Say.Greet","params":[{"name":"x"}],"id":1}`, "200", `{"id":1,"result":{"msg":"Hello x"},"error":null}`},
		"1.0 as JSON":             {"/", json.ContentType, `{"method":"Say.Greet","params":[{"name":"x"}],"id":1}`, "200", `{"id":1,"result":{"msg":"Hello x"},"error":null}`},
		"almost 1.0 as JSON":      {"/", json.ContentType, `{"method":"Say.Greet","params":[{"name":"x"}],"id":1,"more":1}`, "404", ""},
		"a batch as JSON":         {"/", json.ContentType, `[` + hello + `,` + hello + `]`, "200", `[` + greeting + `,` + greeting + `]`},
		"a batch of one-way ones": {"/", jsonrpc.ContentType, `[{"jsonrpc":"2.0","method":"Say.Greet"}]`, "204", "-"},
		"a notification":          {"/", json.ContentType, `{"jsonrpc":"2.0","method":"Say.Greet"}`, "204", "-"},
		"one that fails":          {"/", json.ContentType, `{"jsonrpc":"2.0","method":"Say.Nope"}`, "204", "-"},
	} {
		for _, protocol := range []string{"--http1.1", "--http2-prior-knowledge"} {
			code, head, body := curl(t, "-d", tt.body, "http://"+address+tt.path, "-H", "Content-Type: "+tt.contentType, protocol)
			if code != tt.code || tt.want == "-" && body != "" || tt.want != "" && tt.want != "-" && body != tt.want {
				t.Errorf("%s %s: %s %s, want %s %s", name, protocol, code, body, tt.code, tt.want)
			}
			media, _, _ := strings.Cut(tt.contentType, ";")
			if code == "200" && !strings.Contains(head, "content-type: "+media+"\r\n") {
				t.Errorf("%s %s: %s", name, protocol, head)
			}
		}
	}
}
