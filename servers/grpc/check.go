package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/servers/grpc/say"
)

// checks are what a client wants of a server.
var checks = []struct {
	name string
	run  func(ctx context.Context, conn *grpc.ClientConn) error
}{
	{"unary", unary},
	{"unary by the service's name", unaryByService},
	{"many at once", many},
	{"metadata", checkMetadata},
	{"errors", checkErrors},
	{"details", checkDetails},
	{"details of a stream", streamDetails},
	{"unknown method", unknownMethod},
	{"deadline", deadline},
	{"deadline passed on", deadlineSeen},
	{"cancel", cancelled},
	{"gzip", packed},
	{"large message", large},
	{"message over the limit", tooLarge},
	{"server stream", serverStream},
	{"client stream", clientStream},
	{"bidi", bidi},
	{"bidi fails", bidiFails},
	{"bidi cancelled", bidiCancelled},
	{"large stream", largeStream},
	{"health", checkHealth},
	{"health watch", watchHealth},
}

func call(addr, ca string) error {
	conn, err := dial(addr, ca)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, c := range checks {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		line := struct{ Name, Error string }{Name: c.name}
		if err := c.run(ctx, conn); err != nil {
			line.Error = err.Error()
		}
		cancel()
		out, _ := json.Marshal(line)
		fmt.Println(string(out))
	}
	return nil
}

func dial(addr, ca string) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		creds = credentials.NewTLS(&tls.Config{RootCAs: roots})
	}
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds))
}

func wantCode(err error, code codes.Code, text string) error {
	if st := status.Convert(err); st.Code() != code || !strings.Contains(st.Message(), text) {
		return fmt.Errorf("got %v, want %v with %q", err, code, text)
	}
	return nil
}

func hello(ctx context.Context, conn *grpc.ClientConn, name string, opts ...grpc.CallOption) error {
	rsp, err := say.NewSayClient(conn).Hello(ctx, wrapperspb.String(name), opts...)
	if err != nil {
		return err
	}
	if rsp.Value != "Hello "+name {
		return fmt.Errorf("got %.100q", rsp.Value)
	}
	return nil
}

func unary(ctx context.Context, conn *grpc.ClientConn) error { return hello(ctx, conn, "John") }

func unaryByService(ctx context.Context, conn *grpc.ClientConn) error {
	for _, path := range []string{"/greeter.Say/Hello", "/Say/Hello", "/some.other.pkg.Say/Hello"} {
		rsp := new(wrapperspb.StringValue)
		if err := conn.Invoke(ctx, path, wrapperspb.String("John"), rsp); err != nil || rsp.Value != "Hello John" {
			return fmt.Errorf("%s: %q, %v", path, rsp.Value, err)
		}
	}
	return nil
}

