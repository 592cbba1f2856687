package generated_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/client"
	codecjson "github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"

	"example.com/generated/greeterpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// say implements all but what its test leaves out.
type say struct {
	greeterpb.UnimplementedSayHandler
	ended chan error // the end of Repeat's context, where it is asked for more than its caller takes
}

func (s *say) Hello(_ context.Context, req *greeterpb.HelloRequest) (*greeterpb.HelloReply, error) {
	if req.Name == "" {
		return nil, status.New(status.InvalidArgument, "name is empty")
	}
	return &greeterpb.HelloReply{Msg: "Hello " + req.Name}, nil
}

func (s *say) Repeat(ctx context.Context, req *greeterpb.RepeatRequest, out *server.Sender[greeterpb.HelloReply]) error {
	if req.Times > 100 {
		defer func() { // whether the caller went while we sent, or after
			<-ctx.Done()
			s.ended <- ctx.Err()
		}()
	}
	for n := range req.Times {
		if err := out.Send(&greeterpb.HelloReply{Msg: fmt.Sprint("Hello ", req.Name, " ", n)}); err != nil {
			return err
		}
	}
	if req.Name == "" {
		return status.New(status.InvalidArgument, "name is empty")
	}
	return nil
}

func (s *say) Everybody(_ context.Context, in *server.Receiver[greeterpb.HelloRequest]) (*greeterpb.HelloReply, error) {
	var names []string
	for req, err := range in.All() {
		switch {
		case err != nil:
			return nil, err
		case req.Name == "":
			return nil, status.New(status.InvalidArgument, "name is empty")
		}
		names = append(names, req.Name)
	}
	return &greeterpb.HelloReply{Msg: "Hello " + strings.Join(names, ", ")}, nil
}

func (s *say) Chat(_ context.Context, st *server.Stream[greeterpb.HelloRequest, greeterpb.HelloReply]) error {
	for req, err := range st.All() {
		if err != nil {
			return err
		}
		if err := st.Send(&greeterpb.HelloReply{Msg: "Hello " + req.Name}); err != nil {
			return err
		}
	}
	return nil
}

// serve runs a service with h over HTTP, and gives a client of it.
func serve(t testing.TB, h greeterpb.SayHandler, opts ...server.RegisterOption) (*micro.Service, greeterpb.SayClient) {
	t.Helper()
	reg := memory.New()
	started := make(chan struct{})
	svc, err := micro.New("greeter", micro.Registry(reg), micro.Signals(false), micro.AfterStart(func(context.Context) error { close(started); return nil }))
	if err != nil {
		t.Fatal(err)
	}
	if err := greeterpb.RegisterSayHandler(svc.Server(), h, opts...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	caller, err := micro.New("caller", micro.Registry(reg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = caller.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the service ended: %v", err)
		}
		_ = reg.Close()
	})
	select {
	case <-started:
	case <-time.After(20 * time.Second):
		t.Fatal("the service did not start")
	}
	return svc, greeterpb.NewSayClient(caller.Client(), "greeter")
}

