package http_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// helloHeader is that of a call.
var helloHeader = metadata.Of(transport.HeaderEndpoint, "Say.Hello", transport.HeaderContentType, jsonType)

func dialCaller(t *testing.T, o http.Options, addr string) transport.Caller {
	t.Helper()
	c, err := newTransport(t, o).Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(transport.Caller)
}

// TestPlainOneByOne: a connection carries one call at a time; from the second on those of a server that does not tell them apart by Micro-Id
// have each a number of their own; and its echo of the first one's headers is nobody's metadata.
func TestPlainOneByOne(t *testing.T) {
	t.Parallel()
	for name, numbered := range map[string]bool{"up to v3": true, "from v4 on": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int32
			addr := goMicroServer(t, func(g goMicro) {
				conns.Add(1)
				numbers := map[string]bool{}
				echo := ""
				for n := 0; ; n++ {
					h, err := g.hear()
					if err != nil {
						return
					}
					if n == 0 {
						echo = "Secret: " + h.header.Get("Secret") + "\r\n"
					}
					number := h.header.Get("Micro-Stream")
					if numbered && number != "" || !numbered && n > 0 && (number == "" || numbers[number]) {
						t.Errorf("call %d has the number %q", n, number)
					}
					numbers[number] = true
					time.Sleep(time.Millisecond)
					if g.in.Buffered() > 0 {
						t.Error("a call came before the answer to the one before it")
					}
					if numbered {
						echo += "X-Micro-Id: " + h.header.Get("Micro-Id") + "\r\n"
					}
					g.say(echo, h.body)
				}
			})
			caller := dialCaller(t, http.Options{}, addr)
			var work sync.WaitGroup
			for i := range 8 {
				work.Go(func() {
					for j := range 20 {
						body := fmt.Sprintf(`{"n":%d.%d}`, i, j)
						header, _ := helloHeader.Set("secret", body)
						var rsp transport.Message
						if err := caller.Call(t.Context(), &transport.Message{Header: header, Body: []byte(body)}, &rsp); err != nil ||
							string(rsp.Body) != body || rsp.Header.Get("secret") != "" {
							t.Errorf("%q %q, %v, want %s", rsp.Header, rsp.Body, err, body)
						}
					}
				})
			}
			work.Wait()
			if n := conns.Load(); n > 20 {
				t.Errorf("160 calls, 8 at a time, took %d connections", n)
			}
		})
	}
}

// TestPlainDeadConnection: a call goes over a new connection where the server has closed the one that waited, and is not sent again where the
// server may have read it.
func TestPlainDeadConnection(t *testing.T) {
	t.Parallel()
	calls, left := make(chan string, 10), make(chan struct{}, 10)
	addr := goMicroServer(t, func(g goMicro) {
		h, err := g.hear()
		if err != nil {
			return
		}
		calls <- h.body
		if h.body != `"lost"` {
			g.say("", "{}")
		}
		g.Close()
		left <- struct{}{}
	})
	caller := dialCaller(t, http.Options{}, addr)
	var rsp transport.Message
	for _, body := range []string{`"a"`, `"b"`} {
		if err := caller.Call(t.Context(), &transport.Message{Header: helloHeader, Body: []byte(body)}, &rsp); err != nil {
			t.Fatal(err)
		}
		if got := <-calls; got != body {
			t.Errorf("the server got %s, want %s", got, body)
		}
		<-left // it has closed the connection, which the client may not have looked at
	}
	if err := caller.Call(t.Context(), &transport.Message{Header: helloHeader, Body: []byte(`"lost"`)}, &rsp); err == nil || transport.NotSent(err) {
		t.Errorf("a call that the server has read: %v", err)
	}
	if len(calls) != 1 {
		t.Errorf("it was sent %d times", len(calls))
	}
}

// TestPlainLimits: what no server may do to a call.
func TestPlainLimits(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"a head without an end": "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 20_000),
		"a line without an end": "HTTP/1.1 200 OK\r\n" + strings.Repeat("A", 100_000),
		"a body over the limit": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("a\r\n0123456789\r\n", 200),
		"silence":               "",
		"half a head":           "HTTP/1.1 200 OK\r\n",
		"half a body":           "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := "mucp://" + rawServer(t, func(nc net.Conn) {
				if _, err := (goMicro{nc, bufio.NewReader(nc)}).hear(); err == nil {
					_, _ = io.WriteString(nc, answer)
					_, _ = io.Copy(io.Discard, nc) // until the client goes
				}
			})
			caller := dialCaller(t, http.Options{MaxMessage: 1000}, addr)
			begun := time.Now()
			var rsp transport.Message
			err := caller.Call(t.Context(), &transport.Message{Header: helloHeader, Timeout: 300 * time.Millisecond}, &rsp)
			if err == nil || transport.NotSent(err) || time.Since(begun) > 5*time.Second {
				t.Errorf("%v after %v", err, time.Since(begun))
			}
		})
	}
}

// TestPlainTypes: content types go as go-micro compares them, and those that it has not got do not go at all.
func TestPlainTypes(t *testing.T) {
	t.Parallel()
	addr := goMicroServer(t, func(g goMicro) {
		for {
			h, err := g.hear()
			if err != nil {
				return
			}
			if ct := h.header.Get("Content-Type"); ct != "application/json" {
				const body = "unsupported Content-Type: application/bson"
				_, _ = fmt.Fprintf(g, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%s", len(body), body)
				continue
			}
			g.say("", h.body)
		}
	})
	var rsp transport.Message
	call := func(c transport.Caller, contentType string) error {
		return c.Call(t.Context(), &transport.Message{Header: metadata.Of(transport.HeaderEndpoint, "Say.Hello", transport.HeaderContentType, contentType)}, &rsp)
	}
	known := dialCaller(t, http.Options{}, addr)
	if err := call(known, "application/json; charset=utf-8"); err != nil || rsp.Header.Get(transport.HeaderError) != "" {
		t.Errorf("with a parameter: %q, %v", rsp.Header, err)
	}
	if err := call(known, "application/bson"); !errors.Is(err, errors.ErrUnsupported) || !transport.NotSent(err) {
		t.Errorf("one that go-micro has not got: %v", err)
	}
	guessed := dialCaller(t, http.Options{Plain: true}, strings.TrimPrefix(addr, "mucp://"))
	err := call(guessed, "application/bson")
	if e := status.Parse(rsp.Header.Get(transport.HeaderError)); err != nil || e == nil || e.Code != status.UnsupportedMedia || !e.Refused {
		t.Errorf("a server that has it not: %v, %v", e, err)
	}
}
