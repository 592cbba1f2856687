package http_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	services "github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// goMicroClient is a connection on which go-micro's messages are written and read by hand.
type goMicroClient struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func dialGoMicro(t *testing.T, address string) *goMicroClient {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &goMicroClient{t, nc, bufio.NewReader(nc)}
}

func (c *goMicroClient) send(messages ...string) {
	c.t.Helper()
	if _, err := io.WriteString(c, strings.Join(messages, "")); err != nil {
		c.t.Fatal(err)
	}
}

// recv gives the next answer.
func (c *goMicroClient) recv() message {
	c.t.Helper()
	m, err := readMessage(c.in, false)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// ended fails unless the server closes the connection now.
func (c *goMicroClient) ended() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.in); len(rest) > 0 || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		c.t.Errorf("the connection goes on: %q, %v", rest, err)
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// TestPipelinedCalls: several calls are sent before the first answer; each is answered when it is ready, by its number, and a slow one holds up none.
func TestPipelinedCalls(t *testing.T) {
	t.Parallel()
	c := dialGoMicro(t, greeter(t, "us", http.Options{}, nil))
	const calls = 250 // more than are under way at a time
	list := []string{goMicroCall("Say.Fail", `{"name":"slow","count":300}`, "Micro-Id", "0")}
	for i := range calls {
		list = append(list, goMicroCall("Say.Hello", fmt.Sprintf(`{"name":"%d"}`, i+1), "Micro-Id", fmt.Sprint(i+1)))
	}
	c.send(list...)
	seen := map[string]bool{}
	for range calls {
		m := c.recv()
		id := m.header.Get("Micro-Id")
		if want := fmt.Sprintf(`{"msg":"Hello %s from us"}`, id); string(m.body) != want || seen[id] || m.header.Get("X-Micro-Id") != id {
			t.Fatalf("%s was answered with %q, %v", id, m.body, m.header)
		}
		seen[id] = true
	}
	if m := c.recv(); m.header.Get("Micro-Id") != "0" || !strings.Contains(string(m.body), "slow") {
		t.Fatalf("the slow call was answered with %q, %v", m.body, m.header)
	}
}

// countedConn counts the writes to a connection.
type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

type countedListener struct {
	net.Listener
	writes atomic.Int64
}

func (l *countedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{nc, &l.writes}, nil
}

// TestOneWrite: an answer leaves in one write, whatever its size, as do a stream's messages.
func TestOneWrite(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	counted := &countedListener{Listener: ln}
	l, err := newTransport(t, http.Options{}).Serve(counted)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: l.(*http.Listener), failed: make(chan error, 100)}
	s.ServeCalls(echoPlain)
	s.start(t)
	c := dialGoMicro(t, ln.Addr().String())
	for i, size := range []int{0, 100, 5000, 1 << 20} {
		body := strings.Repeat("x", size)
		c.send(goMicroCall("Say.Hello", body, "Micro-Id", fmt.Sprint(i)))
		if m := c.recv(); string(m.body) != body {
			t.Fatalf("%d bytes were answered with %d", size, len(m.body))
		}
		if n := counted.writes.Swap(0); n != 1 {
			t.Errorf("an answer of %d bytes left in %d writes", size, n)
		}
	}
}