func many(ctx context.Context, conn *grpc.ClientConn) error {
	var wg sync.WaitGroup
	errs := make(chan error, 200)
	for i := range 200 {
		wg.Go(func() { errs <- hello(ctx, conn, fmt.Sprint("caller ", i)) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkMetadata(ctx context.Context, conn *grpc.ClientConn) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "echo", "one", "echo", "two", "echo-bin", "\x00\xff\x01", "Echo-Upper", "a b")
	var header metadata.MD
	if err := hello(ctx, conn, "John", grpc.Header(&header)); err != nil {
		return err
	}
	if got := strings.Join(header["echo"], ", "); got != "one, two" {
		return fmt.Errorf("echo came as %q", got)
	}
	if got := header["echo-bin"]; len(got) != 1 || got[0] != "\x00\xff\x01" {
		return fmt.Errorf("echo-bin came as %q", got)
	}
	if got := header["echo-upper"]; len(got) != 1 || got[0] != "a b" {
		return fmt.Errorf("echo-upper came as %q", got)
	}
	return nil
}

func checkErrors(ctx context.Context, conn *grpc.ClientConn) error {
	for code, want := range map[int]codes.Code{
		400: codes.InvalidArgument, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 404: codes.NotFound, 408: codes.DeadlineExceeded,
		409: codes.AlreadyExists, 412: codes.FailedPrecondition, 429: codes.ResourceExhausted, 499: codes.Canceled, 500: codes.Internal,
		501: codes.Unimplemented, 503: codes.Unavailable, 418: codes.Unknown,
	} {
		text := "no such näme: 100%\n\x7fx"
		if err := wantCode(hello(ctx, conn, fmt.Sprintf("status %d %s", code, text)), want, text); err != nil {
			return fmt.Errorf("%d: %w", code, err)
		}
	}
	return nil
}

func checkDetails(ctx context.Context, conn *grpc.ClientConn) error {
	if err := wantDetails(hello(ctx, conn, "details 400 bad näme")); err != nil {
		return err
	}
	if n := len(status.Convert(hello(ctx, conn, "status 400 bad")).Details()); n > 0 {
		return fmt.Errorf("an error without details has %d", n)
	}
	return nil
}

func streamDetails(ctx context.Context, conn *grpc.ClientConn) error {
	s, err := say.NewSayClient(conn).Chat(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(wrapperspb.String("details 400 bad näme")); err != nil {
		return err
	}
	_, err = s.Recv()
	return wantDetails(err)
}

// wantDetails wants the details of a service that was asked for "details 400 bad näme".
func wantDetails(err error) error {
	st := status.Convert(err)
	details := st.Details()
	if st.Code() != codes.InvalidArgument || st.Message() != "bad näme" || len(details) != 2 {
		return fmt.Errorf("got %v with %v", err, details)
	}
	bad, _ := details[0].(*spb.BadRequest)
	retry, _ := details[1].(*spb.RetryInfo)
	if len(bad.GetFieldViolations()) != 1 || bad.FieldViolations[0].Field != "name" || retry.GetRetryDelay().AsDuration() != 1500*time.Millisecond {
		return fmt.Errorf("got details %v", details)
	}
	return nil
}

func unknownMethod(ctx context.Context, conn *grpc.ClientConn) error {
	return wantCode(conn.Invoke(ctx, "/pkg.Say/Nothing", wrapperspb.String(""), new(wrapperspb.StringValue)), codes.Unimplemented, "Nothing")
}

func deadline(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	return wantCode(hello(ctx, conn, "sleep"), codes.DeadlineExceeded, "")
}

func deadlineSeen(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, 7*time.Second)
	defer cancel()
	rsp, err := say.NewSayClient(conn).Hello(ctx, wrapperspb.String("deadline"))
	if err != nil || rsp.Value != "true 7s" {
		return fmt.Errorf("the handler's deadline: %q, %v", rsp.GetValue(), err)
	}
	return nil
}

func cancelled(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(100*time.Millisecond, cancel)
	if err := wantCode(hello(ctx, conn, "sleep"), codes.Canceled, ""); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	return hello(ctx, conn, "after that")
}

func packed(ctx context.Context, conn *grpc.ClientConn) error {
	return hello(ctx, conn, strings.Repeat("John ", 20_000), grpc.UseCompressor(gzip.Name))
}

func large(ctx context.Context, conn *grpc.ClientConn) error {
	return hello(ctx, conn, strings.Repeat("x", 4<<20-100), grpc.MaxCallRecvMsgSize(8<<20))
}

func tooLarge(ctx context.Context, conn *grpc.ClientConn) error {
	if err := wantCode(hello(ctx, conn, strings.Repeat("x", 5<<20)), codes.ResourceExhausted, "limit"); err != nil {
		return err
	}
	// What unpacks to more than the limit is over it, too.
	if err := wantCode(hello(ctx, conn, strings.Repeat("x", 5<<20), grpc.UseCompressor(gzip.Name)), codes.ResourceExhausted, "limit"); err != nil {
		return err
	}
	return hello(ctx, conn, "after that")
}

func serverStream(ctx context.Context, conn *grpc.ClientConn) error {
	for _, count := range []int{0, 1, 1000} {
		s, err := say.NewSayClient(conn).List(ctx, wrapperspb.Int64(int64(count)))
		if err != nil {
			return err
		}
		for i := range count {
			m, err := s.Recv()
			if err != nil || m.Value != fmt.Sprintf("item %d", i) {
				return fmt.Errorf("message %d of %d: %q, %v", i, count, m.GetValue(), err)
			}
		}
		if _, err := s.Recv(); err != io.EOF {
			return fmt.Errorf("after %d: %v", count, err)
		}
	}
	return nil
}

func clientStream(ctx context.Context, conn *grpc.ClientConn) error {
	s, err := say.NewSayClient(conn).Sum(ctx)
	if err != nil {
		return err
	}
	for i := range int64(1000) {
		if err := s.Send(wrapperspb.Int64(i)); err != nil {
			return err
		}
	}
	rsp, err := s.CloseAndRecv()
	if err != nil || rsp.Value != 499_500 {
		return fmt.Errorf("sum: %v, %v", rsp.GetValue(), err)
	}
	return nil
}

func bidi(ctx context.Context, conn *grpc.ClientConn) error {
	s, err := say.NewSayClient(conn).Chat(ctx)
	if err != nil {
		return err
	}
	for i := range 200 {
		name := fmt.Sprint(i)
		if err := s.Send(wrapperspb.String(name)); err != nil {
			return err
		}
		if m, err := s.Recv(); err != nil || m.Value != "Hello "+name {
			return fmt.Errorf("message %d: %q, %v", i, m.GetValue(), err)
		}
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if _, err := s.Recv(); err != io.EOF {
		return fmt.Errorf("at the end: %v", err)
	}
	return nil
}

func bidiFails(ctx context.Context, conn *grpc.ClientConn) error {
	s, err := say.NewSayClient(conn).Chat(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(wrapperspb.String("status 404 nobody")); err != nil {
		return err
	}
	_, err = s.Recv()
	return wantCode(err, codes.NotFound, "nobody")
}

func bidiCancelled(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := say.NewSayClient(conn).Chat(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(wrapperspb.String("John")); err != nil {
		return err
	}
	if _, err := s.Recv(); err != nil {
		return err
	}
	cancel()
	_, err = s.Recv()
	return wantCode(err, codes.Canceled, "")
}

// largeStream sends more both ways than windows hold.
func largeStream(ctx context.Context, conn *grpc.ClientConn) error {
	s, err := say.NewSayClient(conn).Chat(ctx)
	if err != nil {
		return err
	}
	name := strings.Repeat("y", 300_000)
	failed := make(chan error, 1)
	go func() {
		for range 30 {
			if err := s.Send(wrapperspb.String(name)); err != nil {
				failed <- err
				return
			}
		}
		failed <- s.CloseSend()
	}()
	for i := range 30 {
		if m, err := s.Recv(); err != nil || m.Value != "Hello "+name {
			return fmt.Errorf("message %d: %d bytes, %v", i, len(m.GetValue()), err)
		}
	}
	if _, err := s.Recv(); err != io.EOF {
		return fmt.Errorf("at the end: %v", err)
	}
	return <-failed
}

func checkHealth(ctx context.Context, conn *grpc.ClientConn) error {
	client := grpc_health_v1.NewHealthClient(conn)
	for _, service := range []string{"", "greeter", "pkg.Say", "Say"} {
		rsp, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || rsp.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("%q: %v, %v", service, rsp, err)
		}
	}
	_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nothing"})
	return wantCode(err, codes.NotFound, "nothing")
}

func watchHealth(ctx context.Context, conn *grpc.ClientConn) error {
	for service, want := range map[string]grpc_health_v1.HealthCheckResponse_ServingStatus{
		"": grpc_health_v1.HealthCheckResponse_SERVING, "nothing": grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN,
	} {
		ctx, cancel := context.WithCancel(ctx)
		s, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			cancel()
			return err
		}
		rsp, err := s.Recv()
		cancel()
		if err != nil || rsp.Status != want {
			return fmt.Errorf("%q: %v, %v", service, rsp, err)
		}
	}
	return nil
}

// bench prints how long a call takes, one after the other and of 64 callers.
func bench(addr string) error {
	conn, err := dial(addr, "")
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, callers := range []int{1, 64} {
		const total = 20_000
		var wg sync.WaitGroup
		errs := make(chan error, callers)
		start := time.Now()
		for range callers {
			wg.Go(func() {
				for range total / callers {
					if err := hello(context.Background(), conn, "John"); err != nil {
						errs <- err
						return
					}
				}
			})
		}
		wg.Wait()
		if len(errs) > 0 {
			return <-errs
		}
		fmt.Printf("%d callers: %v a call\n", callers, (time.Since(start) / total).Round(100*time.Nanosecond))
	}
	return nil
}
