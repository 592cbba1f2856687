package http_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// TestPlainClient: a peer that knows no upgrade is called in plain HTTP.
func TestPlainClient(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{}, nil)
	for _, test := range []struct {
		name, suffix string
		o            http.Options
	}{{"by option", "", http.Options{Plain: true}}, {"by address", http.PlainSuffix, http.Options{}}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, err := newTransport(t, test.o).Dial(t.Context(), s.Addr()+test.suffix)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			caller, ok := c.(transport.Caller)
			if !ok {
				t.Fatal("no Caller")
			}
			var rsp transport.Message
			req := &transport.Message{Timeout: time.Second, Body: []byte("hi"),
				Header: metadata.Of(transport.HeaderEndpoint, "Say.Hello", transport.HeaderContentType, jsonType, "user", "x")}
			for range 3 {
				if err := caller.Call(t.Context(), req, &rsp); err != nil {
					t.Fatal(err)
				}
				timeout, err := time.ParseDuration(rsp.Header.Get("got-timeout"))
				if err != nil || timeout > time.Second || timeout < time.Second/2 {
					t.Fatalf("the server was told of a timeout of %s, %v, want a second less what has passed", timeout, err)
				}
				if string(rsp.Body) != "hi" || rsp.Header.Get("got-user") != "x" ||
					rsp.Header.Get(transport.HeaderContentType) != jsonType || rsp.Header.Get(transport.HeaderError) != "" {
					t.Fatalf("answer %q %q", rsp.Header, rsp.Body)
				}
			}
			req.Body = []byte("fail")
			if err := caller.Call(t.Context(), req, &rsp); err != nil {
				t.Fatal(err)
			}
			if e := status.Parse(rsp.Header.Get(transport.HeaderError)); e == nil || e.Code != 409 || e.ID != "echo" {
				t.Fatalf("error %v", e)
			}
			if err := c.Send(t.Context(), &transport.Message{Kind: transport.Ping}); !transport.NotSent(err) {
				t.Fatalf("Send of a Ping: %v", err)
			}
			c.Close()
			if err := caller.Call(t.Context(), req, &rsp); !errors.Is(err, transport.ErrClosed) || !transport.NotSent(err) {
				t.Fatalf("Call after Close: %v", err)
			}
			if err := c.Send(t.Context(), &transport.Message{Kind: transport.Open, ID: 1}); !errors.Is(err, transport.ErrClosed) || !transport.NotSent(err) {
				t.Fatalf("Send after Close: %v", err)
			}
			if err := c.Recv(t.Context(), &rsp); !errors.Is(err, transport.ErrClosed) {
				t.Fatalf("Recv after Close: %v", err)
			}
		})
	}
}

