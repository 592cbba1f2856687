package http_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	stdhttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http"
	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
	"github.com/cb02dfca/micro/pkg/status"
)

const epoch = "00112233445566778899aabbccddeeff"

// follow runs a watch, and gives each of its steps as text: ids, or "error". The watch ends with the test.
func follow(t *testing.T, r registry.Registry) (next func() string) {
	t.Helper()
	steps, ended := make(chan string, 100), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(ended)
		for nodes, err := range r.Watch(ctx, "greeter") {
			text := ""
			for _, n := range nodes {
				text += n.ID
			}
			if err != nil {
				if text = "error"; !errors.Is(err, registry.ErrUnavailable) {
					text = err.Error()
				}
			}
			steps <- text
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return func() string {
		t.Helper()
		select {
		case step := <-steps:
			return step
		case <-time.After(20 * time.Second):
			t.Fatal("the watch yields nothing")
			return ""
		}
	}
}

func expect(t *testing.T, next func() string, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := next(); got != w {
			t.Fatalf("the watch yielded %q, want %q of %q", got, w, want)
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func TestServerIsNotThere(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	r, err := http.New(http.Options{URL: "http://" + address})
	must(t, err)
	defer r.Close()
	_, getErr := r.Get(t.Context(), "greeter")
	_, listErr := r.List(t.Context())
	for what, err := range map[string]error{
		"Register": r.Register(t.Context(), node("a"), 0), "Deregister": r.Deregister(t.Context(), node("a")), "Get": getErr, "List": listErr,
	} {
		want := "registry: unavailable: " + address + " is not answering: connection refused"
		if !errors.Is(err, registry.ErrUnavailable) || err.Error() != want {
			t.Errorf("%s gave %v, want %s", what, err, want)
		}
	}
	expect(t, follow(t, r), "error")
}

func TestWatchOverRestart(t *testing.T) {
	t.Parallel()
	s := serve(t, registryserver.Options{MinTTL: time.Millisecond, Grace: 10 * time.Second})
	watcher, owner, other := s.client(http.Options{}), s.client(http.Options{}), s.client(http.Options{})
	next := follow(t, watcher)
	expect(t, next, "")
	must(t, owner.Register(t.Context(), node("a"), time.Minute))
	expect(t, next, "a")
	must(t, other.Register(t.Context(), node("z"), 100*time.Millisecond)) // is not renewed
	expect(t, next, "az", "a")
	must(t, other.Register(t.Context(), node("b"), time.Minute))
	expect(t, next, "ab")
	s.stop()
	expect(t, next, "error")
	if _, err := watcher.Get(t.Context(), "greeter"); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("Get gave %v", err)
	}
	s.start()
	// Nobody is missing while the server starts, though it knows nobody at first.
	expect(t, next, "ab")
	must(t, watcher.Register(t.Context(), node("c"), time.Minute))
	expect(t, next, "abc")
	must(t, watcher.Deregister(t.Context(), node("c")))
	expect(t, next, "ab")
}

func TestLostNodesArePutAgain(t *testing.T) {
	t.Parallel()
	s := serve(t, registryserver.Options{Grace: -1})
	owner := s.client(http.Options{Probe: 50 * time.Millisecond})
	must(t, owner.Register(t.Context(), node("a"), time.Minute))
	must(t, owner.Register(t.Context(), node("b"), 0))
	must(t, owner.Register(t.Context(), node("gone"), time.Minute))
	must(t, owner.Deregister(t.Context(), node("gone")))
	s.stop()
	s.start()
	other := s.client(http.Options{})
	eventually(t, "the nodes did not come back", func() bool {
		nodes, err := other.List(t.Context())
		return err == nil && len(nodes) == 2 && nodes[0].Equal(node("a")) && nodes[1].Equal(node("b"))
	})
	if err := other.Register(t.Context(), node("a"), 0); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("another owner got the id: %v", err)
	}
	must(t, owner.Close())
	nodes, err := other.List(t.Context())
	if err != nil || len(nodes) != 0 {
		t.Errorf("after Close: %d nodes, %v", len(nodes), err)
	}
}

func TestNodeMissingAfterStartGoes(t *testing.T) {
	t.Parallel()
	s := serve(t, registryserver.Options{Grace: 3 * time.Second})
	network := &cut{inner: &stdhttp.Transport{}}
	t.Cleanup(network.inner.CloseIdleConnections)
	owner := s.client(http.Options{Client: &stdhttp.Client{Transport: network}})
	must(t, owner.Register(t.Context(), node("a"), time.Minute))
	next := follow(t, s.client(http.Options{}))
	expect(t, next, "a")
	network.dead.Store(true) // its process dies
	s.stop()
	s.start()
	expect(t, next, "error", "a", "")
}

func TestCloseWhileServerIsAway(t *testing.T) {
	t.Parallel()
	s := serve(t, registryserver.Options{})
	r := s.client(http.Options{})
	must(t, r.Register(t.Context(), node("a"), 0))
	s.stop()
	err := r.Close()
	if !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "not withdrawn, and lapse: 1") {
		t.Errorf("Close gave %v", err)
	}
	if again := r.Close(); again == nil || again.Error() != err.Error() {
		t.Errorf("Close gave %v the second time", again)
	}
}

