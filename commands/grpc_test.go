package commands_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc/reflection"
)

// grpcWire is a transport over the world's that names endpoints by paths, as gRPC does: "shop.Till/Ring" is Till.Ring. What it
// cannot dial has no server.
type grpcWire struct{ transport.Transport }

func (g grpcWire) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	c, err := g.Transport.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return pathConn{c}, nil
}

type pathConn struct{ transport.Conn }

func (c pathConn) Send(ctx context.Context, m *transport.Message) error {
	if path := m.Header.Get(transport.HeaderEndpoint); strings.Contains(path, "/") {
		service, method, _ := strings.Cut(path, "/")
		header := m.Header.Without(transport.HeaderEndpoint).Without(transport.HeaderService)
		header, err := header.Set(transport.HeaderEndpoint, service[strings.LastIndexByte(service, '.')+1:]+"."+method)
		if err != nil {
			return err
		}
		changed := *m
		changed.Header = header
		return c.Conn.Send(ctx, &changed)
	}
	return c.Conn.Send(ctx, m)
}

// openGRPC puts the scheme grpc among what the program knows.
func (w *world) openGRPC(d *commands.Deps) {
	d.Backends.Transports["grpc"] = func(context.Context, *url.URL) (transport.Transport, error) { return grpcWire{w.transport}, nil }
}

