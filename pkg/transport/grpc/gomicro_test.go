package grpc_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// goMicro gives the command line of go-micro v2.9 in a process of its own (servers/gomicro2), whose protocol is gRPC.
func goMicro(t *testing.T) string {
	t.Helper()
	program, err := testserver.Build("gomicro2", ".")
	if err != nil {
		testserver.Skip(t, "servers/gomicro2: "+err.Error())
	}
	return program
}

type plainRequest struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

type plainResponse struct {
	Msg string `json:"msg"`
	Seq int64  `json:"seq"`
}

// plainHello is what go-micro's peers call with JSON. The messages of Say.Hello are theirs of protobuf: texts stand first.
func plainHello(_ context.Context, in *plainRequest) (*plainResponse, error) {
	if in.Name == "panic" {
		panic("boom")
	}
	return &plainResponse{Msg: "Hello " + in.Name, Seq: in.Count}, asked(in.Name)
}

// TestGoMicroClient: go-micro v2's client, with its default protocol, calls and streams to our service.
func TestGoMicroClient(t *testing.T) {
	t.Parallel()
	program := goMicro(t)
	s := func(s *server.Server) error {
		return errors.Join(server.Handle(s, "Plain.Hello", plainHello), server.HandleBidi(s, "Stream.Echo", chat),
			server.HandleServerStream(s, "Stream.Count", func(_ context.Context, in *plainRequest, out *server.Sender[plainResponse]) error {
				for i := range in.Count {
					if err := out.Send(&plainResponse{Msg: "item " + in.Name, Seq: i + 1}); err != nil {
						return err
					}
				}
				return nil
			}))
	}
	addr, stop := serveMore(t, beside(t, transporthttp.Options{}), s)
	t.Cleanup(func() { must(t, stop()) })
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"protobuf", `"msg":"Hello John"`, []string{"call", "-address", addr, "-type", "application/protobuf", "greeter", "Say.Hello", `{"name":"John"}`}},
		{"json", `"msg":"Hello John"`, []string{"call", "-address", addr, "-type", "application/json", "-message", "plain", "greeter", "Plain.Hello", `{"name":"John","count":3}`}},
		{"error", `"code":409`, []string{"call", "-address", addr, "-type", "application/json", "-message", "plain", "greeter", "Plain.Hello", `{"name":"status 409 taken already"}`}},
		{"error's text", `"detail":"taken already"`, []string{"call", "-address", addr, "-type", "application/json", "-message", "plain", "greeter", "Plain.Hello", `{"name":"status 409 taken already"}`}},
		{"error's sender", `"id":"greeter"`, []string{"call", "-address", addr, "-type", "application/json", "-message", "plain", "greeter", "Plain.Hello", `{"name":"status 409 taken already"}`}},
		{"panic", `"code":500`, []string{"call", "-address", addr, "-type", "application/json", "-message", "plain", "greeter", "Plain.Hello", `{"name":"panic"}`}},
		{"no method", `no method`, []string{"call", "-address", addr, "-type", "application/json", "greeter", "Say.Nothing", `{}`}},
		{"timeout", `408`, []string{"call", "-address", addr, "-type", "application/protobuf", "-timeout", "300ms", "greeter", "Say.Hello", `{"name":"sleep"}`}},
		{"bidi", `"msg":"Hello b"`, []string{"stream", "-address", addr, "-type", "application/protobuf", "greeter", "Stream.Echo", `[{"name":"a"},{"name":"b"}]`}},
		{"server stream", `"seq":3`, []string{"count", "-address", addr, "-type", "application/json", "-message", "plain", "greeter", "Stream.Count", `{"name":"a","count":3}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, _ := exec.CommandContext(t.Context(), program, c.args...).Output() // what it fails with it prints
			if !strings.Contains(strings.ReplaceAll(string(out), " ", ""), strings.ReplaceAll(c.want, " ", "")) {
				t.Errorf("got %s, want %s", out, c.want)
			}
		})
	}
}

// TestGoMicroServer: our client calls and streams to go-micro v2's service, with its default protocol.
func TestGoMicroServer(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(goMicro(t), "serve", "-registry", "memory", "-address", "127.0.0.1:0", "greeter")
	stdin, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	var addr string
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		if raw, ok := strings.CutPrefix(lines.Text(), "address "); ok {
			must(t, json.Unmarshal([]byte(raw), &addr))
		}
	}
	c := newClient(t, newTransport(t, grpc.Options{}))
	at, ctx := client.Address(addr), t.Context()
	rsp, err := client.Call[text](ctx, c, "greeter", "Say.Hello", wrapperspb.String("John"), at)
	if err != nil || rsp.Value != "Hello John from v2.9.1" {
		t.Fatalf("protobuf: %q, %v", rsp.GetValue(), err)
	}
	plain, err := client.Call[plainResponse](ctx, c, "greeter", "Plain.Hello", &plainRequest{Name: "John", Count: 3}, at)
	if err != nil || plain.Msg != "Hello John from v2.9.1" || plain.Seq != 3 {
		t.Fatalf("JSON: %+v, %v", plain, err)
	}
	for name, want := range map[string]status.Error{
		"bad":   {ID: "say.fail", Code: status.InvalidArgument, Detail: "bad name: bad"},
		"plain": {Code: status.Internal, Detail: "a plain error"},
		"panic": {Code: status.Internal, Detail: "panic recovered"},
	} {
		_, err := client.Call[text](ctx, c, "greeter", "Say.Fail", wrapperspb.String(name), at)
		e, ok := errors.AsType[*status.Error](err)
		if !ok || e.Code != want.Code || !strings.Contains(e.Detail, want.Detail) || want.ID != "" && e.ID != want.ID || !e.Remote {
			t.Errorf("%s: %#v", name, err)
		}
	}
	_, err = client.Call[text](ctx, c, "greeter", "Say.Nothing", wrapperspb.String(""), at)
	if status.CodeOf(err) != status.Unimplemented {
		t.Errorf("no method: %v", err)
	}
	s, err := c.Stream(ctx, "greeter", "Stream.Echo", at)
	must(t, err)
	defer s.Close()
	for _, name := range []string{"a", "b"} {
		must(t, s.Send(wrapperspb.String(name)))
		m := new(text)
		if err := s.Recv(m); err != nil || m.Value != "echo "+name {
			t.Fatalf("%q, %v", m.Value, err)
		}
	}
	must(t, s.Send(wrapperspb.String("fail")))
	if err := s.Recv(new(text)); status.CodeOf(err) != status.PermissionDenied {
		t.Errorf("a stream that fails: %v", err)
	}
}