func TestIDTakenWhileServerWasAway(t *testing.T) {
	t.Parallel()
	s := serve(t, registryserver.Options{})
	network := &cut{inner: &stdhttp.Transport{}}
	t.Cleanup(network.inner.CloseIdleConnections)
	first := s.client(http.Options{Client: &stdhttp.Client{Transport: network}, Probe: 20 * time.Millisecond})
	must(t, first.Register(t.Context(), node("a"), time.Minute))
	network.dead.Store(true)
	s.stop()
	s.start()
	second := s.client(http.Options{})
	n := node("a")
	n.Version = "2"
	must(t, second.Register(t.Context(), n, time.Minute))
	network.dead.Store(false) // the first one is back, and finds its id taken
	eventually(t, "the first owner does not learn of it", func() bool {
		return errors.Is(first.Register(t.Context(), node("a"), time.Minute), registry.ErrConflict)
	})
	nodes, err := second.Get(t.Context(), "greeter")
	if err != nil || len(nodes) != 1 || nodes[0].Version != "2" {
		t.Errorf("%v, %v", nodes, err)
	}
}

// odd serves the same answer to everything.
func odd(t *testing.T, kind string, code int, body func(w io.Writer)) *http.Registry {
	t.Helper()
	s := httptest.NewServer(stdhttp.HandlerFunc(func(w stdhttp.ResponseWriter, _ *stdhttp.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(code)
		body(w)
	}))
	t.Cleanup(s.Close)
	r, err := http.New(http.Options{URL: s.URL, MaxAnswer: 1 << 20})
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestOddAnswers(t *testing.T) {
	t.Parallel()
	text := func(s string) func(io.Writer) { return func(w io.Writer) { _, _ = io.WriteString(w, s) } }
	for name, c := range map[string]struct {
		kind string
		code int
		body func(io.Writer)
	}{
		"a web page":          {"text/html", 200, text("<html>hello</html>")},
		"a web page, as JSON": {"application/json", 200, text("<html>hello</html>")},
		"not found elsewhere": {"text/plain", 404, text("404 page not found")},
		"an API's not found":  {"application/json", 404, text(`{"error":"not found"}`)},
		"an empty object":     {"application/json", 200, text(`{}`)},
		"a JSON array":        {"application/json", 200, text(`[1,2]`)},
		"no nodes":            {"application/json", 200, text(`{"epoch":"` + epoch + `"}`)},
		"a bad epoch":         {"application/json", 200, text(`{"epoch":"x","nodes":[]}`)},
		"a redirect":          {"text/html", 302, text("")},
		"broken":              {"text/html", 500, text("oops")},
		"a proxy's 503":       {"text/html", 503, text("oops")},
		"nothing":             {"application/json", 200, text("")},
		"half a JSON":         {"application/json", 200, text(`{"epoch":"` + epoch + `","nodes":[{"id"`)},
		"huge": {"application/json", 200, func(w io.Writer) {
			_, _ = io.WriteString(w, `{"epoch":"`)
			for range 64 {
				_, _ = io.WriteString(w, strings.Repeat("0", 64<<10))
			}
		}},
		"huge line": {"application/jsonl", 200, func(w io.Writer) {
			for range 64 {
				_, _ = io.WriteString(w, strings.Repeat("0", 64<<10))
			}
		}},
		"lines of garbage": {"application/jsonl", 200, text("\x00\x01\n\n\n{}\n")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := odd(t, c.kind, c.code, c.body)
			_, getErr := r.Get(t.Context(), "greeter")
			_, listErr := r.List(t.Context())
			for what, err := range map[string]error{"Get": getErr, "List": listErr, "Register": r.Register(t.Context(), node("a"), 0)} {
				if !errors.Is(err, registry.ErrUnavailable) || errors.Is(err, registry.ErrNotFound) {
					t.Errorf("%s gave %v", what, err)
				}
			}
			expect(t, follow(t, r), "error")
		})
	}
}

