package grpc_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

// frame is a message with its prefix.
func frame(flag byte, body []byte) []byte {
	out := append(make([]byte, 0, 5+len(body)), flag)
	return append(binary.BigEndian.AppendUint32(out, uint32(len(body))), body...)
}

func packed(body []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(body)
	_ = z.Close()
	return b.Bytes()
}

// newH2C gives an HTTP/2 client in the clear.
func newH2C(t *testing.T) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// hello John, as a message of protobuf.
var john = frame(0, []byte("\x0a\x04John"))

// TestRequests: what a server answers to requests that a library would not send.
func TestRequests(t *testing.T) {
	t.Parallel()
	addr := serve(t, beside(t, transporthttp.Options{}))
	c := newH2C(t)
	bomb := packed(make([]byte, 64<<20))
	for _, test := range []struct {
		name, path   string
		header       map[string]string
		body         []byte
		status, text string
	}{
		{name: "good", body: john, status: "0"},
		{name: "type with parameters", body: john, header: map[string]string{"Content-Type": "application/grpc+proto; charset=utf-8"}, status: "0"},
		{name: "json", body: frame(0, []byte(`"John"`)), header: map[string]string{"Content-Type": "application/grpc+json"}, status: "0"},
		{name: "empty message", body: frame(0, nil), status: "0"},
		{name: "packed", body: frame(1, packed([]byte("\x0a\x04John"))), header: map[string]string{"Grpc-Encoding": "gzip"}, status: "0"},
		{name: "no message", status: "12", text: "there is none"},
		{name: "two messages", body: append(john[:len(john):len(john)], john...), status: "12", text: "there are more"},
		{name: "cut off", body: john[:7], status: "3", text: "cut off"},
		{name: "cut off in the prefix", body: john[:3], status: "3", text: "cut off"},
		{name: "odd flag", body: frame(2, nil), status: "13", text: "flags"},
		{name: "packed without a word", body: frame(1, packed(nil)), status: "13", text: "grpc-encoding"},
		{name: "packed badly", body: frame(1, []byte("no gzip")), header: map[string]string{"Grpc-Encoding": "gzip"}, status: "13", text: "unpack"},
		{name: "bomb", body: frame(1, bomb), header: map[string]string{"Grpc-Encoding": "gzip"}, status: "8", text: "limit"},
		{name: "other packing", body: frame(1, nil), header: map[string]string{"Grpc-Encoding": "snappy"}, status: "12", text: "snappy"},
		{name: "announced too large", body: []byte{0, 0xff, 0xff, 0xff, 0xff}, status: "8", text: "limit"},
		{name: "bad timeout", body: john, header: map[string]string{"Grpc-Timeout": "1x"}, status: "3", text: "grpc-timeout"},
		{name: "no time", body: john, header: map[string]string{"Grpc-Timeout": "0n"}, status: "4", text: "no time"},
		{name: "long timeout", body: john, header: map[string]string{"Grpc-Timeout": "99999999H"}, status: "0"},
		{name: "no codec", body: john, header: map[string]string{"Content-Type": "application/grpc+thrift"}, status: "12", text: "thrift"},
		{name: "no protobuf", body: frame(0, []byte{0xff, 0xff}), status: "3", text: "decode"},
		{name: "long metadata", body: john, header: map[string]string{"Long": strings.Repeat("x", 5000)}, status: "8", text: "4096"},
		{name: "no path", path: "/", body: john, status: "12", text: "no method"},
		{name: "unknown method", path: "/pkg.Say/Nothing", body: john, status: "12", text: "Nothing"},
		{name: "method alone", path: "/Hello", body: john, status: "12", text: "no method"},
		{name: "another service", body: john, header: map[string]string{"Micro-Service": "other"}, status: "14", text: "this is greeter"},
		{name: "health of nobody", path: "/grpc.health.v1.Health/Check", body: frame(0, []byte("\x0a\x01x")), status: "5", text: "unknown service"},
		{name: "health method", path: "/grpc.health.v1.Health/Kill", body: frame(0, nil), status: "12", text: "Kill"},
		{name: "Debug", path: "/Debug/Health", body: frame(0, nil), header: map[string]string{"Content-Type": "application/grpc+json"}, status: "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := test.path
			if path == "" {
				path = "/pkg.Say/Hello"
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+path, bytes.NewReader(test.body))
			must(t, err)
			r.Header.Set("Content-Type", "application/grpc")
			for k, v := range test.header {
				r.Header.Set(k, v)
			}
			rsp, err := c.Do(r)
			must(t, err)
			defer rsp.Body.Close()
			_, _ = io.Copy(io.Discard, rsp.Body) // what is wrong with it, the trailer tells
			got, text := rsp.Trailer.Get("Grpc-Status"), rsp.Trailer.Get("Grpc-Message")
			if got == "" {
				got, text = rsp.Header.Get("Grpc-Status"), rsp.Header.Get("Grpc-Message")
			}
			if rsp.StatusCode != http.StatusOK || got != test.status || !strings.Contains(text, test.text) {
				t.Errorf("HTTP %d, grpc-status %q, %q; want %s with %q", rsp.StatusCode, got, text, test.status, test.text)
			}
		})
	}
}

