package grpc_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newTransport(t testing.TB, o grpc.Options) *grpc.Transport {
	t.Helper()
	tr, err := grpc.New(o)
	must(t, err)
	return tr
}

// beside gives the transport of one port, with gRPC on it.
func beside(t testing.TB, o transporthttp.Options) *transporthttp.Transport {
	t.Helper()
	o.Beside = []transporthttp.Beside{newTransport(t, grpc.Options{Logger: o.Logger})}
	tr, err := transporthttp.New(o)
	must(t, err)
	return tr
}

type text = wrapperspb.StringValue
type number = wrapperspb.Int64Value

// asked gives the error that a name asks for: "status 404 no such name", "details 400 bad", "large 400 with too many details".
func asked(name string) error {
	words := strings.SplitN(name, " ", 3)
	if len(words) < 3 {
		return nil
	}
	code, _ := strconv.Atoi(words[1])
	e := status.New(status.Code(code), "%s", words[2])
	bad := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "name", Description: "is bad"}}}
	switch words[0] {
	case "status":
		return e
	case "details":
		return e.With(bad, &errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)})
	case "large":
		return e.With(bad, &errdetails.DebugInfo{Detail: strings.Repeat("x", 8<<10)})
	}
	return nil
}

func hello(ctx context.Context, in *text) (*text, error) {
	switch in.Value {
	case "sleep":
		<-ctx.Done()
		return nil, ctx.Err()
	case "deadline":
		until, ok := ctx.Deadline()
		return wrapperspb.String(fmt.Sprint(ok, time.Until(until).Round(time.Second))), nil
	}
	return wrapperspb.String("Hello " + in.Value), asked(in.Value)
}

func list(_ context.Context, in *number, out *server.Sender[text]) error {
	for i := range in.Value {
		if err := out.Send(wrapperspb.String(fmt.Sprintf("item %d", i))); err != nil {
			return err
		}
	}
	return nil
}

func sum(_ context.Context, in *server.Receiver[number]) (*number, error) {
	total := int64(0)
	for m, err := range in.All() {
		if err != nil {
			return nil, err
		}
		total += m.Value
	}
	return wrapperspb.Int64(total), nil
}

