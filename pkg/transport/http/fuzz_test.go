package http

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// FuzzRequestHead: whatever head net/http lets through gives a call within the limits, or an error with a code.
func FuzzRequestHead(f *testing.F) {
	for _, seed := range []string{
		"POST /Say.Hello HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nMicro-Timeout: 1s\r\n\r\n{}",
		"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json; charset=utf-8\r\nMicro-Endpoint: Say.Hello\r\nMicro-Id: 0\r\nTimeout: 500\r\n\r\n",
		"POST /%53ay.Hello?x HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nConnection: X-A\r\nX-A: b\r\n\r\n",
		"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: micro\r\nMicro-Version: 1\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: h\r\nContent-Type: a/b\r\nX-\x7f: \xff\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		_ = wantsUpgrade(r)
		var hd head
		hd.read(r.Header)
		endpoint, e := hd.endpoint(r)
		if e != nil {
			if e.Code < 400 || e.Code > 499 {
				t.Fatalf("an error of the client has code %d", e.Code)
			}
			return
		}
		if endpoint != "" && (!validEndpoint(endpoint) || strings.ContainsAny(endpoint, "/%?\x00 ")) {
			t.Fatalf("endpoint %q", endpoint)
		}
		var m transport.Message
		if e := hd.message(&m, endpoint); e != nil {
			if e.Code < 400 || e.Code > 499 {
				t.Fatalf("an error of the client has code %d", e.Code)
			}
			return
		}
		if _, err := metadata.Parse(m.Header); err != nil {
			t.Fatalf("metadata that is over its limits was let through: %v", err)
		}
		switch ct := m.Header.Get(transport.HeaderContentType); ct {
		case "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data":
			t.Fatalf("content type %q was let through", ct)
		}
		if m.Header.Get(transport.HeaderEndpoint) != endpoint || m.Timeout < 0 {
			t.Fatalf("endpoint %q became %q, timeout %s", endpoint, m.Header.Get(transport.HeaderEndpoint), m.Timeout)
		}
	})
}

// FuzzAnswer: whatever a plain peer answers gives a reply within the limits, or an error.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\nMicro-Id: 1\r\nX-A: b\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nMicro-Error: {\"code\":404}\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 12\r\n\r\n{\"code\":500}",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	tr, err := New(Options{MaxMessage: 100, Plain: true})
	if err != nil {
		f.Fatal(err)
	}
	c := newPlainConn(tr, "127.0.0.1:1")
	f.Fuzz(func(t *testing.T, data []byte) {
		answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), nil)
		if err != nil {
			return
		}
		defer answer.Body.Close()
		var m transport.Message
		if c.read(answer, &m) != nil {
			return
		}
		if _, err := metadata.Parse(m.Header); err != nil || len(m.Body) > 100 {
			t.Fatalf("a reply over the limits was let through: %d bytes, %v", len(m.Body), err)
		}
	})
}
