package http_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// post sends a request with the headers given as pairs.
func post(t *testing.T, c *nethttp.Client, url, body string, headers ...string) (*nethttp.Response, string) {
	t.Helper()
	r, err := nethttp.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		} else {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	rsp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	got, err := io.ReadAll(rsp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return rsp, string(got)
}

// client gives an HTTP client with connections of its own. h2c speaks HTTP/2 without TLS, with prior knowledge.
func client(t *testing.T, h2c bool) *nethttp.Client {
	t.Helper()
	tr := &nethttp.Transport{Protocols: new(nethttp.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP1(!h2c)
	tr.Protocols.SetUnencryptedHTTP2(h2c)
	t.Cleanup(tr.CloseIdleConnections)
	return &nethttp.Client{Transport: tr, Timeout: 20 * time.Second}
}

const jsonType = "application/json"

func TestPlainCall(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{WriteTimeout: 400 * time.Millisecond}, nil)
	large := strings.Repeat("x", 1<<20)
	for _, h2c := range []bool{false, true} {
		c := client(t, h2c)
		base := "http://" + s.Addr()
		rsp, body := post(t, c, base+"/Say.Hello", `{"name":"x"}`, "Content-Type", "application/json; charset=UTF-8", "X-User", "jöhn",
			"Micro-Service", "greeter", "Micro-Timeout", "1.5s", "Accept-Encoding", "gzip")
		if rsp.StatusCode != 200 || body != `{"name":"x"}` || rsp.Header.Get("Content-Type") != jsonType || rsp.ContentLength != int64(len(body)) {
			t.Fatalf("h2c %t: %s, %q, %v", h2c, rsp.Status, body, rsp.Header)
		}
		if (rsp.ProtoMajor == 2) != h2c {
			t.Fatalf("spoke %s", rsp.Proto)
		}
		for header, want := range map[string]string{
			"Got-Micro-Endpoint": "Say.Hello", "Got-Micro-Service": "greeter", "Got-X-User": "jöhn", "Got-Timeout": "1.5s",
			"Got-Accept-Encoding": "", "Got-Content-Length": "", "Got-Host": "", "Got-Micro-Timeout": "", "Micro-Id": "",
		} {
			if got := rsp.Header.Get(header); got != want {
				t.Errorf("h2c %t: %s is %q, want %q", h2c, header, got, want)
			}
		}
		rsp, body = post(t, c, base+"/", large, "Content-Type", "application/protobuf", "X-Micro-Endpoint", "Say.Hello", "Timeout", "5000000000")
		if rsp.StatusCode != 200 || body != large || rsp.Header.Get("Got-Micro-Endpoint") != "Say.Hello" || rsp.Header.Get("Got-Timeout") != "5s" {
			t.Fatalf("h2c %t: call by header: %s, %d bytes, %v", h2c, rsp.Status, len(body), rsp.Header)
		}
		time.Sleep(450 * time.Millisecond) // the write deadline of the last answer has passed: the connection still serves
		rsp, body = post(t, c, base+"/Say.Hello", "fail", "Content-Type", jsonType)
		var e status.Error
		if err := json.Unmarshal([]byte(body), &struct {
			*status.Error
			Code int
		}{&e, 0}); err != nil || rsp.StatusCode != 409 || rsp.Header.Get("X-Extra") != "kept" || rsp.Header.Get("Micro-Error") != "" {
			t.Fatalf("h2c %t: a call that fails: %s %q %v", h2c, rsp.Status, body, err)
		}
		if got := status.Parse(body); got.ID != "echo" || got.Code != 409 || got.Detail != "as\nyou wish" {
			t.Fatalf("h2c %t: the error came as %+v", h2c, got)
		}
		rsp, body = post(t, c, base+"/Say.Hello", "", "Content-Type", jsonType)
		if rsp.StatusCode != 200 || body != "" {
			t.Fatalf("h2c %t: an empty call: %s %q", h2c, rsp.Status, body)
		}
	}
}

// TestGoMicroDialect: a request with Micro-Id gets 200 always, and its error in a header of one line.
func TestGoMicroDialect(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{MaxMessage: 100}, nil)
	c := client(t, false)
	call := func(body, contentType string) (*nethttp.Response, string) {
		return post(t, c, "http://"+s.Addr()+"/", body, "Content-Type", contentType, "Accept", jsonType, "Micro-Id", "7", "Micro-Service", "greeter",
			"Micro-Endpoint", "Say.Hello", "Micro-Method", "Say.Hello", "Timeout", "5000000000")
	}
	rsp, body := call(`{}`, jsonType)
	if rsp.StatusCode != 200 || body != `{}` || rsp.Header.Get("Micro-Id") != "7" || rsp.Header.Get("Micro-Error") != "" || rsp.Header.Get("Got-Micro-Id") != "7" {
		t.Fatalf("call: %s %q %v", rsp.Status, body, rsp.Header)
	}
	rsp, body = call("fail", jsonType)
	want := `{"id":"echo","code":409,"detail":"as\nyou wish","status":"Conflict"}`
	if rsp.StatusCode != 200 || body != "" || rsp.ContentLength != 0 || rsp.Header.Get("Micro-Error") != want || rsp.Header.Get("Micro-Id") != "7" {
		t.Fatalf("call that fails: %s %q %v", rsp.Status, body, rsp.Header)
	}
	for _, refused := range [][2]string{{"{}", "text/plain"}, {strings.Repeat("x", 101), jsonType}} {
		rsp, body = call(refused[0], refused[1])
		if rsp.StatusCode != 200 || body != "" || status.Parse(rsp.Header.Get("Micro-Error")).Code < 400 {
			t.Fatalf("call that the transport refuses: %s %q %v", rsp.Status, body, rsp.Header)
		}
	}
}

// TestRefusedRequests: each is answered with its status and a JSON error, and reaches no handler.
func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{MaxMessage: 1000, AllowedHosts: []string{"Box.example"}}, func(_ context.Context, _ string, req, _ *transport.Message) {
		if req.Header.Get("x-want") == "" {
			t.Errorf("a request that is to be refused reached the handler: %q %q", req.Header, req.Body)
		}
	})
	big := strings.Repeat("x", 1001)
	many := func(n int, value string) (headers []string) {
		for i := range n {
			headers = append(headers, fmt.Sprintf("X-H%d", i), value)
		}
		return headers
	}
	for _, test := range []struct {
		name, method, path, body string
		headers                  []string
		want                     int
	}{
		{"good", "POST", "/Say.Hello", "{}", []string{"X-Want", "1"}, 204},
		{"allowed host", "POST", "/Say.Hello", "{}", []string{"X-Want", "1", "Host", "box.EXAMPLE:99", "Origin", "http://box.example"}, 204},
		{"IPv6 host", "POST", "/Say.Hello", "{}", []string{"X-Want", "1", "Host", "[::1]:80"}, 204},
		{"local page", "POST", "/Say.Hello", "{}", []string{"X-Want", "1", "Origin", "http://localhost:3000", "Sec-Fetch-Site", "same-site"}, 204},
		{"get", "GET", "/", "", nil, 405},
		{"get of an endpoint", "GET", "/Say.Hello", "", nil, 405},
		{"put", "PUT", "/Say.Hello", "{}", nil, 405},
		{"preflight", "OPTIONS", "/Say.Hello", "", []string{"Origin", "http://localhost", "Access-Control-Request-Method", "POST"}, 405},
		{"no endpoint", "POST", "/", "{}", []string{"X-Want", "1"}, 204}, // the body may name it
		{"two segments", "POST", "/Say/Hello", "{}", nil, 404},
		{"slash at the end", "POST", "/Say.Hello/", "{}", nil, 404},
		{"two slashes", "POST", "//Say.Hello", "{}", nil, 404},
		{"dots", "POST", "/..", "{}", nil, 404},
		{"dots and a segment", "POST", "/../Say.Hello", "{}", nil, 404},
		{"escaped slash", "POST", "/Say%2fHello", "{}", nil, 404},
		{"escaped letter", "POST", "/%53ay.Hello", "{}", nil, 404},
		{"query", "POST", "/Say.Hello?x=1", "{}", nil, 400},
		{"empty query", "POST", "/Say.Hello?", "{}", nil, 400},
		{"long endpoint", "POST", "/" + strings.Repeat("a", 257), "{}", nil, 404},
		{"two endpoints", "POST", "/Say.Hello", "{}", []string{"Micro-Endpoint", "Say.Other"}, 400},
		{"bad endpoint in header", "POST", "/", "{}", []string{"Micro-Endpoint", "Say/Hello"}, 400},
		{"no type", "POST", "/Say.Hello", "{}", []string{"Content-Type", ""}, 415},
		{"no type, no body", "POST", "/Say.Hello", "", []string{"Content-Type", ""}, 415},
		{"text", "POST", "/Say.Hello", "{}", []string{"Content-Type", "text/plain"}, 415},
		{"text in disguise", "POST", "/Say.Hello", "{}", []string{"Content-Type", "Text/Plain; x=application/json"}, 415},
		{"form", "POST", "/Say.Hello", "a=1", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		{"upload", "POST", "/Say.Hello", "", []string{"Content-Type", "multipart/form-data; boundary=x"}, 415},
		{"no media type", "POST", "/Say.Hello", "{}", []string{"Content-Type", "json"}, 415},
		{"latin", "POST", "/Say.Hello", "{}", []string{"Content-Type", "application/json; charset=latin1"}, 415},
		{"compressed", "POST", "/Say.Hello", "{}", []string{"Content-Encoding", "gzip"}, 415},
		{"large", "POST", "/Say.Hello", big, nil, 413},
		{"timeout of text", "POST", "/Say.Hello", "{}", []string{"Timeout", "soon"}, 400},
		{"no time left", "POST", "/Say.Hello", "{}", []string{"Timeout", "-5"}, 408},
		{"no time left, ours", "POST", "/Say.Hello", "{}", []string{"Micro-Timeout", "0s"}, 408},
		{"long value", "POST", "/Say.Hello", "{}", []string{"X-Long", strings.Repeat("v", 4097)}, 431},
		{"many values", "POST", "/Say.Hello", "{}", many(65, "v"), 431},
		{"much in all", "POST", "/Say.Hello", "{}", many(5, strings.Repeat("v", 4000)), 431},
		{"odd key", "POST", "/Say.Hello", "{}", []string{"X~Odd", "1"}, 400},
		{"foreign host", "POST", "/Say.Hello", "{}", []string{"Host", "rebind.example"}, 421},
		{"foreign host that looks local", "POST", "/Say.Hello", "{}", []string{"Host", "127.0.0.1.rebind.example"}, 421},
		{"foreign origin", "POST", "/Say.Hello", "{}", []string{"Origin", "http://evil.example"}, 403},
		{"no origin", "POST", "/Say.Hello", "{}", []string{"Origin", "null"}, 403},
		{"other site", "POST", "/Say.Hello", "{}", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"foreign host, go-micro", "POST", "/", "{}", []string{"Host", "rebind.example", "Micro-Id", "1"}, 421},
		{"upgrade from a page", "OPTIONS", "/", "", []string{"Connection", "Upgrade", "Upgrade", "micro", "Micro-Version", "1", "Origin", "http://evil.example"}, 403},
		{"upgrade of another version", "OPTIONS", "/", "", []string{"Connection", "Upgrade", "Upgrade", "micro", "Micro-Version", "2"}, 426},
		{"upgrade with a call", "POST", "/", "{}", []string{"Connection", "Upgrade", "Upgrade", "micro", "Micro-Version", "1"}, 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", test.method, test.path)
			headers := append([]string{"Host", s.Addr(), "Content-Type", jsonType}, test.headers...)
			all := map[string]string{}
			for i := 0; i < len(headers); i += 2 {
				all[headers[i]] = headers[i+1]
			}
			for k, v := range all {
				if v != "" {
					fmt.Fprintf(&b, "%s: %s\r\n", k, v)
				}
			}
			fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(test.body), test.body)
			nc := raw(t, s)
			write(t, nc, b.Bytes())
			rsp, err := nethttp.ReadResponse(bufio.NewReader(nc), &nethttp.Request{Method: test.method})
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(rsp.Body)
			rsp.Body.Close()
			if rsp.StatusCode != test.want {
				t.Fatalf("answered %s %s, want %d", rsp.Status, body, test.want)
			}
			if rsp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Fatal("pages of other sites are let in")
			}
			if test.want == 405 && rsp.Header.Get("Allow") != "POST" {
				t.Fatalf("Allow is %q", rsp.Header.Get("Allow"))
			}
			if e := status.Parse(string(body)); test.want != 204 && (e == nil || int(e.Code) != test.want || e.Detail == "") {
				t.Fatalf("body %q is no error object", body)
			}
		})
	}
}