func want[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// code gives the code of an error that came from the service.
func code(err error) status.Code {
	var e *status.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func TestUnary(t *testing.T) {
	t.Parallel()
	_, c := serve(t, &say{})
	for _, opts := range [][]client.CallOption{nil, {client.ContentType(codecjson.ContentType)}} {
		reply, err := c.Hello(t.Context(), &greeterpb.HelloRequest{Name: "Ada"}, opts...)
		if err != nil {
			t.Fatal(err)
		}
		want(t, reply.Msg, "Hello Ada")
	}
	_, err := c.Hello(t.Context(), &greeterpb.HelloRequest{})
	want(t, code(err), status.InvalidArgument)
}

func TestServerStream(t *testing.T) {
	t.Parallel()
	h := &say{ended: make(chan error, 1)}
	_, c := serve(t, h)
	in, err := c.Repeat(t.Context(), &greeterpb.RepeatRequest{Name: "Ada", Times: 3})
	if err != nil {
		t.Fatal(err)
	}
	want(t, in.Stream().ContentType(), "application/protobuf")
	var got []string
	for reply, err := range in.All() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, reply.Msg)
	}
	if !slices.Equal(got, []string{"Hello Ada 0", "Hello Ada 1", "Hello Ada 2"}) {
		t.Errorf("got %q", got)
	}
	if _, err := in.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}

	failing, err := c.Repeat(t.Context(), &greeterpb.RepeatRequest{Times: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := failing.Recv(); err != nil {
		t.Fatal(err)
	}
	_, err = failing.Recv()
	want(t, code(err), status.InvalidArgument)

	early, err := c.Repeat(t.Context(), &greeterpb.RepeatRequest{Name: "Ada", Times: 101})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range early.All() {
		if err != nil {
			t.Fatal(err)
		}
		break // the stream is closed, and the handler learns of it
	}
	select {
	case err := <-h.ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the handler did not learn that its caller has gone")
	}
}

func TestClientStream(t *testing.T) {
	t.Parallel()
	_, c := serve(t, &say{})
	for range 2 { // the second stream has the connection of the first
		out, err := c.Everybody(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Ada", "Grace"} {
			if err := out.Send(&greeterpb.HelloRequest{Name: name}); err != nil {
				t.Fatal(err)
			}
		}
		reply, err := out.CloseAndRecv()
		if err != nil {
			t.Fatal(err)
		}
		want(t, reply.Msg, "Hello Ada, Grace")
	}
	refused, err := c.Everybody(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for err == nil { // until the service's end has come
		err = refused.Send(&greeterpb.HelloRequest{})
		if err == nil {
			_, err = refused.CloseAndRecv()
		}
	}
	want(t, code(err), status.InvalidArgument)
}

func TestBidi(t *testing.T) {
	t.Parallel()
	_, c := serve(t, &say{})
	st, err := c.Chat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, name := range []string{"Ada", "Grace"} {
		if err := st.Send(&greeterpb.HelloRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
		reply, err := st.Recv()
		if err != nil {
			t.Fatal(err)
		}
		want(t, reply.Msg, "Hello "+name)
	}
	if err := st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// TestUnimplemented: a handler that lacks methods refuses them.
func TestUnimplemented(t *testing.T) {
	t.Parallel()
	_, c := serve(t, greeterpb.UnimplementedSayHandler{})
	_, err := c.Hello(t.Context(), &greeterpb.HelloRequest{Name: "Ada"})
	want(t, code(err), status.Unimplemented)
	st, err := c.Chat(t.Context())
	if err == nil {
		_, err = st.Recv()
	}
	want(t, code(err), status.Unimplemented)
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	_, c := serve(t, &say{}, server.Skip("Chat"), server.Method("Hello", server.Pooled()))
	if _, err := c.Hello(t.Context(), &greeterpb.HelloRequest{Name: "Ada"}); err != nil {
		t.Error(err)
	}
	if st, err := c.Chat(t.Context()); err == nil {
		_ = st.Close()
		t.Error("a method that is skipped was called")
	}
	s, err := server.New("greeter")
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"no handler":             greeterpb.RegisterSayHandler(s, nil),
		`Skip names "Helo"`:      greeterpb.RegisterSayHandler(s, &say{}, server.Skip("Helo")),
		`Method names "Goodbye"`: greeterpb.RegisterSayHandler(s, &say{}, server.Method("Goodbye")),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

// TestDescribed: the service tells what the .proto file says.
func TestDescribed(t *testing.T) {
	t.Parallel()
	svc, _ := serve(t, &say{})
	info, err := client.Call[server.Info](t.Context(), svc.Client(), "greeter", server.DebugInfo, nil)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(info.Endpoints, func(e server.Endpoint) bool { return e.Name == greeterpb.Say_Hello_Endpoint })
	if i < 0 {
		t.Fatalf("no %s among %v", greeterpb.Say_Hello_Endpoint, info.Endpoints)
	}
	want(t, info.Endpoints[i].Doc, "Hello greets one person")
	want(t, info.Endpoints[i].Idempotent, true)
}

// TestOptions: those that the client was made with count, and those of a call win over them.
func TestOptions(t *testing.T) {
	t.Parallel()
	svc, _ := serve(t, &say{})
	caller, err := micro.New("caller", micro.Registry(memory.New()))
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	c := greeterpb.NewSayClient(caller.Client(), "greeter", client.Address(svc.Node().Address))
	if _, err := c.Hello(t.Context(), &greeterpb.HelloRequest{Name: "Ada"}); err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // an address at which nobody listens any more
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, err := c.Hello(t.Context(), &greeterpb.HelloRequest{Name: "Ada"}, client.Address(l.Addr().String()), client.Attempts(1)); err == nil {
		t.Error("the call's own address does not count")
	}
}