// TestRetryInfo: a call that may run twice is made again when its server has asked for it, and no sooner; one that may not run twice, or
// has no time for it, gives the error at once.
func TestRetryInfo(t *testing.T) {
	t.Parallel()
	const delay = 200 * time.Millisecond
	var calls atomic.Int32
	late := func(_ context.Context, in *text) (*text, error) {
		if calls.Add(1) == 1 {
			return nil, status.New(status.ResourceExhausted, "later").With(&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
		}
		return in, nil
	}
	tr := beside(t, transporthttp.Options{})
	addr, stop := serveMore(t, tr, func(s *server.Server) error { return server.Handle(s, "Late.Do", late) })
	defer func() { must(t, stop()) }()
	for name, by := range map[string]transport.Transport{"gRPC": newTransport(t, grpc.Options{}), "frames": tr} {
		c := newClient(t, by)
		for _, k := range []struct {
			opts  []client.CallOption
			calls int32
		}{{[]client.CallOption{client.Idempotent()}, 2}, {nil, 1}, {[]client.CallOption{client.Idempotent(), client.Timeout(delay / 2)}, 1}} {
			calls.Store(0)
			begun := time.Now()
			_, err := client.Call[text](t.Context(), c, "greeter", "Late.Do", wrapperspb.String("x"), append(k.opts, client.Address(addr))...)
			took := time.Since(begun)
			if again := k.calls == 2; calls.Load() != k.calls || (err == nil) != again || again && took < delay {
				t.Errorf("%s, %d calls wanted: %d in %s, %v", name, k.calls, calls.Load(), took, err)
			}
			if d, ok := status.RetryDelay(err); err != nil && (!ok || d != delay) {
				t.Errorf("%s: the error asks for %s: %v", name, d, err)
			}
		}
	}
}

// TestDetails: the details of a handler's error come to callers of all ways to one port; what is too large for them is told of.
func TestDetails(t *testing.T) {
	t.Parallel()
	tr := beside(t, transporthttp.Options{})
	addr := serve(t, tr)
	for name, by := range map[string]transport.Transport{"gRPC": newTransport(t, grpc.Options{}), "frames": tr} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, by)
			st, err := c.Stream(t.Context(), "greeter", "Say.Chat", client.Address(addr))
			must(t, err)
			defer st.Close()
			must(t, st.Send(wrapperspb.String("details 400 bad")))
			_, called := client.Call[text](t.Context(), c, "greeter", "Say.Hello", wrapperspb.String("details 400 bad"), client.Address(addr))
			for _, err := range []error{called, st.Recv(new(text))} {
				retry, ok := status.DetailOf[*errdetails.RetryInfo](err)
				bad, also := status.DetailOf[*errdetails.BadRequest](err)
				e, _ := errors.AsType[*status.Error](err)
				if !ok || !also || retry.RetryDelay.AsDuration() != 1500*time.Millisecond || bad.FieldViolations[0].Field != "name" ||
					len(e.Details) != 2 || e.Detail != "bad" || e.ID != "greeter" {
					t.Errorf("got %v with %v, %v", err, bad, retry)
				}
			}
			_, err = client.Call[text](t.Context(), c, "greeter", "Say.Hello", wrapperspb.String("large 400 bad"), client.Address(addr))
			e, _ := errors.AsType[*status.Error](err)
			if e == nil || e.Code != status.InvalidArgument || len(e.Details) != 1 || e.Detail != "bad (1 of 2 details are left out, which are too large)" {
				t.Errorf("large details: %v", err)
			}
		})
	}
	rsp, err := newH2C(t).Post("http://"+addr+"/Say.Hello", "application/json", strings.NewReader(`"details 400 bad"`))
	must(t, err)
	defer rsp.Body.Close()
	body, _ := io.ReadAll(rsp.Body)
	want := `"detail":"bad","status":"Bad Request","details":[{"type":"google.rpc.BadRequest","value":"Cg4KBG5hbWUSBmlzIGJhZA"},` +
		`{"type":"google.rpc.RetryInfo","value":"CggIARCAyrXuAQ"}]}`
	if !strings.Contains(string(body), want) {
		t.Errorf("plain HTTP: %s, want %s", body, want)
	}
}