// TestSmuggling: what two readers could take for different requests is refused, or the last of its connection.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{}, func(_ context.Context, _ string, req, rsp *transport.Message) {
		if req.Header.Get(transport.HeaderEndpoint) == "Evil.Call" {
			t.Error("a hidden request was run")
		}
		rsp.Body = append(rsp.Body, req.Body...)
	})
	const start = "POST /Say.Hello HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	const evil = "POST /Evil.Call HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"
	for name, request := range map[string]string{
		"length and chunked":   start + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil,
		"two lengths":          start + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + evil,
		"lengths in a list":    start + "Content-Length: 0, 5\r\n\r\n" + evil,
		"signed length":        start + "Content-Length: +0\r\n\r\n" + evil,
		"chunked twice":        start + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + evil,
		"unknown encoding":     start + "Transfer-Encoding: xchunked\r\n\r\n" + evil,
		"space before colon":   start + "Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n" + evil,
		"folded header":        start + "X-A: b\r\n Content-Length: 3\r\nContent-Length: 0\r\nBad\r\n\r\n" + evil,
		"bad chunk size":       start + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + evil,
		"endless chunk size":   start + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("0", 9000) + "\r\n\r\n" + evil,
		"two hosts":            strings.Replace(start, "Host: localhost\r\n", "Host: localhost\r\nHost: other\r\n", 1) + "Content-Length: 0\r\n\r\n" + evil,
		"no host":              strings.Replace(start, "Host: localhost\r\n", "", 1) + "Content-Length: 0\r\n\r\n" + strings.Replace(evil, "Host: localhost\r\n", "", 1),
		"garbage":              "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + evil,
		"HTTP/2 without a set": "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + evil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := raw(t, s)
			write(t, nc, []byte(request))
			if half, ok := nc.(*net.TCPConn); ok && name == "HTTP/2 without a set" {
				_ = half.CloseWrite()
			}
			_ = nc.SetReadDeadline(time.Now().Add(time.Second)) // a connection that stays open is judged by what was run
			_, _ = io.ReadAll(nc)
		})
	}
}

