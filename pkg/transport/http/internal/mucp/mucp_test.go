package mucp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/transport/http/internal/mucp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var limits = mucp.Limits{Head: 1000, Body: 100, HeadTime: 5 * time.Second, BodyIdle: 5 * time.Second, BodyTime: 5 * time.Second}

// fed gives a Reader of a connection on which data comes, and then its end.
func fed(t testing.TB, l mucp.Limits, data string) *mucp.Reader {
	t.Helper()
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.WriteString(there, data)
		there.Close()
	}()
	t.Cleanup(func() { here.Close(); <-done })
	return mucp.NewReader(here, nil, l)
}

// TestResponses: what servers send is read one after the other.
func TestResponses(t *testing.T) {
	t.Parallel()
	r := fed(t, limits, "HTTP/1.1 100 Continue\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nMicro-Id: 1\r\n\r\nab"+
		"HTTP/1.1 200 OK\r\nMicro-Error: EOS\r\nContent-Length: 0\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ncde\r\n1;x=y\r\nf\r\n0\r\nTrailer: x\r\n\r\n"+
		"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 200\r\n\r\n"+strings.Repeat("x", 200)+
		"HTTP/1.1 200 OK\r\n\r\nto the end")
	for _, want := range []struct {
		body, header string
		status       int
	}{{"ab", "", 200}, {"", "EOS", 200}, {"cdef", "", 200}, {"", "", 500}, {"to the end", "", 200}} {
		rsp, err := r.Response()
		if err != nil {
			t.Fatal(err)
		}
		defer rsp.Body.Close()
		body, err := r.Body(nil)
		if want.status == 500 {
			if !errors.Is(err, mucp.ErrBodyTooLarge) || !r.Skip() {
				t.Fatalf("a large body: %v", err)
			}
			err = nil
		}
		if err != nil || string(body) != want.body || rsp.StatusCode != want.status || rsp.Header.Get("Micro-Error") != want.header {
			t.Errorf("%d %q, %v, %v, want %+v", rsp.StatusCode, body, rsp.Header, err, want)
		}
	}
	if _, err := r.Response(); !errors.Is(err, io.EOF) { //nolint:bodyclose // there is none
		t.Errorf("after the last: %v", err)
	}
}

