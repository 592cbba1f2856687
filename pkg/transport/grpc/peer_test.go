package grpc_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	registrymemory "github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// peer gives the command line of gRPC-Go in a process of its own (servers/grpc).
func peer(t testing.TB) string {
	t.Helper()
	program, err := testserver.Build("grpc", ".")
	must(t, err)
	return program
}

// TestTheirClient: gRPC-Go's client with generated stubs calls our service.
func TestTheirClient(t *testing.T) {
	t.Parallel()
	program := peer(t)
	t.Run("h2c", func(t *testing.T) {
		t.Parallel()
		runChecks(t, program, "call", serve(t, beside(t, transporthttp.Options{})))
	})
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		ca, cert, key := testserver.Certificates(t)
		tr := beside(t, transporthttp.Options{TLSConfig: pairOf(t, ca, cert, key)})
		runChecks(t, program, "-ca", ca, "call", serve(t, tr))
	})
}

// runChecks runs the peer's checks, each as a test.
func runChecks(t *testing.T, program string, args ...string) {
	cmd := exec.CommandContext(t.Context(), program, args...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var said strings.Builder
	cmd.Stderr = &said
	must(t, cmd.Start())
	count := 0
	for lines := bufio.NewScanner(out); lines.Scan(); count++ {
		var line struct{ Name, Error string }
		must(t, json.Unmarshal(lines.Bytes(), &line))
		t.Run(line.Name, func(t *testing.T) {
			if line.Error != "" {
				t.Error(line.Error)
			}
		})
	}
	if err := cmd.Wait(); err != nil || count < 15 {
		t.Fatalf("%d checks, %v: %s", count, err, said.String())
	}
}

// theirServer runs gRPC-Go's server.
type theirServer struct {
	addr  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	once  sync.Once
}

func startServer(t testing.TB, args ...string) *theirServer {
	t.Helper()
	s := &theirServer{cmd: exec.Command(peer(t), append(args, "serve", "127.0.0.1:0")...)}
	var err error
	s.stdin, err = s.cmd.StdinPipe()
	must(t, err)
	out, err := s.cmd.StdoutPipe()
	must(t, err)
	must(t, s.cmd.Start())
	t.Cleanup(s.kill)
	s.addr, err = bufio.NewReader(out).ReadString('\n')
	must(t, err)
	s.addr = strings.TrimSpace(s.addr)
	return s
}

// leave has the server drain: GOAWAY, and the end when nothing is under way.
func (s *theirServer) leave(t *testing.T) {
	_, err := io.WriteString(s.stdin, "x")
	must(t, err)
}

func (s *theirServer) kill() {
	s.once.Do(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
}

// TestTheirServer: our client calls gRPC-Go's server.
func TestTheirServer(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	for name, c := range map[string]struct {
		args []string
		o    grpc.Options
	}{
		"h2c":  {nil, grpc.Options{}},
		"gzip": {nil, grpc.Options{Gzip: true}},
		"TLS":  {[]string{"-cert", cert, "-key", key}, grpc.Options{TLSConfig: pairOf(t, ca, cert, key)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, c.args...)
			cl := newClient(t, newTransport(t, c.o))
			for _, endpoint := range []string{"Say.Hello", "pkg.Say/Hello", "/pkg.Say/Hello"} {
				rsp, err := client.Call[text](t.Context(), cl, "pkg", endpoint, wrapperspb.String(strings.Repeat("John ", 1000)), client.Address(s.addr))
				if err != nil || rsp.Value != "Hello "+strings.Repeat("John ", 1000) {
					t.Fatalf("%s: %.20q, %v", endpoint, rsp.GetValue(), err)
				}
			}
			exerciseStreams(t, cl, "pkg", client.Address(s.addr))
		})
	}
}

// TestTheirErrors: gRPC's codes become ours, with the text.
func TestTheirErrors(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	c := newClient(t, newTransport(t, grpc.Options{}))
	for name, want := range map[string]status.Error{
		"code 1 gone":           {Code: status.Canceled, Detail: "gone"},
		"code 2 what":           {Code: status.Internal, Detail: "UNKNOWN: what"},
		"code 3 bad":            {Code: status.InvalidArgument, Detail: "bad"},
		"code 4 late":           {Code: status.DeadlineExceeded, Detail: "late"},
		"code 5 no näme 100%":   {Code: status.NotFound, Detail: "no näme 100%"},
		"code 6 there":          {Code: status.AlreadyExists, Detail: "there"},
		"code 7 no":             {Code: status.PermissionDenied, Detail: "no"},
		"code 8 full":           {Code: status.ResourceExhausted, Detail: "full"},
		"code 9 not so":         {Code: status.FailedPrecondition, Detail: "not so"},
		"code 10 again":         {Code: status.AlreadyExists, Detail: "ABORTED: again"},
		"code 12 not here":      {Code: status.Unimplemented, Detail: "not here"},
		"code 13 broken":        {Code: status.Internal, Detail: "broken"},
		"code 14 away":          {Code: status.Unavailable, Detail: "away"},
		"code 16 who":           {Code: status.Unauthenticated, Detail: "who"},
		"code 99 odd":           {Code: status.Internal, Detail: "CODE 99: odd"},
		"details 3 bad request": {Code: status.InvalidArgument, Detail: "bad request"},
	} {
		_, err := client.Call[text](t.Context(), c, "pkg", "Say.Hello", wrapperspb.String(name), client.Address(s.addr))
		e, ok := errors.AsType[*status.Error](err)
		if !ok || e.Code != want.Code || e.Detail != want.Detail || !e.Remote {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

// TestTheirDetails: the details of an error come as messages where the program has their types, else as they were; of calls and of
// streams, and more of them than our own wire has room for.
func TestTheirDetails(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	c := newClient(t, newTransport(t, grpc.Options{}))
	ask := map[string]func(string) error{
		"call": func(name string) error {
			_, err := client.Call[text](t.Context(), c, "pkg", "Say.Hello", wrapperspb.String(name), client.Address(s.addr))
			return err
		},
		"stream": func(name string) error {
			st, err := c.Stream(t.Context(), "pkg", "Say.Chat", client.Address(s.addr))
			must(t, err)
			defer st.Close()
			must(t, st.Send(wrapperspb.String(name)))
			return st.Recv(new(text))
		},
	}
	for name, fail := range ask {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := fail("details 3 bad request")
			bad, ok := status.DetailOf[*errdetails.BadRequest](err)
			if !ok || len(bad.FieldViolations) != 1 || bad.FieldViolations[0].Description != "is bad" {
				t.Errorf("got %v with %v", err, bad)
			}
			if wait, ok := status.DetailOf[*durationpb.Duration](err); !ok || wait.AsDuration() != 1500*time.Millisecond {
				t.Errorf("got %v", wait)
			}
			if _, ok := status.DetailOf[*errdetails.RetryInfo](err); ok {
				t.Error("a detail that there is not")
			}
			e, _ := errors.AsType[*status.Error](err)
			if len(e.Details) != 4 || e.Code != status.InvalidArgument || !strings.HasSuffix(err.Error(), "google.protobuf.Duration, pkg.Hint, types.example/odd.Thing)") {
				t.Fatalf("got %v", err)
			}
			hint := e.Details[2]
			if m, err := hint.Message(); m != nil || !errors.Is(err, protoregistry.NotFound) || hint.URL() != "type.googleapis.com/pkg.Hint" || string(hint.Value) != "\x0a\x09ask again" {
				t.Errorf("an unknown detail: %v, %v, %+v", m, err, hint)
			}
			if odd := e.Details[3]; odd.URL() != "types.example/odd.Thing" || odd.Name() != "odd.Thing" || string(odd.Value) != "\x08\x01" {
				t.Errorf("a detail of another host: %+v", odd)
			}
			large, ok := status.DetailOf[*errdetails.DebugInfo](fail("large 3 bad request"))
			if !ok || len(large.Detail) != 8<<10 {
				t.Errorf("large details: %v, %d bytes", ok, len(large.GetDetail()))
			}
		})
	}
}

// TestUntoldStreams: a stream over gRPC is opened in what its first message goes in, whoever comes first, to servers of another make and
// of ours, found by URL or in a registry.
func TestUntoldStreams(t *testing.T) {
	t.Parallel()
	theirs := startServer(t).addr
	ours := serve(t, beside(t, transporthttp.Options{}))
	reg := registrymemory.New()
	for name, addr := range map[string]string{"theirs": theirs, "greeter": ours} {
		must(t, reg.Register(t.Context(), registry.Node{ID: name, Service: name, Address: addr, Metadata: map[string]string{"protocol": "grpc"}}, 0))
	}
	other, err := transporthttp.New(transporthttp.Options{})
	must(t, err)
	c, err := client.New(client.WithTransport(other), client.WithTransports(drivers.Transports), client.WithRegistry(reg))
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	open := func(t *testing.T, service, endpoint string, opts ...client.CallOption) *client.Stream {
		t.Helper()
		s, err := c.Stream(t.Context(), service, endpoint, opts...)
		must(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	}
	for name, opts := range map[string][]client.CallOption{
		"theirs": nil, "greeter": nil, "their URL": {client.Address("grpc://" + theirs)}, "our URL": {client.Address("grpc://" + ours)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, name, "pkg.Say/Chat", opts...)
			came := make(chan error, 1)
			got := new(text)
			go func() { came <- s.Recv(got) }() // before anything was sent, or meanwhile
			must(t, s.Send(wrapperspb.String("John")))
			if err := <-came; err != nil || got.Value != "Hello John" || s.ContentType() != "application/protobuf" {
				t.Errorf("%q in %s, %v", got.Value, s.ContentType(), err)
			}
			s, total := open(t, name, "pkg.Say/Sum", opts...), wrapperspb.Int64(0)
			must(t, s.CloseSend())
			if err := s.Recv(total); err != nil || total.Value != 0 {
				t.Errorf("the sum of nothing: %v, %v", total, err)
			}
			if err := s.Send(total); err == nil {
				t.Error("sent after CloseSend")
			}
			must(t, open(t, name, "pkg.Say/Chat", opts...).Close()) // never opened
			s = open(t, name, "pkg.Say/Nothing", opts...)
			_ = s.Send(wrapperspb.String("John")) // Recv tells
			if err := s.Recv(new(text)); status.CodeOf(err) != status.Unimplemented {
				t.Errorf("no such method: %v", err)
			}
		})
	}
	plain := open(t, "greeter", "Say.Chat")
	must(t, plain.Send("John")) // no message of protobuf
	var said string
	if err := plain.Recv(&said); err != nil || said != "Hello John" || plain.ContentType() != "application/json" {
		t.Errorf("in JSON: %q, %v", said, err)
	}
	raw := open(t, "greeter", "Say.Chat")
	must(t, raw.SendRaw([]byte(`"John"`)))
	if body, err := raw.RecvRaw(); err != nil || string(body) != `"Hello John"` {
		t.Errorf("encoded messages: %s, %v", body, err)
	}
}

// TestManyUntoldStreams: those that are not open yet have room kept for them.
func TestManyUntoldStreams(t *testing.T) {
	t.Parallel()
	addr := serve(t, beside(t, transporthttp.Options{}))
	c := newClient(t, newTransport(t, grpc.Options{}))
	var streams []*client.Stream
	for range 300 {
		s, err := c.Stream(t.Context(), "greeter", "Say.Chat", client.Address(addr))
		must(t, err)
		t.Cleanup(func() { s.Close() })
		streams = append(streams, s)
	}
	for _, s := range streams {
		must(t, s.Send(wrapperspb.String("a")))
		must(t, s.Recv(new(text)))
	}
}

// TestTheirMetadata: header and trailer come as the answer's header.
func TestTheirMetadata(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	c := newClient(t, newTransport(t, grpc.Options{}))
	rsp, err := c.Do(t.Context(), &client.Request{Service: "pkg", Endpoint: "Say.Hello", ContentType: "application/protobuf"},
		client.Address(s.addr), client.Header("echo", "a"), client.Header("echo-bin", "AP8B"))
	must(t, err)
	for key, want := range map[string]string{"echo": "a", "echo-bin": "AP8B", "trailer-echo": "a", "trailer-echo-bin": "AP8B"} {
		if got := rsp.Header.Get(key); got != want {
			t.Errorf("%s came as %q, want %q", key, got, want)
		}
	}
	_, err = c.Do(t.Context(), &client.Request{Service: "pkg", Endpoint: "Say.Hello", ContentType: "application/protobuf"},
		client.Address(s.addr), client.Header("echo-bin", "no base64!"), client.Attempts(1))
	if !transport.NotSent(err) || !strings.Contains(err.Error(), "base64") {
		t.Errorf("a -bin key whose value is not base64: %v", err)
	}
}

// TestTheirDeadline: the caller's time travels, and a handler that has used it up is a deadline's end.
func TestTheirDeadline(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	c := newClient(t, newTransport(t, grpc.Options{}))
	rsp, err := client.Call[text](t.Context(), c, "pkg", "Say.Hello", wrapperspb.String("deadline"), client.Address(s.addr), client.Timeout(7*time.Second))
	if err != nil || rsp.Value != "true 7s" {
		t.Fatalf("the handler's deadline: %q, %v", rsp.GetValue(), err)
	}
	_, err = client.Call[text](t.Context(), c, "pkg", "Say.Hello", wrapperspb.String("sleep"), client.Address(s.addr), client.Timeout(100*time.Millisecond))
	if !errors.Is(err, context.DeadlineExceeded) && status.CodeOf(err) != status.DeadlineExceeded {
		t.Fatalf("a handler that takes too long: %v", err)
	}
}

// TestKilledServer: a call and a stream whose server dies fail as such that may have run, and what comes next is not sent.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	c := newClient(t, newTransport(t, grpc.Options{}))
	at := client.Address(s.addr)
	stream, err := c.Stream(t.Context(), "pkg", "Say.Chat", at)
	must(t, err)
	defer stream.Close()
	must(t, stream.Send(wrapperspb.String("John")))
	must(t, stream.Recv(new(text)))
	failed := make(chan error, 1)
	go func() {
		_, err := client.Call[text](t.Context(), c, "pkg", "Say.Hello", wrapperspb.String("sleep"), at)
		failed <- err
	}()
	if _, err := client.Call[text](t.Context(), c, "pkg", "Say.Hello", wrapperspb.String("deadline"), at); err != nil {
		t.Fatal(err) // it has gone out behind the one that waits
	}
	s.kill()
	if err := <-failed; err == nil || transport.NotSent(err) || status.CodeOf(err) == status.DeadlineExceeded {
		t.Errorf("a call whose server died: %v", err)
	}
	if err := stream.Recv(new(text)); err == nil || errors.Is(err, io.EOF) || transport.NotSent(err) {
		t.Errorf("a stream whose server died: %v", err)
	}
	if _, err := client.Call[text](t.Context(), c, "pkg", "Say.Hello", wrapperspb.String("John"), at); !transport.NotSent(err) {
		t.Errorf("a call to a dead server: %v", err)
	}
}

// TestDrainedServer: while a server sends GOAWAY again and again, as its connections grow old, no call fails; a stream that is under
// way when a server leaves goes on to its end.
func TestDrainedServer(t *testing.T) {
	t.Parallel()
	c := newClient(t, newTransport(t, grpc.Options{}))
	ageing := startServer(t, "-age", "200ms")
	var wg sync.WaitGroup
	until := time.Now().Add(2 * time.Second)
	for range 8 {
		wg.Go(func() {
			for time.Now().Before(until) {
				if _, err := client.Call[text](t.Context(), c, "pkg", "Say.Hello", wrapperspb.String("John"), client.Address(ageing.addr)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	s := startServer(t)
	stream, err := c.Stream(t.Context(), "pkg", "Say.Chat", client.Address(s.addr))
	must(t, err)
	defer stream.Close()
	must(t, stream.Send(wrapperspb.String("John")))
	must(t, stream.Recv(new(text)))
	s.leave(t)
	for range 10 {
		must(t, stream.Send(wrapperspb.String("John")))
		must(t, stream.Recv(new(text)))
	}
	must(t, stream.CloseSend())
	if err := stream.Recv(new(text)); !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %v", err)
	}
}