// TestSlowRequests: a head or a body that does not come costs the slow one its connection, and nobody else anything.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	s := listening(t, http.Options{HeaderTimeout: 200 * time.Millisecond, BodyIdle: 200 * time.Millisecond, BodyTimeout: 500 * time.Millisecond,
		IdleTimeout: 300 * time.Millisecond}, echoPlain)
	s.HandleHTTP(func(r *nethttp.Request) bool { return r.URL.Path == "/mounted" }, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		_, _ = io.WriteString(w, "mounted")
	}))
	s.start(t)
	const head = "POST /Say.Hello HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
	for _, test := range []struct {
		name, send, drip, want string
	}{
		{"silence", "", "", ""},
		{"half a head", "POST /Say.Hel", "", ""},
		{"head that drips", head, "X-A: b\r\n", ""},
		{"half a body", head + "\r\nxxx", "", "408"},
		{"body that drips", head + "\r\n", "x", "408"},
		{"refused, and the body does not come", strings.Replace(head, "application/json", "text/plain", 1) + "\r\n", "", ""},
		{"refused host, and the body does not come", strings.Replace(head, "localhost", "evil.example", 1) + "\r\n", "", ""},
		{"mounted, and the body does not come", strings.Replace(head, "Say.Hello", "mounted", 1) + "\r\n", "", "mounted"},
		{"idle after a call", strings.Replace(head, "1000", "0", 1) + "\r\n", "", "200"},
		{"half an HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nS", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			nc := raw(t, s)
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = io.WriteString(nc, test.send)
				for test.drip != "" {
					time.Sleep(20 * time.Millisecond)
					if _, err := io.WriteString(nc, test.drip); err != nil {
						return
					}
				}
			}()
			start := time.Now()
			got, _ := io.ReadAll(nc)
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("was held for %s", took)
			}
			if !strings.Contains(string(got), test.want) {
				t.Errorf("answered %q, want %q in it", got, test.want)
			}
			nc.Close()
			<-done
		})
	}
	if rsp, body := post(t, client(t, false), "http://"+s.Addr()+"/Say.Hello", "x", "Content-Type", jsonType); rsp.StatusCode != 200 || body != "x" {
		t.Fatalf("another caller suffers: %s %q", rsp.Status, body)
	}
}

