package http

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	codec "github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// idleWriter is an answer that nobody reads: what stays is the cost of a handler above net/http.
type idleWriter struct{ header http.Header }

func (w *idleWriter) Header() http.Header              { return w.header }
func (w *idleWriter) WriteHeader(int)                  {}
func (w *idleWriter) Write(p []byte) (int, error)      { return len(p), nil }
func (w *idleWriter) SetReadDeadline(time.Time) error  { return nil }
func (w *idleWriter) SetWriteDeadline(time.Time) error { return nil }

type benchBody struct {
	Name string `json:"name"`
	ID   int64  `json:"id"`
}

// BenchmarkPlainHandler compares what a plain call costs above net/http with a handler of JSON that is written by hand.
func BenchmarkPlainHandler(b *testing.B) {
	tr, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	tl, err := tr.Serve(ln)
	if err != nil {
		b.Fatal(err)
	}
	l, c, answer := tl.(*Listener), codec.Strict(), metadata.Of(transport.HeaderContentType, "application/json")
	l.ServeCalls(func(_ context.Context, _ string, req, rsp *transport.Message) {
		v := new(benchBody)
		if err := c.Unmarshal(req.Body, v); err != nil {
			b.Error(err)
		}
		rsp.Body, _ = c.Append(nil, v)
		rsp.Header = answer
	})
	hand := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := new(benchBody)
		if err := json.NewDecoder(r.Body).Decode(v); err != nil {
			b.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	})
	for name, h := range map[string]http.Handler{"micro": l.server.Handler, "by hand": hand} {
		for size, text := range map[string]string{"16": "0123456789abcdef", "1Ki": string(bytes.Repeat([]byte("x"), 1<<10))} {
			b.Run(name+"/"+size, func(b *testing.B) {
				body, _ := json.Marshal(benchBody{text, 7})
				r, _ := http.NewRequestWithContext(b.Context(), http.MethodPost, "/Say.Hello", nil)
				r.Host, r.RemoteAddr, r.ContentLength = "127.0.0.1:8080", "127.0.0.1:1", int64(len(body))
				r.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"*/*"}, "User-Agent": {"curl/8.5.0"}, "Content-Length": {"1"}}
				reader := bytes.NewReader(body)
				w := &idleWriter{header: http.Header{}}
				b.ReportAllocs()
				for b.Loop() {
					reader.Reset(body)
					r.Body = io.NopCloser(reader)
					clear(w.header)
					h.ServeHTTP(w, r)
				}
			})
		}
	}
}
