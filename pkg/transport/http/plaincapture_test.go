package http_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// captureFailures is what a client makes of the errors in the captures, by the file's name without its version.
var captureFailures = map[string]status.Error{
	"err-badep":    {Code: 500, Detail: "rpc: service/endpoint request ill-formed: Nope"},
	"err-nosvc":    {Code: 500, Detail: "rpc: can't find service Nope"},
	"err-nomethod": {Code: 500, Detail: "rpc: can't find method Nope"},
	"err-plain":    {Code: 500, Detail: "plain error"},
	"err-micro":    {ID: "greeter", Code: 400, Detail: "bad name: xx"},
	"stream-fail":  {ID: "greeter", Code: 403, Detail: "stream refused"},
}

// TestCapturedAnswers: what real go-micro servers of v1, v2 and v5 have answered is read as it was meant, byte by byte as it may come; and what
// is sent for it is what their own clients have sent.
func TestCapturedAnswers(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/mucp/*.stream.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d captures, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".stream.txt")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, what, _ := strings.Cut(name, "-")
			list := readCapture(t, file)
			addr := goMicroServer(t, func(g goMicro) { playServer(t, g, list) })
			c, err := newTransport(t, http.Options{}).Dial(t.Context(), addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if asked := parseMessages(t, true, list[0].data)[0]; asked.header.Get("Micro-Stream") != "" {
				playStream(t, c, list, what)
			} else {
				playCalls(t, c.(transport.Caller), list, what)
			}
		})
	}
}

// playServer reads what the client has sent, and compares it with what comes; and writes what the server has sent.
func playServer(t *testing.T, g goMicro, list []captured) {
	for i, part := range list {
		if !part.client {
			for at := range part.data {
				if _, err := g.Write(part.data[at : at+1]); err != nil {
					return
				}
			}
			continue
		}
		for n, want := range parseMessages(t, true, part.data) {
			got, err := g.hear()
			if err != nil {
				return // the client has been told of the end, and has left
			}
			for _, name := range []string{"Accept", "Content-Type", "Micro-Service", "Micro-Endpoint", "Micro-Method", "Micro-Error", "Foo"} {
				if g, w := got.header.Get(name), want.header.Get(name); g != w {
					t.Errorf("%s: %q, want %q", name, g, w)
				}
			}
			for _, name := range []string{"Micro-Id", "Timeout", "Micro-Stream"} {
				// The second call on a connection has a number, which their own clients do not know of: see TestPlainOneByOne.
				if g, w := got.header[name], want.header[name]; len(g) != len(w) && (name != "Micro-Stream" || i == 0) {
					t.Errorf("%s: %q, want as in %q", name, g, w)
				}
			}
			opening := i == 0 && n == 0 && want.header.Get("Micro-Stream") != "" // whose body is dropped
			if !opening && got.body != string(want.body) {
				t.Errorf("body %q, want %q", got.body, want.body)
			}
		}
	}
	_, _ = io.Copy(io.Discard, g) // until the client goes
}

// capturedHeader is the header of a call, as the captured request has it.
func capturedHeader(asked message) metadata.MD {
	return metadata.Of(transport.HeaderService, asked.header.Get("Micro-Service"), transport.HeaderEndpoint, asked.header.Get("Micro-Endpoint"),
		transport.HeaderContentType, asked.header.Get("Content-Type"), "foo", asked.header.Get("Foo"))
}

func playCalls(t *testing.T, c transport.Caller, list []captured, what string) {
	for i := 0; i < len(list); i += 2 {
		asked := parseMessages(t, true, list[i].data)[0]
		req := &transport.Message{Header: capturedHeader(asked), Body: asked.body, Timeout: 10 * time.Second}
		answered := i+1 < len(list)
		if !answered {
			req.Timeout = 200 * time.Millisecond
		}
		var rsp transport.Message
		err := c.Call(t.Context(), req, &rsp)
		if !answered {
			if !errors.Is(err, context.DeadlineExceeded) || transport.NotSent(err) {
				t.Errorf("of a server that has not answered: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want := parseMessages(t, false, list[i+1].data)[0]
		compareError(t, rsp.Header.Get(transport.HeaderError), want, what)
		if !bytes.Equal(rsp.Body, want.body) || rsp.Header.Get(transport.HeaderContentType) != asked.header.Get("Content-Type") || rsp.Header.Get("foo") != "" {
			t.Errorf("answer %q %q, want %q", rsp.Header, rsp.Body, want.body)
		}
	}
}

// compareError compares the error of an answer with that which the server has meant.
func compareError(t *testing.T, failed string, want message, what string) {
	t.Helper()
	e, w := status.Parse(failed), captureFailures[what]
	switch meant := want.header.Get("Micro-Error") != ""; {
	case meant && (e == nil || e.ID != w.ID || e.Code != w.Code || e.Detail != w.Detail):
		t.Errorf("failed with %+v, want %+v", e, &w)
	case !meant && e != nil:
		t.Errorf("failed with %+v", e)
	}
}

func playStream(t *testing.T, c transport.Conn, list []captured, what string) {
	header := capturedHeader(parseMessages(t, true, list[0].data)[0])
	timeout := time.Duration(0)
	if strings.Contains(string(list[0].data), "\nTimeout:") {
		timeout = 10 * time.Second
	}
	opened, ended := false, false
	var m transport.Message
	for _, part := range list {
		if part.client {
			for _, asked := range parseMessages(t, true, part.data) {
				kind := transport.Data
				switch {
				case ended:
					continue // their clients send an end of their own after the server's
				case !opened:
					kind, opened = transport.Open, true
				case asked.header.Get("Micro-Error") != "":
					_ = c.Send(t.Context(), &transport.Message{Kind: transport.End, ID: 1}) // see TestPlainStreamLeft
					kind = transport.Cancel
				}
				if err := c.Send(t.Context(), &transport.Message{Kind: kind, ID: 1, Header: header, Timeout: timeout, Body: asked.body}); err != nil {
					t.Fatal(err)
				}
				if kind != transport.Open {
					continue
				}
				if err := c.Recv(t.Context(), &m); err != nil || m.Kind != transport.Opened {
					t.Fatal(m.Kind, err)
				}
			}
			continue
		}
		for _, want := range parseMessages(t, false, part.data) {
			if err := c.Recv(t.Context(), &m); err != nil {
				t.Fatal(err)
			}
			failed := want.header.Get("Micro-Error")
			if ended = failed != ""; ended != (m.Kind == transport.End) || !ended && !bytes.Equal(m.Body, want.body) {
				t.Fatalf("%s %q, want %q %q", m.Kind, m.Body, failed, want.body)
			}
			if failed != "EOS" {
				compareError(t, m.Header.Get(transport.HeaderError), want, what)
			} else if m.Header.Get(transport.HeaderError) != "" {
				t.Errorf("the end is %q", m.Header)
			}
		}
	}
}
