package grpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// order is a request on a plain struct, with a field of most kinds.
type order struct {
	Item  string            `json:"item" doc:"what is wanted"`
	Count int               `json:"count"`
	Notes []string          `json:"notes,omitempty"`
	Tags  map[string]int64  `json:"tags,omitempty"`
	Due   time.Time         `json:"due"`
	Gift  *bool             `json:"gift,omitempty"`
	To    *place            `json:"to,omitempty"`
	Photo []byte            `json:"photo,omitempty"`
	Extra any               `json:"extra,omitempty"`
	Parts []place           `json:"parts,omitempty"`
	Grid  [][]int           `json:"grid,omitempty"`
	Wraps map[string]*place `json:"wraps,omitempty"`
	Wait  time.Duration     `json:"wait,omitempty"`
}

type place struct {
	City string `json:"city"`
}

type count struct {
	N int32 `json:"n"`
}

// serveShop serves handlers on plain structs, and one on a message, on one port with gRPC.
func serveShop(t *testing.T) string {
	t.Helper()
	s, err := server.New("shop", server.Version("1"))
	must(t, err)
	must(t, errors.Join(
		server.Handle(s, "Order.Put", func(_ context.Context, o *order) (*order, error) {
			if o.Item == "" {
				return nil, status.New(status.InvalidArgument, "item is empty")
			}
			o.Count++
			return o, nil
		}, server.Doc("Takes an order")),
		server.HandleServerStream(s, "Order.Count", func(_ context.Context, c *count, out *server.Sender[count]) error {
			for n := range c.N {
				if err := out.Send(&count{n + 1}); err != nil {
					return err
				}
			}
			return nil
		}),
		server.HandleClientStream(s, "Order.Sum", func(_ context.Context, in *server.Receiver[count]) (*count, error) {
			sum := new(count)
			for c, err := range in.All() {
				if err != nil {
					return nil, err
				}
				sum.N += c.N
			}
			return sum, nil
		}),
		server.HandleBidi(s, "Order.Chat", func(_ context.Context, st *server.Stream[place, place]) error {
			for p, err := range st.All() {
				if err != nil {
					return err
				}
				if err := st.Send(&place{"to " + p.City}); err != nil {
					return err
				}
			}
			return nil
		}),
		server.Handle(s, "Text.Upper", func(_ context.Context, in *text) (*text, error) {
			return wrapperspb.String(strings.ToUpper(in.Value)), nil
		}),
		server.Handle(s, "ping-it", func(context.Context, *struct{}) (*string, error) { pong := "pong"; return &pong, nil }),
		s.Handle(server.Endpoint{Name: "Raw.Echo"}, func(_ context.Context, c *server.Call) error {
			body, err := c.RecvRaw()
			if err != nil {
				return err
			}
			return c.SendRaw("", body)
		}),
	))
	l, err := beside(t, transporthttp.Options{}).Listen(t.Context(), "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-served)
	})
	return l.Addr()
}

// grpcurl runs the program of that name.
func grpcurl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	program, err := testserver.Build("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"-plaintext"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("grpcurl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestGrpcurlFails: what is asked wrongly is told so that it can be put right.
func TestGrpcurlFails(t *testing.T) {
	t.Parallel()
	program, err := testserver.Build("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl")
	must(t, err)
	at := serve(t, beside(t, transporthttp.Options{}))
	huge := `"` + strings.Repeat("x", 4<<20) + `"`
	for _, c := range []struct{ method, in, want string }{
		{"greeter.Say/Hello", huge, "ResourceExhausted\n  Message: a message of 4194309 bytes is over the limit of 4194304\n"},
		{"greeter.Say/Chat", `"a"` + huge, "ResourceExhausted\n  Message: a message of 4194309 bytes is over the limit of 4194304\n"},
		{"greeter.Say/Hello", `"status 404 nobody"`, "NotFound\n  Message: nobody\n"},
		{"greeter.Say/Nothing", `"a"`, `does not include a method named "Nothing"`},
	} {
		cmd := exec.CommandContext(t.Context(), program, "-plaintext", "-d", "@", at, c.method)
		cmd.Stdin = strings.NewReader(c.in)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s of %.20s: %v\n%.1000s\nwant %q", c.method, c.in, err, out, c.want)
		}
	}
}