// TestPlainPeers: Dial of those that answer the upgrade in plain HTTP, and what calls to them give.
func TestPlainPeers(t *testing.T) {
	t.Parallel()
	const empty = "Content-Length: 0\r\n\r\n"
	for _, test := range []struct {
		name, answer string
		check        func(t *testing.T, rsp *transport.Message, err error)
	}{
		{"go-micro", "HTTP/1.1 200 OK\r\nMicro-Id: 0\r\nContent-Type: application/json\r\nMicro-Version: 1\r\nContent-Length: 2\r\n\r\n{}",
			func(t *testing.T, rsp *transport.Message, err error) {
				if err != nil || string(rsp.Body) != "{}" || rsp.Header.Get(transport.HeaderContentType) != jsonType {
					t.Fatalf("%v, %q %q", err, rsp.Header, rsp.Body)
				}
			}},
		{"go-micro's error", "HTTP/1.1 200 OK\r\nMicro-Error: {\"id\":\"greeter\",\"code\":404,\"detail\":\"x\",\"status\":\"Not Found\"}\r\n" + empty,
			func(t *testing.T, rsp *transport.Message, err error) {
				if e := status.Parse(rsp.Header.Get(transport.HeaderError)); err != nil || e == nil || e.Code != 404 {
					t.Fatalf("%v, %v", err, e)
				}
			}},
		{"go-micro's bare text", "HTTP/1.1 200 OK\r\nMicro-Error: rpc: can't find service Nope\r\n" + empty,
			func(t *testing.T, rsp *transport.Message, err error) {
				if e := status.Parse(rsp.Header.Get(transport.HeaderError)); err != nil || e == nil || e.Detail != "rpc: can't find service Nope" {
					t.Fatalf("%v, %v", err, e)
				}
			}},
		{"an error longer than metadata holds", "HTTP/1.1 200 OK\r\nMicro-Error: {\"id\":\"g\",\"code\":403,\"detail\":\"" + strings.Repeat("d", 9000) + "\"}\r\n" + empty,
			func(t *testing.T, rsp *transport.Message, err error) {
				if e := status.Parse(rsp.Header.Get(transport.HeaderError)); err != nil || e == nil || e.Code != 403 || e.ID != "g" {
					t.Fatalf("%v, %v", err, e)
				}
			}},
		{"a JSON error by status", "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 56\r\n\r\n" + `{"id":"x","code":403,"detail":"no","status":"Forbidden"}`,
			func(t *testing.T, rsp *transport.Message, err error) {
				if e := status.Parse(rsp.Header.Get(transport.HeaderError)); err != nil || e == nil || e.Code != 403 {
					t.Fatalf("%v, %v", err, e)
				}
			}},
		{"another program", "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nnope",
			func(t *testing.T, _ *transport.Message, err error) {
				if !errors.Is(err, transport.ErrProtocol) {
					t.Fatalf("%v, want ErrProtocol", err)
				}
			}},
		{"a redirect", "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n" + empty,
			func(t *testing.T, _ *transport.Message, err error) {
				if !errors.Is(err, transport.ErrProtocol) {
					t.Fatalf("%v, want ErrProtocol", err)
				}
			}},
		{"a cut-off reply", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
			func(t *testing.T, _ *transport.Message, err error) {
				if !errors.Is(err, io.ErrUnexpectedEOF) || transport.NotSent(err) {
					t.Fatalf("%v, want io.ErrUnexpectedEOF", err)
				}
			}},
		{"a reply over the limit", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
			func(t *testing.T, _ *transport.Message, err error) {
				if !errors.Is(err, transport.ErrTooLarge) {
					t.Fatalf("%v, want ErrTooLarge", err)
				}
			}},
		{"no end of the reply", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("400\r\n"+strings.Repeat("x", 1024)+"\r\n", 20),
			func(t *testing.T, _ *transport.Message, err error) {
				if !errors.Is(err, transport.ErrTooLarge) {
					t.Fatalf("%v, want ErrTooLarge", err)
				}
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			addr := rawServer(t, func(nc net.Conn) {
				r, err := nethttp.ReadRequest(bufio.NewReader(nc))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(nc, test.answer)
			})
			c, err := newTransport(t, http.Options{MaxMessage: 10_000}).Dial(t.Context(), addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var rsp transport.Message
			err = c.(transport.Caller).Call(t.Context(), &transport.Message{Header: metadata.Of(transport.HeaderContentType, jsonType)}, &rsp)
			test.check(t, &rsp, err)
		})
	}
}

// TestPlainContext: a plain call ends with its context, and one that found nobody was not sent.
func TestPlainContext(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{}, func(ctx context.Context, _ string, _, _ *transport.Message) { <-ctx.Done() })
	c, err := newTransport(t, http.Options{Plain: true}).Dial(t.Context(), s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	var rsp transport.Message
	req := &transport.Message{Header: metadata.Of(transport.HeaderContentType, jsonType, transport.HeaderEndpoint, "Say.Hello")}
	if err := c.(transport.Caller).Call(ctx, req, &rsp); !errors.Is(err, context.DeadlineExceeded) || transport.NotSent(err) {
		t.Fatalf("Call: %v, want the context's error and not ErrNotSent", err)
	}
	s.Close()
	if err := c.(transport.Caller).Call(t.Context(), req, &rsp); !transport.NotSent(err) {
		t.Fatalf("Call to nobody: %v, want ErrNotSent", err)
	}
}