// TestOthersOnThePort: HTTP calls, and what is no gRPC, go on as before.
func TestOthersOnThePort(t *testing.T) {
	t.Parallel()
	addr := serve(t, beside(t, transporthttp.Options{}))
	rsp, err := newH2C(t).Post("http://"+addr+"/Say.Hello", "application/json", strings.NewReader(`"John"`))
	must(t, err)
	defer rsp.Body.Close()
	if body, _ := io.ReadAll(rsp.Body); rsp.StatusCode != http.StatusOK || string(body) != `"Hello John"` {
		t.Errorf("a plain call: %d %s", rsp.StatusCode, body)
	}
	own := serve(t, newTransport(t, grpc.Options{}))
	rsp, err = newH2C(t).Post("http://"+own+"/Say.Hello", "application/json", strings.NewReader(`"John"`))
	must(t, err)
	defer rsp.Body.Close()
	if rsp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("a plain call of a port that speaks gRPC alone: %d", rsp.StatusCode)
	}
	page, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/pkg.Say/Hello", bytes.NewReader(john))
	must(t, err)
	page.Host = "evil.example"
	page.Header.Set("Content-Type", "application/grpc")
	rsp, err = newH2C(t).Do(page)
	must(t, err)
	defer rsp.Body.Close()
	if rsp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("a foreign authority: %d", rsp.StatusCode)
	}
}

// TestNames: the longest name that there is counts, and what a .proto file cannot spell is an underscore in it.
func TestNames(t *testing.T) {
	t.Parallel()
	answer := func(what string) func(context.Context, *text) (*text, error) {
		return func(context.Context, *text) (*text, error) { return wrapperspb.String(what), nil }
	}
	addr, stop := serveMore(t, beside(t, transporthttp.Options{}), func(s *server.Server) error {
		return errors.Join(server.Handle(s, "v1.Say.Hello", answer("v1")), server.Handle(s, "hello", answer("alone")), server.Handle(s, "Odd-Name.do-it", answer("odd")))
	})
	t.Cleanup(func() { must(t, stop()) })
	c := newClient(t, newTransport(t, grpc.Options{}))
	for endpoint, want := range map[string]string{
		"greeter.v1.Say/Hello": "v1", "v1.Say/Hello": "v1", "v2.Say/Hello": "Hello x", "greeter/hello": "alone", "pkg.Odd_Name/do_it": "odd", "Odd-Name.do-it": "odd", "hello": "alone",
	} {
		rsp, err := client.Call[text](t.Context(), c, "greeter", endpoint, wrapperspb.String("x"), client.Address(addr))
		if err != nil || rsp.Value != want {
			t.Errorf("%s: %q, %v; want %q", endpoint, rsp.GetValue(), err, want)
		}
	}
}

