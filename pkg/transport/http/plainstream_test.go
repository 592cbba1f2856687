package http_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
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

// chatHeader is that of a stream's Open.
var chatHeader = metadata.Of(transport.HeaderService, "greeter", transport.HeaderEndpoint, "Say.Chat", transport.HeaderContentType, jsonType, "user", "x")

// goMicro is a scripted server of go-micro: the end of one connection.
type goMicro struct {
	net.Conn
	in *bufio.Reader
}

// heard is what it reads.
type heard struct {
	header  nethttp.Header
	body    string
	chunked bool
}

func (g goMicro) hear() (heard, error) {
	r, err := nethttp.ReadRequest(g.in)
	if err != nil {
		return heard{}, err
	}
	body, err := io.ReadAll(r.Body)
	return heard{r.Header, string(body), len(r.TransferEncoding) > 0}, err
}

// say writes an answer with the headers, one a line, and a body.
func (g goMicro) say(lines, body string) {
	_, _ = fmt.Fprintf(g, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: application/json\r\nUser-Agent: Go-http-client/1.1\r\n%s\r\n%s", len(body), lines, body)
}

// goMicroServer runs do for each connection, and gives the address.
func goMicroServer(t *testing.T, do func(g goMicro)) string {
	t.Helper()
	return "mucp://" + rawServer(t, func(nc net.Conn) { do(goMicro{nc, bufio.NewReader(nc)}) })
}

// dialStream opens a stream, and takes the Opened.
func dialStream(t *testing.T, o http.Options, addr string) transport.Conn {
	t.Helper()
	c, err := newTransport(t, o).Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	openStream(t, c, 7)
	return c
}

func openStream(t *testing.T, c transport.Conn, id uint32) {
	t.Helper()
	if err := c.Send(t.Context(), &transport.Message{Kind: transport.Open, ID: id, Header: chatHeader}); err != nil {
		t.Fatal(err)
	}
	var m transport.Message
	if err := c.Recv(t.Context(), &m); err != nil || m.Kind != transport.Opened || m.ID != id {
		t.Fatalf("%s %d, %v, want that it is opened", m.Kind, m.ID, err)
	}
}

// TestPlainStream: the open message, and each message as a request of its own; answers that come byte by byte, several for one, and none for
// another.
func TestPlainStream(t *testing.T) {
	t.Parallel()
	all := make(chan heard, 10)
	addr := goMicroServer(t, func(g goMicro) {
		defer close(all)
		for {
			h, err := g.hear()
			if err != nil {
				return
			}
			all <- h
			if h.body == `{"n":2}` {
				const answers = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: application/json\r\nMicro-Stream: 0\r\n\r\n{\"a\":1}" +
					"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n3\r\n{\"a\r\n4\r\n\":2}\r\n0\r\n\r\n"
				for i := range len(answers) {
					_, _ = io.WriteString(g, answers[i:i+1])
				}
				g.say("Micro-Error: EOS\r\nX-Micro-Error: EOS\r\n", "")
			}
		}
	})
	c := dialStream(t, http.Options{}, addr)
	for n := range 3 {
		if err := c.Send(t.Context(), &transport.Message{Kind: transport.Data, ID: 7, Body: fmt.Appendf(nil, `{"n":%d}`, n)}); err != nil {
			t.Fatal(err)
		}
	}
	var m transport.Message
	for n := range 2 {
		if err := c.Recv(t.Context(), &m); err != nil || m.Kind != transport.Data || m.ID != 7 || string(m.Body) != fmt.Sprintf(`{"a":%d}`, n+1) ||
			m.Header.Get(transport.HeaderContentType) != jsonType || m.Header.Len() > 1 {
			t.Fatalf("%s %d %q %q, %v", m.Kind, m.ID, m.Header, m.Body, err)
		}
	}
	if err := c.Recv(t.Context(), &m); err != nil || m.Kind != transport.End || m.Header.Len() > 0 {
		t.Fatalf("%s %q, %v, want the end", m.Kind, m.Header, err)
	}
	for _, kind := range []transport.Kind{transport.Data, transport.End, transport.Cancel} {
		if err := c.Send(t.Context(), &transport.Message{Kind: kind, ID: 7}); err != nil {
			t.Errorf("a %s after the end: %v", kind, err)
		}
	}
	for _, body := range []string{"{}", `{"n":0}`, `{"n":1}`, `{"n":2}`} {
		h := <-all
		if id := h.header.Get("Micro-Stream"); h.body != body || h.chunked || id == "" || h.header.Get("Micro-Id") != id ||
			h.header.Get("Micro-Service") != "greeter" || h.header.Get("Micro-Endpoint") != "Say.Chat" || h.header.Get("Micro-Method") != "Say.Chat" ||
			h.header.Get("Content-Type") != jsonType || h.header.Get("Accept") != jsonType || h.header.Get("User") != "x" || h.header.Get("Timeout") != "" {
			t.Errorf("the server got %q %q, want %s", h.header, h.body, body)
		}
	}
	if h, more := <-all; more {
		t.Errorf("the server got %q %q after its end", h.header, h.body)
	}
}

// TestPlainStreamAnswers: what each form of answer is to a stream.
func TestPlainStreamAnswers(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, test := range []struct {
		name, answer string
		code         status.Code // of an End; 0: err
		detail       string
		err          error
	}{
		{"an error", ok + "Micro-Error: {\"id\":\"greeter\",\"code\":403,\"detail\":\"no\",\"status\":\"Forbidden\"}\r\nContent-Length: 0\r\n\r\n", 403, "no", nil},
		{"code 0", ok + "Micro-Error: {\"id\":\"greeter\",\"code\":0,\"detail\":\"no\",\"status\":\"\"}\r\nContent-Length: 0\r\n\r\n", 500, "no", nil},
		{"a text", ok + "X-Micro-Error: it is over\r\nContent-Length: 0\r\n\r\n", 500, "it is over", nil},
		{"another's", ok + "Micro-Error: {\"id\":\"go.micro.client\",\"code\":408,\"detail\":\"<nil>\"}\r\nContent-Length: 0\r\n\r\n", 408, "<nil>", nil},
		{"a content type", ok + "Content-Type: text/plain\r\nContent-Length: 39\r\n\r\nunsupported Content-Type: application/x", 415, "unsupported Content-Type: application/x", nil},
		{"a status", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nboom", 500, "boom", nil},
		{"no service", "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nnope", 0, "", transport.ErrProtocol},
		{"no HTTP", "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x00\r\n\r\n", 0, "", transport.ErrProtocol},
		{"a head without an end", ok + strings.Repeat("A: b\r\n", 20_000), 0, "", transport.ErrProtocol},
		{"a line without an end", ok + strings.Repeat("A", 100_000), 0, "", transport.ErrProtocol},
		{"a body cut off", ok + "Content-Length: 10\r\n\r\nhalf", 0, "", io.ErrUnexpectedEOF},
		{"a head cut off", ok + "Content-Le", 0, "", io.ErrUnexpectedEOF},
		{"nothing", "", 0, "", io.EOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := dialStream(t, http.Options{}, goMicroServer(t, func(g goMicro) {
				if _, err := g.hear(); err == nil {
					_, _ = io.WriteString(g, test.answer)
				}
			}))
			var m transport.Message
			err := c.Recv(t.Context(), &m)
			if test.code == 0 {
				if !errors.Is(err, test.err) {
					t.Errorf("%v, want %v", err, test.err)
				}
				if err := c.Send(t.Context(), &transport.Message{Kind: transport.Data, ID: 7}); err == nil {
					t.Error("a stream that has failed takes a message")
				}
				return
			}
			e := status.Parse(m.Header.Get(transport.HeaderError))
			if err != nil || m.Kind != transport.End || e == nil || e.Code != test.code || e.Detail != test.detail {
				t.Errorf("%s %v, %v", m.Kind, e, err)
			}
		})
	}
}

// TestPlainStreamTooLarge: a message over the limit is skipped, and the stream goes on; one that does not end in time breaks it.
func TestPlainStreamTooLarge(t *testing.T) {
	t.Parallel()
	c := dialStream(t, http.Options{MaxMessage: 1000, BodyIdle: 100 * time.Millisecond}, goMicroServer(t, func(g goMicro) {
		_, _ = g.hear()
		g.say("", strings.Repeat("x", 1001))
		g.say("", "{}")
		_, _ = io.WriteString(g, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		_, _ = g.hear() // until the client goes
	}))
	var m transport.Message
	if err := c.Recv(t.Context(), &m); !errors.Is(err, transport.ErrTooLarge) {
		t.Fatalf("%v, want ErrTooLarge", err)
	}
	if err := c.Recv(t.Context(), &m); err != nil || string(m.Body) != "{}" {
		t.Fatalf("%q, %v", m.Body, err)
	}
	if err := c.Recv(t.Context(), &m); err == nil {
		t.Fatalf("half a message is %q", m.Body)
	}
	if err := c.Send(t.Context(), &transport.Message{Kind: transport.Data, ID: 7, Body: make([]byte, 1001)}); !errors.Is(err, transport.ErrTooLarge) {
		t.Fatalf("%v, want ErrTooLarge", err)
	}
}

// TestPlainStreamLeft: how a server learns that its caller leaves, and that it keeps nobody from leaving.
func TestPlainStreamLeft(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		finished bool
		want     string
	}{{"in the middle", false, "499"}, {"after all was sent", true, "EOS"}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			last := make(chan heard, 1)
			c := dialStream(t, http.Options{}, goMicroServer(t, func(g goMicro) {
				defer close(last)
				_, _ = g.hear()
				if h, err := g.hear(); err == nil {
					last <- h
				}
				_, _ = io.Copy(io.Discard, g) // until the client goes
			}))
			ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer stop()
			var m transport.Message
			if err := c.Recv(ctx, &m); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("Recv from a silent server: %v", err)
			}
			if test.finished {
				if err := c.Send(t.Context(), &transport.Message{Kind: transport.End, ID: 7}); err != nil {
					t.Errorf("End: %v", err)
				}
			}
			if err := c.Send(t.Context(), &transport.Message{Kind: transport.Cancel, ID: 7}); err != nil {
				t.Error(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if h := <-last; !strings.Contains(h.header.Get("Micro-Error"), test.want) || h.body != "" || !h.chunked || h.header.Get("Micro-Stream") == "" {
				t.Errorf("the server got %q %q", h.header, h.body)
			}
		})
	}
}

// TestPlainStreamAskedFor: go-micro's servers do not tell how a handler ends that has seen the end of what was sent. They are asked, and what
// the stream still says counts.
func TestPlainStreamAskedFor(t *testing.T) {
	t.Parallel()
	c := dialStream(t, http.Options{}, goMicroServer(t, func(g goMicro) {
		_, _ = g.hear()
		if h, err := g.hear(); err != nil || h.header.Get("Micro-Error") != "EOS" {
			t.Errorf("after the end came %v, %v", h.header, err)
		}
		g.say("", `{"n":1}`)
		_, _ = g.hear() // while the handler still runs
		g.say("", `{"n":2}`)
		for n := range 2 {
			h, err := g.hear()
			if err != nil || h.header.Get("Micro-Stream") == "" || h.header.Get("Micro-Error") == "" || h.header.Get("Micro-Endpoint") == "Say.Chat" {
				t.Errorf("asked %v, %v", h.header, err)
			}
			g.say("Micro-Error: rpc: can't find service "+strings.TrimSuffix(h.header.Get("Micro-Endpoint"), ".Ended")+"\r\n", "")
			if n == 0 {
				g.say("", `{"n":3}`)
			}
		}
		_, _ = io.Copy(io.Discard, g)
	}))
	if err := c.Send(t.Context(), &transport.Message{Kind: transport.End, ID: 7}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`{"n":1}`, `{"n":2}`, `{"n":3}`, ""} {
		var m transport.Message
		if err := c.Recv(t.Context(), &m); err != nil || string(m.Body) != want || (m.Kind == transport.End) != (want == "") || m.Header.Get(transport.HeaderError) != "" {
			t.Fatalf("%s %q %v, %v, want %q", m.Kind, m.Body, m.Header, err, want)
		}
	}
}

// TestPlainStreamUnread: a server that reads nothing holds a sender until its context ends, and Close until then not at all.
func TestPlainStreamUnread(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	addr := goMicroServer(t, func(g goMicro) {
		_, _ = g.hear()
		<-release
	})
	big := &transport.Message{Kind: transport.Data, ID: 7, Body: make([]byte, 4<<20)}
	c := dialStream(t, http.Options{}, addr)
	ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	err := error(nil)
	for range 20 { // as much as the system's buffers take
		if err = c.Send(ctx, big); err != nil {
			break
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send: %v, want the context's end", err)
	}
	c = dialStream(t, http.Options{}, addr)
	ended := make(chan error, 1)
	go func() {
		for {
			if err := c.Send(t.Context(), big); err != nil {
				ended <- err
				return
			}
		}
	}()
	time.AfterFunc(50*time.Millisecond, func() { c.Close() })
	if err := <-ended; err == nil {
		t.Error("no error")
	}
}

// TestPlainStreamAgain: one stream at a time, and the next over a connection of its own.
func TestPlainStreamAgain(t *testing.T) {
	t.Parallel()
	c := dialStream(t, http.Options{}, goMicroServer(t, func(g goMicro) {
		_, _ = g.hear()
		if h, err := g.hear(); err == nil {
			g.say("", h.body)
			g.say("Micro-Error: EOS\r\n", "")
		}
	}))
	if err := c.Send(t.Context(), &transport.Message{Kind: transport.Open, ID: 8, Header: chatHeader}); !transport.NotSent(err) {
		t.Errorf("a second stream beside the first: %v", err)
	}
	for id := uint32(7); id < 10; id++ {
		if id > 7 {
			openStream(t, c, id)
		}
		if err := c.Send(t.Context(), &transport.Message{Kind: transport.Data, ID: id, Body: []byte(`{"a":1}`)}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []transport.Kind{transport.Data, transport.End} {
			var m transport.Message
			if err := c.Recv(t.Context(), &m); err != nil || m.Kind != want || m.ID != id {
				t.Fatalf("%s %d, %v, want %s", m.Kind, m.ID, err, want)
			}
		}
	}
	msgpack := metadata.Of(transport.HeaderEndpoint, "Say.Chat", transport.HeaderContentType, "application/msgpack")
	if err := c.Send(t.Context(), &transport.Message{Kind: transport.Open, ID: 11, Header: msgpack}); !errors.Is(err, errors.ErrUnsupported) || !transport.NotSent(err) {
		t.Errorf("a content type that go-micro has not got: %v", err)
	}
}