// TestGrpcurl: grpcurl lists, describes and calls what has no .proto file.
func TestGrpcurl(t *testing.T) {
	t.Parallel()
	at := serveShop(t)
	t.Run("list", func(t *testing.T) {
		t.Parallel()
		want := []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
			"shop.Debug", "shop.Order", "shop.Raw", "shop.Text", "shop.shop"}
		if got := strings.Fields(grpcurl(t, "", at, "list")); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("describe", func(t *testing.T) {
		t.Parallel()
		got := grpcurl(t, "", at, "describe", "shop.order")
		for _, want := range []string{"  // what is wanted\n  string item = 1;", "int64 count = 2;", "repeated string notes = 3;", "map<string, int64> tags = 4;",
			".google.protobuf.Timestamp due = 5;", "optional bool gift = 6;", ".shop.place to = 7;", "bytes photo = 8;", ".google.protobuf.Value extra = 9;",
			"repeated .shop.IntList grid = 11;", "map<string, .shop.place> wraps = 12;", ".google.protobuf.Duration wait = 13;"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
		if got := grpcurl(t, "", at, "describe", "shop.Order"); !strings.Contains(got, "rpc Chat ( stream .shop.place ) returns ( stream .shop.place );") ||
			!strings.Contains(got, "// Takes an order") {
			t.Errorf("got\n%s", got)
		}
	})
	full := `{"item":"tea","count":"2","notes":["hot"],"tags":{"a":"1"},"due":"2026-01-02T03:04:05Z","gift":false,"to":{"city":"Ulm"},"photo":"/w==",` +
		`"extra":{"k":[1,null]},"parts":[{"city":"x"},{}],"grid":[{"value":["1","2"]}],"wraps":{"w":{"city":"y"}},"wait":"1.500s"}`
	for _, c := range []struct{ name, method, in, out string }{
		{"a struct", "shop.Order/Put", full, strings.Replace(full, `"count":"2"`, `"count":"3"`, 1)},
		{"a server's stream", "shop.Order/Count", `{"n":3}`, `{"n":1}{"n":2}{"n":3}`},
		{"a client's stream", "shop.Order/Sum", `{"n":3} {"n":4}`, `{"n":7}`},
		{"both ways", "shop.Order/Chat", `{"city":"a"} {"city":"b"}`, `{"city":"to a"}{"city":"to b"}`},
		{"a message", "shop.Text/Upper", `"loud"`, `"LOUD"`},
		{"a name without a dot", "shop.shop/ping_it", `{}`, `{"value":"pong"}`},
		{"any JSON", "shop.Raw/Echo", `{"a":[1,"x"]}`, `{"a":[1,"x"]}`},
		{"health", "grpc.health.v1.Health/Check", `{"service":"shop.Order"}`, `{"status":"SERVING"}`},
		{"our own health", "shop.Debug/Health", `{}`, `{"status":"ok"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := compacted(t, grpcurl(t, c.in, "-d", "@", at, c.method)); got != compacted(t, c.out) {
				t.Errorf("got  %s\nwant %s", got, c.out)
			}
		})
	}
}

// compacted gives JSON values without white space, and their fields in one order.
func compacted(t *testing.T, values string) string {
	t.Helper()
	var b strings.Builder
	for dec := json.NewDecoder(strings.NewReader(values)); dec.More(); {
		var v any
		if err := dec.Decode(&v); err != nil {
			t.Errorf("%v in %q", err, values)
			break
		}
		out, err := json.Marshal(v)
		must(t, err)
		b.Write(out)
	}
	return b.String()
}