// TestSlowReaders: a caller that does not read its answer is cut off in time, also after calls that went well.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	const large = 64 << 20 // more than the buffers of the system hold
	for name, o := range map[string]http.Options{
		"TCP": {},
		"TLS": {TLSConfig: localTLS(t)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.MaxMessage, o.WriteTimeout = large, 300*time.Millisecond
			answered := make(chan struct{})
			s := serve(t, o, func(_ context.Context, _ string, req, rsp *transport.Message) {
				if string(req.Body) == "all" {
					rsp.Body = make([]byte, large)
					close(answered)
				}
			})
			nc, err := net.Dial("tcp", s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if o.TLSConfig != nil {
				nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is this test's own listener
			}
			const head = "POST /Say.Hello HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
			answers := bufio.NewReader(nc)
			for range 3 {
				write(t, nc, []byte(head+"2\r\n\r\n{}"))
				rsp, err := nethttp.ReadResponse(answers, nil)
				if err != nil || rsp.StatusCode != 204 {
					t.Fatalf("a call before: %v, %v", rsp, err)
				}
				rsp.Body.Close()
			}
			write(t, nc, []byte(head+"3\r\n\r\nall"))
			<-answered
			ctx, stop := context.WithTimeout(t.Context(), 15*time.Second)
			defer stop()
			if err := s.Shutdown(ctx); err != nil {
				t.Fatalf("the answer is still being written: %v", err)
			}
			if got, _ := io.Copy(io.Discard, answers); got >= large {
				t.Errorf("read all %d bytes", got)
			}
		})
	}
}