// till serves messages of protobuf at till-1:1, as a server of gRPC does: nothing of it tells what it is but reflection.
func (w *world) till(t *testing.T, id string, reflects bool) {
	t.Helper()
	s, err := server.New("till", server.NodeID(id))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		server.Handle(s, "Till.Ring", func(_ context.Context, r *timestamppb.Timestamp) (*durationpb.Duration, error) {
			if r.GetSeconds() == 0 {
				return nil, status.New(status.FailedPrecondition, "the till is empty")
			}
			return durationpb.New(time.Duration(r.GetSeconds())), nil
		}),
		server.Handle(s, "Till.Count", func(_ context.Context, r *wrapperspb.Int32Value) (*wrapperspb.Int64Value, error) {
			return wrapperspb.Int64(2 * int64(r.GetValue())), nil
		}),
		server.HandleServerStream(s, "Till.Coins", func(_ context.Context, r *wrapperspb.Int32Value, out *server.Sender[structpb.Struct]) error {
			for n := range r.GetValue() {
				coin, err := structpb.NewStruct(map[string]any{"worth": float64(n)})
				if err = errors.Join(err, out.Send(coin)); err != nil {
					return err
				}
			}
			return nil
		}),
		server.HandleBidi(s, "Till.Change", func(_ context.Context, st *server.Stream[wrapperspb.StringValue, wrapperspb.StringValue]) error {
			for r, err := range st.All() {
				if err == nil {
					err = st.Send(r)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}),
	)
	if reflects {
		err = errors.Join(err, s.Handle(server.Endpoint{Name: "ServerReflection.ServerReflectionInfo", Kind: server.Bidi}, reflecting(t)))
	}
	if err != nil {
		t.Fatal(err)
	}
	w.serve(t, s, id)
}

// bill is a request on a plain struct.
type bill struct {
	Number int       `json:"number" doc:"as on the paper"`
	Due    time.Time `json:"due"`
	Lines  []struct {
		Text string `json:"text"`
	} `json:"lines"`
	Paid *bool `json:"paid"`
}

func reflecting(t *testing.T) server.Handler {
	t.Helper()
	s, err := reflection.NewServer("shop", []transport.Served{
		{Name: "Till.Ring", Doc: "Opens it", Request: reflect.TypeFor[timestamppb.Timestamp](), Response: reflect.TypeFor[durationpb.Duration]()},
		{Name: "Till.Count", Request: reflect.TypeFor[wrapperspb.Int32Value](), Response: reflect.TypeFor[wrapperspb.Int64Value]()},
		{Name: "Till.Coins", ServerStreams: true, Request: reflect.TypeFor[wrapperspb.Int32Value](), Response: reflect.TypeFor[structpb.Struct]()},
		{Name: "Till.Change", ClientStreams: true, ServerStreams: true, Request: reflect.TypeFor[wrapperspb.StringValue](), Response: reflect.TypeFor[wrapperspb.StringValue]()},
		{Name: "Bills.Pay", Doc: "Pays a bill", Request: reflect.TypeFor[bill](), Response: reflect.TypeFor[bill]()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(_ context.Context, c *server.Call) error {
		return s.Serve(c.RecvRaw, func(m []byte) error { return c.SendRaw("", m) })
	}
}

// grpcCases are run against a server that reflects, at grpc://till-1:1, and one that does not, at grpc://mute-1:1.
var grpcCases = []struct {
	name string
	args []string
}{
	{"describe", []string{"describe", "grpc://till-1:1"}},
	{"describe-service", []string{"describe", "grpc://till-1:1", "shop.Bills"}},
	{"describe-method", []string{"describe", "grpc://till-1:1", "shop.Till", "Ring"}},
	{"describe-typo", []string{"describe", "grpc://till-1:1", "shop.Tll"}},
	{"describe-example", []string{"describe", "grpc://till-1:1", "--example"}},
	{"describe-mute", []string{"describe", "grpc://mute-1:1"}},
	{"describe-nobody", []string{"describe", "grpc://nobody:1"}},
	{"describe-proto", []string{"describe", "grpc://mute-1:1", "--proto", "testdata/till.proto"}},
	{"call", []string{"call", "grpc://till-1:1", "shop.Till", "Count", `21`}},
	{"call-path", []string{"call", "grpc://till-1:1/shop.Till/Count", `21`}},
	{"call-fails", []string{"call", "grpc://till-1:1", "shop.Till.Ring", `"1970-01-01T00:00:00Z"`}},
	{"call-items", []string{"call", "grpc://till-1:1", "shop.Bills", "nmber=7"}},
	{"call-typo", []string{"call", "grpc://till-1:1", "shop.Till.Rng", `"1970-01-01T00:00:00Z"`}},
	{"call-which", []string{"call", "grpc://till-1:1", "shop.Till"}},
	{"call-example", []string{"call", "grpc://till-1:1", "shop.Bills/Pay", "--example"}},
	{"call-mute", []string{"call", "grpc://mute-1:1", "shop.Till/Count", `1`}},
	{"call-proto", []string{"call", "grpc://mute-1:1", "Till.Count", `4`, "--proto", "testdata/till.proto"}},
	{"call-proto-bad", []string{"call", "grpc://mute-1:1", "Till.Count", `4`, "--proto", "testdata/bad.proto"}},
	{"call-proto-none", []string{"call", "grpc://mute-1:1", "Till.Count", `4`, "--proto", "testdata/nowhere.proto"}},
	{"call-all", []string{"call", "grpc://till-1:1", "shop.Till.Count", "1", "--all"}},
	{"call-no-port", []string{"call", "grpc://localhost", "shop.Till.Count", "1"}},
	{"call-nobody", []string{"call", "grpc://nobody:1", "shop.Till.Count", "1"}},
	{"call-user", []string{"call", "grpc://me:secret@till-1:1", "shop.Till.Count", "1"}},
	{"stream", []string{"stream", "grpc://till-1:1", "shop.Till/Coins", "2"}},
}

// TestGRPCGolden runs commands on a server of gRPC on a terminal, in a pipe and with -o json.
func TestGRPCGolden(t *testing.T) {
	t.Parallel()
	for _, c := range grpcCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run := func(on terminal, args ...string) outcome {
				w := newWorld(t)
				w.till(t, "till-1", true)
				w.till(t, "mute-1", false)
				d, stdout, stderr := w.deps(on, nil, args...)
				w.openGRPC(&d)
				return outcome{runMain(t, d), stdout.String(), stderr.String()}.timeless()
			}
			golden(t, "grpc-"+c.name+".tty", c.args, run(tty, c.args...))
			golden(t, "grpc-"+c.name+".pipe", c.args, run(pipe, c.args...))
			args := append([]string{"-o", "json"}, c.args...)
			got := run(pipe, args...)
			golden(t, "grpc-"+c.name+".json", args, got)
			if got.code == 0 && !json.Valid([]byte(got.stdout)) {
				t.Errorf("%q is not one JSON document", got.stdout)
			}
		})
	}
}

// TestGRPCNode holds that a node whose record says that it speaks gRPC is asked by reflection what it serves, and that a .proto file
// tells of nodes of any kind.
func TestGRPCNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.till(t, "till-1", true)
	w.till(t, "mute-1", false)
	w.register(t, node("till-1", "till", "1", "till-1:1", 0, "protocol", "grpc", "transport", "grpc"))
	w.register(t, node("mute-1", "till", "2", "mute-1:1", 0))
	for line, want := range map[string]string{
		"call till Till.Count 21 --proto testdata/till.proto --version 1":           "42",
		"call till Till/Count 21 --proto testdata/till.proto --version 2":           "42",
		"call till shop.Till.Count 21 --proto till.proto -I testdata --node mute-1": "42",
	} {
		d, stdout, stderr := w.deps(pipe, nil, strings.Fields(line)...)
		w.openGRPC(&d)
		if code := runMain(t, d); code != 0 || strings.Trim(stdout.String(), "\"\n") != want {
			t.Errorf("%s: exit %d, %q, want %q\n%s", line, code, stdout, want, stderr)
		}
	}
}

// TestGRPCTalk holds that values go to a stream as they come, and that empty messages are JSON.
func TestGRPCTalk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.till(t, "till-1", true)
	for _, c := range []struct{ args, stdin, want string }{
		{"stream grpc://till-1:1 shop.Till/Change", `"a" "b"`, "\"a\"\n\"b\"\n"},
		{"call grpc://till-1:1 shop.Till/Count", `0`, "\"0\"\n"},
		{"call grpc://till-1:1 shop.Till/Coins value=1", ``, ""},
	} {
		d, stdout, stderr := w.deps(pipe, nil, strings.Fields(c.args)...)
		d.Stdin, d.StdinData = io.Reader(strings.NewReader(c.stdin)), c.stdin != ""
		w.openGRPC(&d)
		if code := runMain(t, d); c.want != "" && (code != 0 || stdout.String() != c.want) {
			t.Errorf("%s: exit %d, %q, want %q\n%s", c.args, code, stdout, c.want, stderr)
		}
	}
}