// TestBadMessages: what is no message, or over a limit, is told apart.
func TestBadMessages(t *testing.T) {
	t.Parallel()
	const post = "POST / HTTP/1.1\r\nHost: x\r\n"
	for name, tt := range map[string]struct {
		data string
		want error
	}{
		"nothing":            {"", io.EOF},
		"half a head":        {post, io.ErrUnexpectedEOF},
		"half a body":        {post + "Content-Length: 5\r\n\r\nab", io.ErrUnexpectedEOF},
		"half a chunk":       {post + "Transfer-Encoding: chunked\r\n\r\n5\r\nab", io.ErrUnexpectedEOF},
		"half a trailer":     {post + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n", io.ErrUnexpectedEOF},
		"two lengths":        {post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", mucp.ErrMalformed},
		"two hosts":          {post + "host: y\r\n\r\n", mucp.ErrMalformed},
		"no host":            {"POST / HTTP/1.1\r\n\r\n", mucp.ErrMalformed},
		"HTTP/2":             {"PRI * HTTP/2.0\r\n\r\n", mucp.ErrMalformed},
		"no HTTP":            {"hello\r\n\r\n", mucp.ErrMalformed},
		"no chunk":           {post + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", mucp.ErrMalformed},
		"a long line":        {post + "A: " + strings.Repeat("b", 10_000) + "\r\n\r\n", mucp.ErrHeadTooLarge},
		"many lines":         {post + strings.Repeat("A: b\r\n", 1000) + "\r\n", mucp.ErrHeadTooLarge},
		"a long trailer":     {post + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("A: b\r\n", 1000) + "\r\n", mucp.ErrHeadTooLarge},
		"a long body":        {post + "Content-Length: 101\r\n\r\n", mucp.ErrBodyTooLarge},
		"a long chunk":       {post + "Transfer-Encoding: chunked\r\n\r\nff\r\n" + strings.Repeat("x", 255) + "\r\n0\r\n\r\n", mucp.ErrBodyTooLarge},
		"one that is whole":  {post + "Content-Length: 2\r\n\r\nab", nil},
		"one that is longer": {post + "Content-Length: 100\r\n\r\n" + strings.Repeat("x", 100), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := fed(t, limits, tt.data)
			_, err := r.Request()
			if err == nil {
				_, err = r.Body(nil)
			}
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("gave %v, want %v", err, tt.want)
			}
		})
	}
}

// TestUntil: the wait for a message is bounded by Until, also while it goes on, and a message that comes is not.
func TestUntil(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	r := mucp.NewReader(here, []byte("POST / HTTP/1.1\r\nHost: x\r\n"), limits)
	r.Until(time.Unix(1, 0))
	go func() { _, _ = io.WriteString(there, "\r\n") }()
	if _, err := r.Request(); err != nil {
		t.Fatalf("a message that had begun: %v", err)
	}
	r.Until(time.Time{})
	waits := make(chan error, 1)
	go func() { waits <- r.Wait() }()
	select {
	case err := <-waits:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	r.Until(time.Unix(1, 0))
	if err := <-waits; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("waited until %v", err)
	}
}

// TestWriter: messages leave whole and in order; who has no room waits until ctx ends, and nothing of that message is sent.
func TestWriter(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer there.Close()
	w := mucp.NewWriter(here, 5*time.Second)
	header := mucp.AppendHeader(nil, http.Header{"Micro-Id": {"1"}, "Micro-Error": {"a\r\nb"}})
	large := bytes.Repeat([]byte("x"), 100<<10)
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	sent := 0
	for { // nobody reads
		err := w.Write(ctx, false, func(dst []byte) []byte { return mucp.AppendResponse(dst, http.StatusOK, header, large) })
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil || sent > 10 {
			t.Fatalf("after %d: %v", sent, err)
		}
		sent++
	}
	l := limits
	l.Body = len(large)
	r := mucp.NewReader(there, nil, l)
	for range sent {
		rsp, err := r.Response()
		if err != nil {
			t.Fatal(err)
		}
		defer rsp.Body.Close()
		if body, err := r.Body(nil); err != nil || !bytes.Equal(body, large) || rsp.Header.Get("Micro-Error") != "a  b" {
			t.Fatalf("%d bytes, %v, %v", len(body), rsp.Header, err)
		}
	}
	w.Drain(t.Context())
	read := make(chan error, 1)
	go func() {
		defer close(read)
		for _, want := range []string{"", "body"} {
			req, err := r.Request()
			if err != nil {
				read <- err
				return
			}
			if body, err := r.Body(nil); err != nil || string(body) != want || req.Host != "a:1" {
				read <- errors.New(string(body))
			}
		}
	}()
	_ = w.Write(t.Context(), true, func(dst []byte) []byte { return mucp.AppendEnd(dst, "a:1", "/", header) })
	_ = w.Write(t.Context(), true, func(dst []byte) []byte { return mucp.AppendRequest(dst, "a:1", "/", header, []byte("body")) })
	if err := <-read; err != nil {
		t.Error(err)
	}
	w.Close()
	if err := w.Write(t.Context(), true, func(dst []byte) []byte { return dst }); !errors.Is(err, mucp.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	here.Close()
}

// TestBrokenWriter: a write that fails, or takes too long, closes the connection and fails those that follow.
func TestBrokenWriter(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer there.Close()
	w := mucp.NewWriter(here, 20*time.Millisecond)
	hello := func(dst []byte) []byte { return append(dst, "hello"...) }
	if err := w.Write(t.Context(), true, hello); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(t.Context(), true, hello); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a write that took too long: %v", err)
	}
	if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection is open: %v", err)
	}
}

// FuzzReader: whatever comes, nothing over the limits is given, and the reading ends.
func FuzzReader(f *testing.F) {
	f.Add("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nabPOST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", true)
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx", false)
	f.Fuzz(func(t *testing.T, data string, requests bool) {
		r := fed(t, limits, data)
		for {
			var err error
			if requests {
				_, err = r.Request()
			} else {
				_, err = r.Response() //nolint:bodyclose // it is the Reader's to read
			}
			if err != nil {
				return
			}
			body, err := r.Body(nil)
			if err == nil && len(body) > limits.Body {
				t.Fatalf("a body of %d bytes", len(body))
			}
			if err != nil && !(errors.Is(err, mucp.ErrBodyTooLarge) && r.Skip()) {
				return
			}
		}
	})
}