// TestHandler: a service that is not made of endpoints is served on frames as they come.
func TestHandler(t *testing.T) {
	t.Parallel()
	g := newTransport(t, grpc.Options{Services: map[string]grpc.Handler{
		"x.y.Raw": func(ctx context.Context, c *grpc.Call) error {
			_, hasDeadline := ctx.Deadline()
			if c.Method() == "Fail" {
				return status.New(status.FailedPrecondition, "not now")
			}
			if c.Method() == "Panic" {
				panic("boom")
			}
			info, err := c.Ask(ctx, server.DebugInfo, "application/json", nil)
			if err != nil {
				return err
			}
			if err := c.Send(fmt.Append(nil, c.Method(), " ", hasDeadline, " ", c.ContentType(), " ", c.Header().Get("who"), " ",
				bytes.Contains(info, []byte("Say.Hello")), " ", c.Endpoints().Names()[0])); err != nil {
				return err
			}
			for {
				body, err := c.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := c.Send(append([]byte("got "), body...)); err != nil {
					return err
				}
			}
		},
	}})
	port, err := transporthttp.New(transporthttp.Options{Beside: []transporthttp.Beside{g}})
	must(t, err)
	addr := serve(t, port)
	c := newClient(t, newTransport(t, grpc.Options{}))
	s, err := c.Stream(t.Context(), "", "x.y.Raw/Do", client.Address(addr), client.Header("who", "me"), client.ContentType("application/octet-stream"), client.Timeout(10*time.Second))
	must(t, err)
	defer s.Close()
	first, err := s.RecvRaw()
	if err != nil || string(first) != "Do true application/octet-stream me true Debug.Health" {
		t.Fatalf("%q, %v", first, err)
	}
	for _, body := range []string{"a", "", strings.Repeat("b", 100_000)} {
		must(t, s.SendRaw([]byte(body)))
		if got, err := s.RecvRaw(); err != nil || string(got) != "got "+body {
			t.Fatalf("%.20q, %v", got, err)
		}
	}
	must(t, s.CloseSend())
	if _, err := s.RecvRaw(); !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %v", err)
	}
	for method, want := range map[string]status.Code{"Fail": status.FailedPrecondition, "Panic": status.Internal} {
		_, err := c.Do(t.Context(), &client.Request{Endpoint: "x.y.Raw/" + method, ContentType: "application/octet-stream"}, client.Address(addr))
		if status.CodeOf(err) != want {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestDrain: a service that stops answers what is under way, also streams, and its clients hear of it.
func TestDrain(t *testing.T) {
	t.Parallel()
	begun, hold := make(chan struct{}), make(chan struct{})
	addr, stop := serveMore(t, beside(t, transporthttp.Options{}), func(s *server.Server) error {
		return server.Handle(s, "Say.Slowly", func(context.Context, *text) (*text, error) {
			close(begun)
			<-hold
			return wrapperspb.String("done"), nil
		})
	})
	c := newClient(t, newTransport(t, grpc.Options{}))
	at := client.Address(addr)
	stream, err := c.Stream(t.Context(), "greeter", "Say.Chat", at)
	must(t, err)
	defer stream.Close()
	must(t, stream.Send(wrapperspb.String("a")))
	must(t, stream.Recv(new(text)))
	got := make(chan error, 1)
	go func() {
		rsp, err := client.Call[text](t.Context(), c, "greeter", "Say.Slowly", wrapperspb.String(""), at)
		if err == nil && rsp.Value != "done" {
			err = errors.New(rsp.Value)
		}
		got <- err
	}()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for { // until the port is closed
		tr, err := newTransport(t, grpc.Options{}).Dial(t.Context(), addr)
		if err != nil {
			break
		}
		tr.Close()
	}
	close(hold)
	if err := <-got; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	must(t, stream.Send(wrapperspb.String("b")))
	must(t, stream.Recv(new(text)))
	must(t, stream.CloseSend())
	if err := stream.Recv(new(text)); !errors.Is(err, io.EOF) {
		t.Errorf("the stream under way: %v", err)
	}
	must(t, <-stopped)
}

// TestCut: a stream whose handler does not end with the drain is cut off, and its client is told.
func TestCut(t *testing.T) {
	t.Parallel()
	addr, stop := serveUntil(t, beside(t, transporthttp.Options{}), server.ShutdownTimeout(50*time.Millisecond))
	c := newClient(t, newTransport(t, grpc.Options{}))
	stream, err := c.Stream(t.Context(), "greeter", "Say.Chat", client.Address(addr))
	must(t, err)
	defer stream.Close()
	must(t, stream.Send(wrapperspb.String("a")))
	must(t, stream.Recv(new(text)))
	if err := stop(); err == nil {
		t.Error("a stream that was cut off is no error of the server")
	}
	if err := stream.Recv(new(text)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a stream that was cut off: %v", err)
	}
}

// TestGoneClients: of clients whose connections break nothing is left behind.
func TestGoneClients(t *testing.T) {
	t.Parallel()
	const count = 40
	begun, ended := make(chan struct{}, count), make(chan struct{}, count)
	addr, stop := serveMore(t, beside(t, transporthttp.Options{}), func(s *server.Server) error {
		return server.HandleBidi(s, "Say.Wait", func(ctx context.Context, s *server.Stream[text, text]) error {
			defer func() { ended <- struct{}{} }()
			if _, err := s.Recv(); err != nil {
				return err
			}
			begun <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
	})
	relay := testserver.NewRelay(t, addr)
	c := newClient(t, newTransport(t, grpc.Options{}))
	var streams []*client.Stream
	for range count {
		s, err := c.Stream(t.Context(), "greeter", "Say.Wait", client.Address(relay.Addr))
		must(t, err)
		must(t, s.Send(wrapperspb.String("a")))
		streams = append(streams, s)
		<-begun
	}
	relay.Kill()
	for _, s := range streams {
		<-ended
		if err := s.Recv(new(text)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a stream whose connection broke: %v", err)
		}
		must(t, s.Close())
	}
	must(t, stop())
}

// TestManyStreams: more streams than a connection takes have further ones.
func TestManyStreams(t *testing.T) {
	t.Parallel()
	addr := serve(t, beside(t, transporthttp.Options{}))
	c := newClient(t, newTransport(t, grpc.Options{}))
	for range 300 {
		s, err := c.Stream(t.Context(), "greeter", "Say.Chat", client.Address(addr))
		must(t, err)
		t.Cleanup(func() { s.Close() })
		must(t, s.Send(wrapperspb.String("a")))
		must(t, s.Recv(new(text)))
	}
	_, err := client.Call[text](t.Context(), c, "greeter", "Say.Hello", wrapperspb.String("John"), client.Address(addr))
	must(t, err)
}

// TestNoGRPC: peers that speak something else are told apart.
func TestNoGRPC(t *testing.T) {
	t.Parallel()
	plain, err := transporthttp.New(transporthttp.Options{})
	must(t, err)
	addr := serve(t, plain)
	c := newClient(t, newTransport(t, grpc.Options{}))
	_, err = client.Call[text](t.Context(), c, "greeter", "Say.Hello", wrapperspb.String("John"), client.Address(addr), client.Attempts(1))
	if !errors.Is(err, transport.ErrProtocol) || !status.IsRefused(err) || !strings.Contains(err.Error(), "not gRPC") {
		t.Errorf("a service without gRPC: %v", err)
	}
	s, err := c.Stream(t.Context(), "greeter", "Say.Chat", client.Address(addr), client.Attempts(1))
	if err == nil { // the headers have gone out
		defer s.Close()
		_, err = s.RecvRaw()
	}
	if !errors.Is(err, transport.ErrProtocol) {
		t.Errorf("a stream to a service without gRPC: %v", err)
	}
	secure := serve(t, beside(t, transporthttp.Options{TLSConfig: testTLS(t)}))
	if _, err := newTransport(t, grpc.Options{}).Dial(t.Context(), secure); !transport.NotSent(err) {
		t.Errorf("a server that speaks TLS: %v", err)
	}
}