// TestCallerLeaves: the context of a call ends when its caller goes.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	started, ended := make(chan struct{}), make(chan struct{})
	s := serve(t, http.Options{}, func(ctx context.Context, _ string, _, _ *transport.Message) {
		close(started)
		<-ctx.Done()
		close(ended)
	})
	nc := raw(t, s)
	write(t, nc, []byte("POST /Say.Hello HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"))
	<-started
	nc.Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the call's context lives on")
	}
}

// TestPlainShutdown: a plain call under way is answered, and the address is free at once.
func TestPlainShutdown(t *testing.T) {
	t.Parallel()
	started, release := make(chan struct{}), make(chan struct{})
	s := serve(t, http.Options{}, func(_ context.Context, _ string, _, rsp *transport.Message) {
		close(started)
		<-release
		rsp.Body = []byte("done")
	})
	got := make(chan string, 1)
	c := client(t, false)
	go func() {
		_, body := post(t, c, "http://"+s.Addr()+"/Say.Hello", "{}", "Content-Type", jsonType)
		got <- body
	}()
	<-started
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(context.Background()) }()
	for {
		nc, err := net.Dial("tcp", s.Addr())
		if err != nil {
			break
		}
		nc.Close()
	}
	close(release)
	if body := <-got; body != "done" {
		t.Fatalf("the call under way got %q", body)
	}
	if err := <-done; err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
}

// TestHandleHTTP: what is mounted has its requests before the calls, behind the same checks.
func TestHandleHTTP(t *testing.T) {
	t.Parallel()
	s := listening(t, http.Options{}, echoPlain)
	s.HandleHTTP(func(r *nethttp.Request) bool { return r.URL.Path == "/mine" }, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		_, _ = io.WriteString(w, "mounted")
	}))
	s.start(t)
	c := client(t, false)
	if _, body := post(t, c, "http://"+s.Addr()+"/mine", ""); body != "mounted" {
		t.Fatalf("got %q", body)
	}
	if _, body := post(t, c, "http://"+s.Addr()+"/Say.Hello", "call", "Content-Type", jsonType); body != "call" {
		t.Fatalf("got %q", body)
	}
	if rsp, _ := post(t, c, "http://"+s.Addr()+"/mine", "", "Host", "evil.example"); rsp.StatusCode != 421 {
		t.Fatalf("a foreign host got %s", rsp.Status)
	}
}

// TestHeadsOfAConnection: a request is never taken for the one before it.
func TestHeadsOfAConnection(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{}, nil)
	c := client(t, false)
	for i, tt := range []struct {
		path, body, user, timeout, query string
		status                           int
	}{
		{"Say.Hello", "{}", "ann", "1s", "", 200},
		{"Say.Hello", "{}", "ann", "1s", "", 200},
		{"Say.Hello", "longer than before", "ann", "1s", "", 200},
		{"Say.Hello", "", "ann", "1s", "", 200},
		{"Say.Other", "", "ann", "1s", "", 200},
		{"Say.Other", "{}", "bob", "1s", "", 200},
		{"Say.Other", "{}", "bob", "2s", "", 200},
		{"Say.Other", "{}", "bob", "2s", "?", 400},
		{"Say.Other", "{}", "bob", "2s", "", 200},
		{"Say%2EOther", "{}", "bob", "2s", "", 404},
		{"Say.Other", "{}", "bob", "2s", "?x=1", 400},
		{"Say.Other", "{}", "", "2s", "", 200},
	} {
		headers := []string{"Content-Type", jsonType, "Micro-Timeout", tt.timeout}
		if tt.user != "" {
			headers = append(headers, "X-User", tt.user)
		}
		rsp, body := post(t, c, "http://"+s.Addr()+"/"+tt.path+tt.query, tt.body, headers...)
		if rsp.StatusCode != tt.status {
			t.Errorf("%d: %s %s", i, rsp.Status, body)
		}
		got := rsp.Header.Get
		if tt.status == 200 && (body != tt.body || got("Got-X-User") != tt.user || got("Got-Timeout") != tt.timeout || got("Got-Micro-Endpoint") != tt.path) {
			t.Errorf("%d: %q %v", i, body, rsp.Header)
		}
	}
}