// TestGoMicroForms: the forms that go-micro's clients of all versions give to their requests, and what else their servers take.
func TestGoMicroForms(t *testing.T) {
	t.Parallel()
	events := make(chan string, 10)
	address := greeter(t, "us", http.Options{}, func(s *services.Server) {
		err := s.Subscribe("greeter.events", func(_ context.Context, c *services.Call) error {
			name, _, err := receive(c)
			if name == "bad" {
				return status.New(status.InvalidArgument, "a bad event")
			}
			events <- name
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	const hello = `{"name":"x"}`
	const answer = `{"msg":"Hello x from us"}`
	raw := func(start, headers, body string) string {
		return start + " HTTP/1.1\r\nHost: localhost\r\n" + headers + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	for name, tt := range map[string]struct{ request, contentType, body, failure string }{
		"a charset":                   {goMicroCall("Say.Hello", hello, "Micro-Id", "1", "Content-Type", "application/json; charset=utf-8"), "application/json", answer, ""},
		"older names":                 {raw("POST /", "X-Micro-Id: 1\r\nX-Micro-Service: greeter\r\nX-Micro-Endpoint: Say.Hello\r\nContent-Type: application/json\r\n", hello), "application/json", answer, ""},
		"Micro-Method":                {raw("POST /", "Micro-Id: 1\r\nMicro-Service: greeter\r\nMicro-Method: Say.Hello\r\nContent-Type: application/json\r\n", hello), "application/json", answer, ""},
		"lower case":                  {raw("POST /", "micro-id: 1\r\nmicro-service: greeter\r\nmicro-endpoint: Say.Hello\r\ncontent-type: application/json\r\n", hello), "application/json", answer, ""},
		"no type":                     {raw("POST /", "Micro-Id: 1\r\nMicro-Endpoint: Say.Hello\r\n", "\n\x01x"), "application/protobuf", "\n\x0fHello x from us", ""},
		"no body":                     {goMicroCall("Say.Hello", "", "Micro-Id", "1"), "application/json", `{"msg":"Hello  from us"}`, ""},
		"chunked":                     {goMicroCall("Say.Hello", "0\r\n\r\n", "Micro-Id", "1", "Transfer-Encoding", "chunked"), "application/json", `{"msg":"Hello  from us"}`, ""},
		"chunks":                      {goMicroCall("Say.Hello", "5\r\n{\"nam\r\n7\r\ne\":\"x\"}\r\n0\r\n\r\n", "Micro-Id", "1", "Transfer-Encoding", "chunked"), "application/json", answer, ""},
		"GET":                         {raw("GET /", "Micro-Id: 1\r\nMicro-Endpoint: Say.Hello\r\nContent-Type: application/json\r\n", ""), "application/json", `{"msg":"Hello  from us"}`, ""},
		"a stream that is a call":     {goMicroCall("Say.Hello", hello, "Micro-Id", "1", "Micro-Stream", "1"), "application/json", answer, ""},
		"time that is over":           {goMicroCall("Say.Fail", `{"name":"slow","count":5000}`, "Micro-Id", "1", "Timeout", "50000000"), "", "", "408"},
		"a type that is not spoken":   {goMicroCall("Say.Hello", hello, "Micro-Id", "1", "Content-Type", "application/x-foo"), "", "", "415"},
		"a body that does not decode": {goMicroCall("Say.Hello", "{bad", "Micro-Id", "1"), "", "", "400"},
		"another service":             {strings.Replace(goMicroCall("Say.Hello", hello, "Micro-Id", "1"), "Micro-Service: greeter", "Micro-Service: other", 1), "", "", "421"},
		"an event":                    {goMicroCall("", `{"name":"event"}`, "Micro-Id", "1", "Micro-Topic", "greeter.events"), "application/octet-stream", "", ""},
		"an event's error":            {goMicroCall("", `{"name":"bad"}`, "Micro-Id", "1", "Micro-Topic", "greeter.events"), "", "", "400"},
		"nobody's event":              {goMicroCall("", `{}`, "Micro-Id", "1", "Micro-Topic", "nobody"), "", "", "404"},
		"health":                      {goMicroCall("Debug.Health", `{"service":"greeter"}`, "Micro-Id", "1"), "application/json", `{"status":"ok"}`, ""},
		"health, protobuf":            {goMicroCall("Debug.Health", "\n\x07greeter", "Micro-Id", "1", "Content-Type", "application/protobuf"), "application/protobuf", "\n\x02ok", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dialGoMicro(t, address)
			for range 2 { // first from net/http, and then without it
				c.send(tt.request)
				m := c.recv()
				e := status.Parse(m.header.Get("Micro-Error"))
				if tt.failure != "" {
					if e == nil || fmt.Sprint(int(e.Code)) != tt.failure || len(m.body) > 0 || m.header.Get("Micro-Id") != "1" {
						t.Fatalf("answered %v, %q, %v, want %s", e, m.body, m.header, tt.failure)
					}
					continue
				}
				if e != nil || string(m.body) != tt.body || m.header.Get("Content-Type") != tt.contentType {
					t.Fatalf("answered %v, %q, %v, want %q as %s", e, m.body, m.header, tt.body, tt.contentType)
				}
			}
		})
	}
	t.Cleanup(func() {
		if len(events) != 2 {
			t.Errorf("%d events were handled, want 2", len(events))
		}
	})
}

// TestLegacyFormats: a request without one of go-micro's headers is in an RPC format, whatever its type says of it.
func TestLegacyFormats(t *testing.T) {
	t.Parallel()
	address := greeter(t, "us", http.Options{}, nil)
	for name, tt := range map[string]struct{ contentType, body, want string }{
		"JSON-RPC 1.0":       {"application/json", `{"id":7,"method":"Say.Hello","params":[{"name":"x"}]}`, `{"id":7,"result":{"msg":"Hello x from us"},"error":null}`},
		"JSON-RPC, an error": {"application/json", `{"id":"7","method":"Say.Nope","params":[{}]}`, `no endpoint`},
		"PROTO-RPC":          {"application/protobuf", "\x00\x00\x00\x0b\n\x09Say.Hello\x00\x00\x00\x03\n\x01x", "\n\x0fHello x from us"},
		"PROTO-RPC, bytes":   {"application/octet-stream", "\x00\x00\x00\x0b\n\x09Say.Hello\x00\x00\x00\x03\n\x01x", "\n\x0fHello x from us"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rsp, body := post(t, client(t, false), "http://"+address+"/", tt.body, "Content-Type", tt.contentType)
			if rsp.StatusCode != nethttp.StatusOK || !strings.Contains(body, tt.want) || rsp.Header.Get("Content-Type") != tt.contentType {
				t.Errorf("answered %s, %q, %v", rsp.Status, body, rsp.Header)
			}
		})
	}
}

// TestGoMicroOverHTTP2: an answer over HTTP/2 is whole.
func TestGoMicroOverHTTP2(t *testing.T) {
	t.Parallel()
	address := greeter(t, "us", http.Options{}, nil)
	name := strings.Repeat("x", 100_000)
	rsp, body := post(t, client(t, true), "http://"+address+"/", `{"name":"`+name+`"}`, "Content-Type", "application/json", "Micro-Id", "1",
		"Micro-Service", "greeter", "Micro-Endpoint", "Say.Hello")
	if rsp.ProtoMajor != 2 || rsp.StatusCode != nethttp.StatusOK || body != `{"msg":"Hello `+name+` from us"}` || rsp.Header.Get("Micro-Id") != "1" {
		t.Errorf("answered %s %s, %d bytes, %v", rsp.Proto, rsp.Status, len(body), rsp.Header)
	}
}

// TestStreamsOfAConnection: streams and calls of one connection do not get into each other's way, and what a client says of a stream's end
// reaches its handler.
func TestStreamsOfAConnection(t *testing.T) {
	t.Parallel()
	heard := make(chan error, 10)
	address := greeter(t, "us", http.Options{}, func(s *services.Server) {
		err := s.Handle(services.Endpoint{Name: "Say.Hear", Kind: services.Bidi}, func(_ context.Context, c *services.Call) error {
			err := send(c, "here", 0)
			for err == nil {
				_, _, err = receive(c)
			}
			heard <- err
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	c := dialGoMicro(t, address)
	of := func(stream, endpoint, body string, headers ...string) string {
		return goMicroCall(endpoint, body, append([]string{"Micro-Id", stream, "Micro-Stream", stream}, headers...)...)
	}
	eos := []string{"Micro-Error", "EOS", "Transfer-Encoding", "chunked"}
	c.send(of("1", "Say.Stream", `{}`), of("2", "Say.Stream", `{}`), of("2", "Say.Stream", `{"name":"b"}`))
	if m := c.recv(); m.header.Get("Micro-Stream") != "2" || string(m.body) != `{"msg":"echo b"}` {
		t.Fatalf("%v %q", m.header, m.body)
	}
	c.send(goMicroCall("Say.Hello", `{"name":"x"}`, "Micro-Id", "9"), of("1", "Say.Stream", `{"name":"a"}`))
	got := map[string]string{}
	for range 2 {
		m := c.recv()
		got[m.header.Get("Micro-Id")] = string(m.body)
	}
	if got["9"] != `{"msg":"Hello x from us"}` || got["1"] != `{"msg":"echo a"}` {
		t.Fatalf("a call and a message: %v", got)
	}
	c.send(of("2", "Say.Stream", `{"name":"finish"}`))
	if m := c.recv(); m.header.Get("Micro-Stream") != "2" || m.header.Get("Micro-Error") != "EOS" {
		t.Fatalf("the end: %v", m.header)
	}
	// The client's own end comes late, and once more for a stream that nobody knows.
	c.send(of("2", "Say.Stream", "0\r\n\r\n", eos...), of("2", "Say.Stream", "0\r\n\r\n", eos...))
	// The number is free again.
	c.send(of("2", "Say.ServerStream", `{}`), of("2", "Say.ServerStream", `{"name":"n","count":2}`))
	for _, want := range []string{`{"msg":"item n","seq":"1"}`, `{"msg":"item n","seq":"2"}`, ""} {
		if m := c.recv(); strings.ReplaceAll(string(m.body), `, "`, `,"`) != want || m.header.Get("Micro-Stream") != "2" {
			t.Fatalf("%v %q, want %q", m.header, m.body, want)
		}
	}
	// A client's own error, and its end.
	c.send(of("3", "Say.Hear", `{}`))
	c.recv()
	c.send(of("3", "Say.Hear", "", "Micro-Error", `{"id":"c","code":409,"detail":"given up","status":"Conflict"}`))
	if e := status.FromError(within(t, heard)); e.Code != 409 || e.Detail != "given up" {
		t.Errorf("the handler heard %v", e)
	}
	c.recv()
	c.send(of("4", "Say.Hear", `{}`))
	c.recv()
	c.send(of("4", "Say.Hear", "0\r\n\r\n", eos...))
	if err := within(t, heard); !errors.Is(err, io.EOF) {
		t.Errorf("the handler heard %v", err)
	}
	c.recv()
	c.send(of("5", "Say.Hear", `{}`))
	c.recv()
	c.Close()
	if e := status.FromError(within(t, heard)); e.Code != status.Canceled {
		t.Errorf("the handler heard %v", e)
	}
}

// within gives what comes, in the time that a test has.
func within[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
	}
	return v
}

// TestStreamWithoutANumber: a stream of a client that does not say that it streams has the connection's messages with its number.
func TestStreamWithoutANumber(t *testing.T) {
	t.Parallel()
	c := dialGoMicro(t, greeter(t, "us", http.Options{}, nil))
	c.send(goMicroCall("Say.Stream", `{}`, "Micro-Id", "3"), goMicroCall("Say.Stream", `{"name":"a"}`, "Micro-Id", "3"))
	if m := c.recv(); string(m.body) != `{"msg":"echo a"}` {
		t.Errorf("%v %q", m.header, m.body)
	}
}

// TestLastWords: what a client has sent before its end is worked off, though it closes the connection at once.
func TestLastWords(t *testing.T) {
	t.Parallel()
	sum := make(chan int64, 1)
	address := greeter(t, "us", http.Options{}, func(s *services.Server) {
		err := s.Handle(services.Endpoint{Name: "Say.Add", Kind: services.Bidi}, func(_ context.Context, c *services.Call) error {
			var total int64
			for {
				_, n, err := receive(c)
				if err != nil {
					sum <- total
					return err
				}
				total += n
				time.Sleep(time.Millisecond)
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
	c := dialGoMicro(t, address)
	list := []string{goMicroCall("Say.Add", `{}`, "Micro-Id", "0", "Micro-Stream", "0")}
	for range 100 {
		list = append(list, goMicroCall("Say.Add", `{"count":1}`, "Micro-Id", "0", "Micro-Stream", "0"))
	}
	c.send(append(list, goMicroCall("Say.Add", "0\r\n\r\n", "Micro-Id", "0", "Micro-Stream", "0", "Micro-Error", "EOS", "Transfer-Encoding", "chunked"))...)
	c.Close()
	if got := within(t, sum); got != 100 {
		t.Errorf("%d messages were received, want 100", got)
	}
}

// TestSharedConnection: a connection on which go-micro's messages came serves whatever else comes, as that of a proxy may.
func TestSharedConnection(t *testing.T) {
	t.Parallel()
	s := listening(t, http.Options{}, echoPlain)
	s.HandleHTTP(func(r *nethttp.Request) bool { return r.URL.Path == "/mounted" }, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		_, _ = io.WriteString(w, "mounted")
	}))
	s.start(t)
	c := dialGoMicro(t, s.Addr())
	for range 3 {
		c.send(goMicroCall("Say.Hello", `{}`, "Micro-Id", "1"), "GET /mounted HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"POST /Say.Hello HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nmore")
		for _, want := range []string{"{}", "mounted", "more"} {
			if m := c.recv(); string(m.body) != want {
				t.Fatalf("answered %q, want %q", m.body, want)
			}
		}
	}
	c.send("OPTIONS / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: micro\r\nMicro-Version: 1\r\nContent-Length: 0\r\n\r\n")
	if line, err := c.in.ReadString('\n'); err != nil || !strings.Contains(line, "101") {
		t.Errorf("the upgrade was answered with %q, %v", line, err)
	}
}

// TestGoMicroSmuggling: what somebody on the way may have taken for a part of another message is not run.
func TestGoMicroSmuggling(t *testing.T) {
	t.Parallel()
	address := greeter(t, "us", http.Options{}, func(s *services.Server) {
		_ = services.Handle(s, "Evil.Call", func(context.Context, *struct{}) (*struct{}, error) {
			t.Error("a hidden request was run")
			return nil, nil //nolint:nilnil // it is not to be called
		})
	})
	evil := goMicroCall("Evil.Call", "", "Micro-Id", "7")
	two := goMicroCall("Say.Hello", "0\r\n\r\n", "Micro-Id", "2", "Content-Length", "5", "Transfer-Encoding", "chunked")
	hello := goMicroCall("Say.Hello", "{}", "Micro-Id", "1")
	for name, request := range map[string]string{
		"first":            two + evil,
		"later":            hello + two + evil,
		"behind another":   "POST /Say.Hello HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}" + two + evil,
		"two hosts":        hello + strings.Replace(hello, "Host: localhost", "Host: localhost\r\nHost: other", 1) + evil,
		"a foreign host":   hello + strings.Replace(goMicroCall("Evil.Call", "", "Micro-Id", "7"), "Host: localhost", "Host: evil.example", 1),
		"a foreign origin": hello + goMicroCall("Evil.Call", "", "Micro-Id", "7", "Origin", "https://evil.example"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dialGoMicro(t, address)
			c.send(request)
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			_, _ = io.ReadAll(c)
		})
	}
}

// TestGoMicroLimits: a peer that sends without end, or does not go on, loses its connection in time.
func TestGoMicroLimits(t *testing.T) {
	t.Parallel()
	address := greeter(t, "us", http.Options{MaxMessage: 1000, MaxHeader: 4096, HeaderTimeout: 200 * time.Millisecond, BodyIdle: 200 * time.Millisecond,
		BodyTimeout: 400 * time.Millisecond, IdleTimeout: 300 * time.Millisecond}, nil)
	stream := func(body string, headers ...string) string {
		return goMicroCall("Say.Stream", body, append([]string{"Micro-Id", "1", "Micro-Stream", "1"}, headers...)...)
	}
	hello := goMicroCall("Say.Hello", "{}", "Micro-Id", "1")
	large := strings.Repeat("x", 1500)
	for _, tt := range []struct{ name, send, drip, want string }{
		{"nothing more", hello, "", `"msg"`},
		{"half a head", hello + "POST / HT", "", `"msg"`},
		{"headers without end", hello + "POST / HTTP/1.1\r\nHost: localhost\r\n", "X-A: " + strings.Repeat("b", 200) + "\r\n", "431"},
		{"a head that drips", hello + "POST / HTTP/1.1\r\nHost: localhost\r\n", "X: y\r\n", `"msg"`},
		{"half a body", hello + strings.TrimSuffix(hello, "}"), "", `"msg"`},
		{"a body that drips", hello + goMicroCall("Say.Hello", "", "Micro-Id", "2", "Content-Length", "900") + "{", " ", `"msg"`},
		{"no HTTP", hello + "\x16\x03\x01\r\n\r\n", "", "400"},
		{"a stream's half message", stream("{}") + stream("{}")[:100], "", ""},
		{"a body over the limit", hello + goMicroCall("Say.Hello", large, "Micro-Id", "2") + hello, "", `"code":413`},
		{"a stream's message over the limit", stream("{}") + stream(large), "", `"code":413`},
		{"chunks without end", hello + goMicroCall("Say.Hello", "", "Micro-Id", "2", "Transfer-Encoding", "chunked"), "40\r\n" + strings.Repeat("x", 64) + "\r\n", `"code":413`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dialGoMicro(t, address)
			c.send(tt.send)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for tt.drip != "" {
					if _, err := io.WriteString(c, tt.drip); err != nil {
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			}()
			start := time.Now()
			got, _ := io.ReadAll(c)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("was held for %s", took)
			}
			if !strings.Contains(string(got), tt.want) {
				t.Errorf("answered %q, want %q in it", got, tt.want)
			}
			c.Close()
			<-done
		})
	}
}

// TestManyStreams: one who opens streams without end gets as many as may be, and the others are refused unrun; nothing stays behind.
func TestManyStreams(t *testing.T) {
	address := greeter(t, "us", http.Options{}, nil)
	before := runtime.NumGoroutine()
	c := dialGoMicro(t, address)
	var refused atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			m, err := readMessage(c.in, false)
			if err != nil {
				return
			}
			var e struct {
				Code    int
				Refused bool
			}
			if json.Unmarshal([]byte(m.header.Get("Micro-Error")), &e) == nil && e.Code == 429 && e.Refused {
				refused.Add(1)
			}
		}
	})
	for i := range 2000 {
		c.send(goMicroCall("Say.Stream", "{}", "Micro-Id", fmt.Sprint(i), "Micro-Stream", fmt.Sprint(i)))
	}
	until(t, func() bool { return refused.Load() == 1900 })
	if n := runtime.NumGoroutine() - before; n > 1000 {
		t.Errorf("%d goroutines", n)
	}
	c.Close()
	wg.Wait()
	until(t, func() bool { return runtime.NumGoroutine() < before+20 })
}

// until waits for a condition.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to it")
		}
	}
}

// TestGoMicroShutdown: a shutdown waits for the calls and streams of go-micro's clients, and closes their connections.
func TestGoMicroShutdown(t *testing.T) {
	t.Parallel()
	s, err := services.New("greeter")
	if err != nil {
		t.Fatal(err)
	}
	started, release := make(chan struct{}, 2), make(chan struct{})
	if err := services.Handle(s, "Say.Wait", func(context.Context, *struct{}) (*struct{}, error) {
		started <- struct{}{}
		<-release
		return &struct{}{}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Handle(services.Endpoint{Name: "Say.Stay", Kind: services.Bidi}, func(context.Context, *services.Call) error {
		started <- struct{}{}
		<-release
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	l, err := newTransport(t, http.Options{}).Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	call, stream, idle := dialGoMicro(t, l.Addr()), dialGoMicro(t, l.Addr()), dialGoMicro(t, l.Addr())
	call.send(goMicroCall("Say.Wait", "{}", "Micro-Id", "1"))
	stream.send(goMicroCall("Say.Stay", "{}", "Micro-Id", "1", "Micro-Stream", "1"))
	idle.send(goMicroCall("Debug.Health", "{}", "Micro-Id", "1"))
	idle.recv()
	within(t, started)
	within(t, started)
	stop()
	idle.ended()
	close(release)
	if m := call.recv(); m.header.Get("Micro-Error") != "" || string(m.body) != "{}" {
		t.Errorf("the call was answered with %q, %v", m.body, m.header)
	}
	call.ended()
	if m := stream.recv(); m.header.Get("Micro-Error") != "EOS" {
		t.Errorf("the stream ended with %v", m.header)
	}
	stream.ended()
	if err := within(t, served); err != nil {
		t.Error(err)
	}
}

// TestGoMicroOverTLS: calls and streams are the same over TLS.
func TestGoMicroOverTLS(t *testing.T) {
	t.Parallel()
	config := localTLS(t)
	address := greeter(t, "us", http.Options{TLSConfig: config}, nil)
	nc, err := tls.Dial("tcp", address, &tls.Config{RootCAs: config.RootCAs})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	c := &goMicroClient{t, nc, bufio.NewReader(nc)}
	c.send(goMicroCall("Say.Hello", "0\r\n\r\n", "Micro-Id", "1", "Transfer-Encoding", "chunked"), goMicroCall("Say.Hello", `{"name":"x"}`, "Micro-Id", "2"))
	c.recv()
	c.recv()
	c.send(goMicroCall("Say.Stream", `{}`, "Micro-Id", "3", "Micro-Stream", "3"), goMicroCall("Say.Stream", `{"name":"a"}`, "Micro-Id", "3", "Micro-Stream", "3"))
	if m := c.recv(); string(m.body) != `{"msg":"echo a"}` {
		t.Errorf("%v %q", m.header, m.body)
	}
}

// TestExpectContinue: who waits for leave to send a body gets it.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	c := dialGoMicro(t, greeter(t, "us", http.Options{}, nil))
	for range 2 { // first from net/http, and then without it
		call := goMicroCall("Say.Hello", `{"name":"x"}`, "Micro-Id", "1", "Expect", "100-continue")
		head, body, _ := strings.Cut(call, "\r\n\r\n")
		c.send(head + "\r\n\r\n")
		rsp, err := nethttp.ReadResponse(c.in, nil)
		if err != nil || rsp.StatusCode != nethttp.StatusContinue {
			t.Fatalf("answered %v, %v", rsp, err)
		}
		c.send(body)
		if m := c.recv(); string(m.body) != `{"msg":"Hello x from us"}` {
			t.Fatalf("%v %q", m.header, m.body)
		}
	}
}

// TestPanicBelowTheServer: a handler of the transport that panics costs its own connection.
func TestPanicBelowTheServer(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{}, func(_ context.Context, _ string, req, rsp *transport.Message) {
		if string(req.Body) == "panic" {
			panic("as told")
		}
		rsp.Body = append(rsp.Body, req.Body...)
	})
	for _, first := range []string{"", goMicroCall("Say.Hello", "{}", "Micro-Id", "1")} {
		c := dialGoMicro(t, s.Addr())
		if first != "" {
			c.send(first)
			c.recv()
		}
		c.send(goMicroCall("Say.Hello", "panic", "Micro-Id", "2"))
		c.ended()
	}
}

// TestStreamOutlivesTimeout: v1's clients send the time of a call with a stream, and wait for longer.
func TestStreamOutlivesTimeout(t *testing.T) {
	t.Parallel()
	c := dialGoMicro(t, greeter(t, "us", http.Options{}, nil))
	of := func(body string) string {
		return goMicroCall("Say.Stream", body, "Micro-Id", "1", "Micro-Stream", "1", "Timeout", "50000000")
	}
	c.send(of("{}"))
	time.Sleep(100 * time.Millisecond)
	c.send(of(`{"name":"late"}`))
	if m := c.recv(); string(m.body) != `{"msg":"echo late"}` {
		t.Errorf("%v %q", m.header, m.body)
	}
}

// TestStreamToNobody: a client that does not read what a stream sends loses its connection, and the handler learns of that.
func TestStreamToNobody(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	address := greeter(t, "us", http.Options{WriteTimeout: 300 * time.Millisecond}, func(s *services.Server) {
		err := s.Handle(services.Endpoint{Name: "Say.Flood", Kind: services.Bidi}, func(_ context.Context, c *services.Call) error {
			for {
				if err := send(c, strings.Repeat("x", 10_000), 1); err != nil {
					ended <- err
					return err
				}
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
	c := dialGoMicro(t, address)
	c.send(goMicroCall("Say.Flood", "{}", "Micro-Id", "1", "Micro-Stream", "1"))
	if e := status.FromError(within(t, ended)); e.Code != status.Canceled {
		t.Errorf("the handler's message failed with %v", e)
	}
}
