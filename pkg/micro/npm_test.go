package micro_test

import (
	"context"
	stdjson "encoding/json"
	"errors"
	"os/exec"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/bson"
	"github.com/cb02dfca/micro/pkg/codec/bsonrpc"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/jsonrpc"
	"github.com/cb02dfca/micro/pkg/codec/msgpack"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// Subtract is a request whose fields have an order.
type Subtract struct {
	Minuend    int `json:"minuend"`
	Subtrahend int `json:"subtrahend"`
}

// TestOthersClients: clients for Node.js that others have written call a service, which has a list of codecs and nothing else for them.
func TestOthersClients(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	s, up := newService(t, reg, micro.ServerOptions(server.Codecs(codec.Set{json.Strict(), msgpack.Strict(), bson.Strict(),
		jsonrpc.New(json.Strict()), bsonrpc.New(bson.Strict())})))
	err := errors.Join(
		micro.Handle(s, "Say.Hello", func(_ context.Context, in *Hello) (*Greeting, error) {
			if in.Name == "bad" {
				return nil, status.New(status.AlreadyExists, "taken")
			}
			return &Greeting{"Hello " + in.Name}, nil
		}),
		micro.Handle(s, "Math.Subtract", func(_ context.Context, in *Subtract) (*int, error) {
			n := in.Minuend - in.Subtrahend
			return &n, nil
		}),
		micro.Handle(s, "Say.Echo", func(_ context.Context, in *any) (*any, error) { return in, nil }),
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
	argv := testserver.Node(t, "call.mjs", "http://"+nodes[0].Address)
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	said, err := cmd.Output()
	got := map[string]stdjson.RawMessage{}
	if err := errors.Join(err, stdjson.Unmarshal(said, &got)); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	for name, want := range map[string]string{
		"jayson 2: a call":                   `{"jsonrpc":"2.0","result":{"msg":"Hello x"},"id":"string"}`,
		"jayson 2: by place":                 `{"jsonrpc":"2.0","result":19,"id":"string"}`,
		"jayson 2: an error":                 `{"jsonrpc":"2.0","error":{"code":409,"message":"taken","data":{"id":"greeter","code":409,"detail":"taken","status":"Conflict"}},"id":"string"}`,
		"jayson 2: no such method":           `{"jsonrpc":"2.0","error":{"code":-32601,"message":"greeter has no endpoint \"Say.Nope\"","data":{"id":"greeter","code":404,"detail":"greeter has no endpoint \"Say.Nope\"","status":"Not Found","refused":true}},"id":"string"}`,
		"jayson 2: bad params":               `{"jsonrpc":"2.0","error":{"code":-32602,"message":"request does not decode: codec/json: unknown field \"nme\"","data":{"id":"greeter","code":400,"detail":"request does not decode: codec/json: unknown field \"nme\"","status":"Bad Request"}},"id":"string"}`,
		"jayson 2: a notification":           `"nothing"`,
		"jayson 2: a batch":                  `[{"jsonrpc":"2.0","result":{"msg":"Hello x"},"id":"string"},{"jsonrpc":"2.0","result":-1,"id":"string"},{"jsonrpc":"2.0","error":{"code":-32601,"message":"greeter has no endpoint \"Say.Nope\"","data":{"id":"greeter","code":404,"detail":"greeter has no endpoint \"Say.Nope\"","status":"Not Found","refused":true}},"id":"string"}]`,
		"jayson 2: a batch of notifications": `"nothing"`,
		"jayson 1: a call":                   `{"id":"string","result":{"msg":"Hello x"},"error":null}`,
		"jayson 1: by place":                 `{"id":"string","result":19,"error":null}`,
		"jayson 1: an error":                 `{"id":"string","result":null,"error":"{\"id\":\"greeter\",\"code\":409,\"detail\":\"taken\",\"status\":\"Conflict\"}"}`,
		"jayson 1: no such method":           `{"id":"string","result":null,"error":"{\"id\":\"greeter\",\"code\":404,\"detail\":\"greeter has no endpoint \\\"Say.Nope\\\"\",\"status\":\"Not Found\",\"refused\":true}"}`,
		"jayson 1: bad params":               `{"id":"string","result":null,"error":"{\"id\":\"greeter\",\"code\":400,\"detail\":\"request does not decode: codec/json: unknown field \\\"nme\\\"\",\"status\":\"Bad Request\"}"}`,
		"jayson 1: a notification":           `"nothing"`,
		"json-rpc-2.0: a call":               `{"msg":"Hello x"}`,
		"json-rpc-2.0: by place":             `19`,
		"json-rpc-2.0: an error":             `{"code":409,"message":"taken","data":{"id":"greeter","code":409,"detail":"taken","status":"Conflict"}}`,
		"json-rpc-2.0: a notification":       `"nothing"`,
		"json-rpc-2.0: a batch":              `[{"msg":"Hello x"},-32601]`,
		"msgpack":                            `{"status":200,"type":"application/msgpack","same":true,"bytes":[0,255]}`,
		"bson":                               `{"status":200,"type":"application/bson","same":true,"bytes":[0,255]}`,
		"bson-rpc":                           `{"status":200,"header":{"ServiceMethod":"Say.Hello","Seq":7,"Error":""},"body":{"msg":"Hello x"}}`,
	} {
		if string(got[name]) != want {
			t.Errorf("%s: %s\nwant %s", name, got[name], want)
		}
		delete(got, name)
	}
	for name, value := range got {
		t.Errorf("and %s: %s", name, value)
	}
}

// TestOthersServer: a client calls a JSON-RPC server for Node.js, by name and by place.
func TestOthersServer(t *testing.T) {
	t.Parallel()
	address := testserver.JSONRPC(t)
	caller, err := micro.New("caller", micro.Registry(newRegistry(t)), micro.ClientOptions(client.WithCodecs(codec.Set{jsonrpc.Plain(json.New())})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caller.Close() })
	opts := []client.CallOption{client.Address(address)}
	got, err := client.Call[Greeting](t.Context(), caller.Client(), "jayson", "Say.Hello", &Hello{"x"}, opts...)
	if err != nil || got.Msg != "Hello x" {
		t.Errorf("%v, %v", got, err)
	}
	for name, in := range map[string]any{"by name": Subtract{42, 23}, "by place": []int{42, 23}} {
		if got, err := client.Call[int](t.Context(), caller.Client(), "jayson", "subtract", in, opts...); err != nil || *got != 19 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for endpoint, want := range map[string]status.Error{
		"Say.Hello": {Code: 409, Detail: "taken"},
		"Say.Nope":  {Code: 404, Detail: "Method not found"},
	} {
		err := caller.Client().Call(t.Context(), "jayson", endpoint, &Hello{"bad"}, nil, opts...)
		if e, ok := errors.AsType[*status.Error](err); !ok || !e.Remote || e.Code != want.Code || e.Detail != want.Detail {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}