func TestBadRecordsAreLeftOut(t *testing.T) {
	t.Parallel()
	good := `{"id":"a","service":"greeter","address":"127.0.0.1:1"}`
	body := fmt.Sprintf(`{"epoch":"%s","nodes":[null,1,{},{"id":"b","service":"gre eter","address":"x:1"},`+
		`{"id":"c","service":"greeter","address":"127.0.0.1:1","metadata":{"k":"\u001b[31m"}},%s,%s,`+
		`{"id":"d","service":"greeter","address":"127.0.0.1:1","metadata":{"k":"%s"}},`+
		`{"id":"e","service":"greeter","address":"127.0.0.1:1","endpoints":[{"name":"E","request":{"values":[null]}}]},`+
		`{"id":"o","service":"other","address":"127.0.0.1:1"}]}`, epoch, good, good, strings.Repeat("x", 70<<10))
	r := odd(t, "application/json", 200, func(w io.Writer) { _, _ = io.WriteString(w, body) })
	nodes, err := r.Get(t.Context(), "greeter")
	if err != nil || len(nodes) != 1 || nodes[0].ID != "a" {
		t.Errorf("%v, %v", nodes, err)
	}
}

func TestSlowServer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := httptest.NewServer(stdhttp.HandlerFunc(func(_ stdhttp.ResponseWriter, r *stdhttp.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(release) })
	r, err := http.New(http.Options{URL: s.URL, Timeout: 50 * time.Millisecond})
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	if _, err := r.List(t.Context()); !errors.Is(err, registry.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("List gave %v", err)
	}
	expect(t, follow(t, r), "error")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(5*time.Millisecond, cancel)
	if err := r.Register(ctx, node("a"), 0); !errors.Is(err, context.Canceled) || errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("Register gave %v", err)
	}
}

func TestCloseEndsQuestions(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 2)
	s := httptest.NewServer(stdhttp.HandlerFunc(func(_ stdhttp.ResponseWriter, r *stdhttp.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	r, err := http.New(http.Options{URL: s.URL, Timeout: time.Minute})
	must(t, err)
	got := make(chan error)
	go func() { _, err := r.List(t.Context()); got <- err }()
	<-arrived
	must(t, r.Close())
	if err := <-got; !errors.Is(err, registry.ErrClosed) {
		t.Errorf("List gave %v", err)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	s := serve(t, registryserver.Options{Token: "0123456789abcdef"})
	for _, token := range []string{"", "wrong"} {
		r := s.client(http.Options{Token: token})
		_, err := r.List(t.Context())
		if status.CodeOf(err) != status.Unauthenticated || errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("List with token %q gave %v", token, err)
		}
		if err := r.Register(t.Context(), node("a"), 0); status.CodeOf(err) != status.Unauthenticated {
			t.Errorf("Register with token %q gave %v", token, err)
		}
		if got := follow(t, r)(); !strings.Contains(got, "wants its token") {
			t.Errorf("Watch with token %q gave %s", token, got)
		}
	}
	r := s.client(http.Options{Token: "0123456789abcdef"})
	must(t, r.Register(t.Context(), node("a"), 0))
	expect(t, follow(t, r), "a")
}