func chat(_ context.Context, s *server.Stream[text, text]) error {
	for m, err := range s.All() {
		if err == nil {
			err = asked(m.Value)
		}
		if err == nil {
			err = s.Send(wrapperspb.String("Hello " + m.Value))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// echo gives the caller's metadata back that begins with "echo".
func echo(next server.Handler) server.Handler {
	return func(ctx context.Context, c *server.Call) error {
		for k, v := range c.Header().All() {
			if strings.HasPrefix(k, "echo") {
				_ = c.SetHeader(k, v) // a stream has none
			}
		}
		return next(ctx, c)
	}
}

// serve runs the service greeter, with a method of each kind, over tr, and gives its address.
func serve(t testing.TB, tr transport.Transport, opts ...server.Option) string {
	t.Helper()
	addr, stop := serveUntil(t, tr, opts...)
	t.Cleanup(func() { must(t, stop()) })
	return addr
}

// serveUntil gives what stops the service, too.
func serveUntil(t testing.TB, tr transport.Transport, opts ...server.Option) (addr string, stop func() error) {
	t.Helper()
	return serveMore(t, tr, func(*server.Server) error { return nil }, opts...)
}

// serveMore serves what add adds, too.
func serveMore(t testing.TB, tr transport.Transport, add func(*server.Server) error, opts ...server.Option) (addr string, stop func() error) {
	t.Helper()
	s, err := server.New("greeter", append([]server.Option{server.WithMiddleware(echo), server.ShutdownTimeout(5 * time.Second)}, opts...)...)
	must(t, err)
	must(t, server.Handle(s, "Say.Hello", hello))
	must(t, server.HandleServerStream(s, "Say.List", list))
	must(t, server.HandleClientStream(s, "Say.Sum", sum))
	must(t, server.HandleBidi(s, "Say.Chat", chat))
	must(t, add(s))
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	return l.Addr(), func() error {
		cancel()
		return <-served
	}
}

func newClient(t testing.TB, tr transport.Transport) *client.Client {
	t.Helper()
	c, err := client.New(client.WithTransport(tr))
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// testTLS makes a configuration for both ends on loopback.
func testTLS(t testing.TB) *tls.Config {
	t.Helper()
	ca, cert, key := testserver.Certificates(t)
	return pairOf(t, ca, cert, key)
}

// pairOf makes one of files.
func pairOf(t testing.TB, ca, cert, key string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	must(t, err)
	pem, err := os.ReadFile(ca)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}
}

// TestBothOurs: our client and our server speak gRPC with each other, on one port with HTTP, on a port of its own and over TLS.
func TestBothOurs(t *testing.T) {
	t.Parallel()
	config := testTLS(t)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	for name, c := range map[string]struct {
		server transport.Transport
		client grpc.Options
	}{
		"beside HTTP":  {beside(t, transporthttp.Options{Logger: log}), grpc.Options{}},
		"beside HTTPS": {beside(t, transporthttp.Options{TLSConfig: config}), grpc.Options{TLSConfig: config}},
		"own port":     {newTransport(t, grpc.Options{Logger: log}), grpc.Options{}},
		"own port TLS": {newTransport(t, grpc.Options{TLSConfig: config}), grpc.Options{TLSConfig: config, Gzip: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := serve(t, c.server)
			exercise(t, newClient(t, newTransport(t, c.client)), addr)
		})
	}
}

// exercise calls the methods of Say.
func exercise(t *testing.T, c *client.Client, addr string) {
	at, ctx := client.Address(addr), t.Context()
	rsp, err := client.Call[text](ctx, c, "greeter", "Say.Hello", wrapperspb.String("John"), at)
	must(t, err)
	if rsp.Value != "Hello John" {
		t.Fatalf("got %q", rsp.Value)
	}
	_, err = client.Call[text](ctx, c, "greeter", "Say.Hello", wrapperspb.String("status 404 no such näme"), at)
	if e, ok := errors.AsType[*status.Error](err); !ok || e.Code != status.NotFound || e.Detail != "no such näme" || e.ID != "greeter" || !e.Remote {
		t.Fatalf("got %#v", err)
	}
	exerciseStreams(t, c, "greeter", at)
	_, err = client.Call[text](ctx, c, "greeter", "Say.Hello", wrapperspb.String("sleep"), at, client.Timeout(200*time.Millisecond))
	if !errors.Is(err, context.DeadlineExceeded) && status.CodeOf(err) != status.DeadlineExceeded {
		t.Fatalf("a call that takes too long: %v", err)
	}
	s, err := c.Stream(ctx, "greeter", "Say.Chat", at)
	must(t, err)
	defer s.Close()
	must(t, s.Send(wrapperspb.String("status 409 taken")))
	if err := s.Recv(new(text)); status.CodeOf(err) != status.AlreadyExists {
		t.Fatalf("a stream that fails: %v", err)
	}
	_, err = client.Call[text](ctx, c, "other", "Say.Hello", wrapperspb.String("John"), at)
	if e, ok := errors.AsType[*status.Error](err); !ok || e.Code != status.Misdirected || !e.Refused {
		t.Fatalf("a call for another service: %v", err)
	}
}

func exerciseStreams(t *testing.T, c *client.Client, service string, at client.CallOption) {
	t.Helper()
	ctx := t.Context()
	for _, count := range []int{0, 3, 1000} {
		s, err := c.Stream(ctx, service, "Say.List", at)
		must(t, err)
		must(t, s.Send(wrapperspb.Int64(int64(count))))
		must(t, s.CloseSend())
		for i := range count {
			m := new(text)
			if err := s.Recv(m); err != nil || m.Value != fmt.Sprintf("item %d", i) {
				t.Fatalf("message %d of %d: %q, %v", i, count, m.Value, err)
			}
		}
		if err := s.Recv(new(text)); !errors.Is(err, io.EOF) {
			t.Fatalf("at the end: %v", err)
		}
		must(t, s.Close())
	}
	s, err := c.Stream(ctx, service, "Say.Sum", at)
	must(t, err)
	for i := range int64(100) {
		must(t, s.Send(wrapperspb.Int64(i)))
	}
	must(t, s.CloseSend())
	total := new(number)
	if err := s.Recv(total); err != nil || total.Value != 4950 {
		t.Fatalf("sum %d, %v", total.Value, err)
	}
	must(t, s.Close())
	s, err = c.Stream(ctx, service, "Say.Chat", at)
	must(t, err)
	defer s.Close()
	for i := range 100 {
		name := strings.Repeat("x", i*100)
		must(t, s.Send(wrapperspb.String(name)))
		m := new(text)
		if err := s.Recv(m); err != nil || m.Value != "Hello "+name {
			t.Fatalf("message %d: %q, %v", i, m.Value, err)
		}
	}
	must(t, s.CloseSend())
	if err := s.Recv(new(text)); !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %v", err)
	}
}
