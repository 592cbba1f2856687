package server

import (
	"fmt"
	stdhttp "net/http"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/registry/http/internal/hold"
)

const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// metrics counts what a server does. Its methods may be called concurrently.
type metrics struct {
	lines atomic.Uint64 // of watches

	mu       sync.Mutex
	requests map[request]uint64
}

// request is a kind of request, and its outcome.
type request struct {
	method string
	code   int
}

// counted counts the requests that next answers.
func (m *metrics) counted(next stdhttp.Handler) stdhttp.Handler {
	return stdhttp.HandlerFunc(func(w stdhttp.ResponseWriter, r *stdhttp.Request) {
		c := counter{ResponseWriter: w}
		next.ServeHTTP(&c, r)
		method := r.Method
		switch method {
		case stdhttp.MethodGet, stdhttp.MethodPut, stdhttp.MethodDelete, stdhttp.MethodHead, stdhttp.MethodPost:
		default:
			method = "other" // a stranger makes no label
		}
		m.count(request{method, max(c.code, 200)})
	})
}

func (m *metrics) count(r request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.requests == nil {
		m.requests = map[request]uint64{}
	}
	m.requests[r]++
}

// counter notes the status of an answer.
type counter struct {
	stdhttp.ResponseWriter
	code int
}

func (c *counter) WriteHeader(code int) {
	if c.code == 0 {
		c.code = code
	}
	c.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (c *counter) Unwrap() stdhttp.ResponseWriter { return c.ResponseWriter }

// metricsPage answers with all of it, as Prometheus reads it.
func (s *Server) metricsPage(w stdhttp.ResponseWriter, _ *stdhttp.Request) {
	var b strings.Builder
	family := func(name, kind, help string, value any) {
		fmt.Fprintf(&b, "# HELP micro_registry_%[1]s %[3]s\n# TYPE micro_registry_%[1]s %[2]s\nmicro_registry_%[1]s %[4]v\n", name, kind, help, value)
	}
	h := s.Health()
	family("nodes", "gauge", "Nodes that are registered.", h.Nodes)
	family("watches", "gauge", "Watches that are open.", h.Watches)
	family("revision", "counter", "Changes so far, from where this run of the server began to count.", h.Revision)
	family("watch_lines_total", "counter", "Lines that were sent to watches.", s.metrics.lines.Load())
	family("sending_bytes", "gauge", "Sets and lines that are being sent, what several are sent counted once.", s.sent.Held())
	family("sends_ended_total", "counter", "Sets and lines whose readers were cut off, for they did not take them and there was no room.", s.sent.Ended())
	family("uptime_seconds", "gauge", "Since the server was made.", time.Since(s.started).Seconds())
	for _, state := range []string{"full", "failed", "away"} {
		on := 0
		if h.Status == state {
			on = 1
		}
		family("state_"+state, "gauge", "1 where the status is "+state+".", on)
	}
	if t, ok := s.held.(*hold.Table); ok && t.Store() != nil {
		family("store_commits_total", "counter", "Transactions that were written to the file of nodes.", t.Store().Commits())
		family("store_bytes", "gauge", "Size of the file of nodes.", t.Store().Size())
	}
	b.WriteString("# HELP micro_registry_requests_total Requests that were answered.\n# TYPE micro_registry_requests_total counter\n")
	for _, line := range s.metrics.answered() {
		b.WriteString(line)
	}
	w.Header().Set("Content-Type", metricsType)
	_, _ = w.Write([]byte(b.String())) // a client that has gone needs no answer
}

func (m *metrics) answered() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for r, n := range m.requests {
		out = append(out, fmt.Sprintf("micro_registry_requests_total{method=%q,code=\"%d\"} %d\n", r.method, r.code, n))
	}
	sort.Strings(out)
	return out
}

// ready answers 200 where the server can say who is registered, else 503.
func (s *Server) ready(w stdhttp.ResponseWriter, _ *stdhttp.Request) {
	h := s.Health()
	code := stdhttp.StatusOK
	if !s.nodes.Known() || h.Status == "failed" {
		code = stdhttp.StatusServiceUnavailable
	}
	s.answer(w, code, h)
}
