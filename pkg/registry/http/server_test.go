package http_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	stdhttp "net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http"
	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
)

const (
	secretA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	secretB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	record  = `{"service":"greeter","address":"127.0.0.1:1"}`
)

func handler(t *testing.T, o registryserver.Options) *registryserver.Server {
	t.Helper()
	s, err := registryserver.New(o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// ask makes a request as curl would: "PUT /v1/nodes/a", headers as "Key: value", a body.
func ask(h stdhttp.Handler, line, body string, headers ...string) *httptest.ResponseRecorder {
	method, target, _ := strings.Cut(line, " ")
	r := httptest.NewRequest(method, "http://127.0.0.1:8000"+target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		key, value, _ := strings.Cut(header, ": ")
		r.Header.Set(key, value)
		if key == "Host" {
			r.Host = value
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestProtocol(t *testing.T) {
	t.Parallel()
	s := handler(t, registryserver.Options{})
	for _, step := range []struct {
		line, body string
		headers    []string
		code       int
		want       string // part of the answer
	}{
		{"GET /healthz", "", nil, 200, `"status":"starting"`},
		{"GET /v1/nodes", "", nil, 200, `"starting":true,"nodes":[]}`},
		{"GET /v1/services", "", nil, 200, `"services":[]`},
		{"GET /v1/services/greeter", "", nil, 404, `no node of the service \"greeter\"`},
		{"GET /v1/nodes/a", "", nil, 404, `"id":"micro.registry","code":404`},
		{"PUT /v1/nodes/a", record, []string{"Micro-Lease: " + secretA}, 201, `"ttl":"30s"}`},
		{"PUT /v1/nodes/a?ttl=1m", record, []string{"Micro-Lease: " + secretA}, 200, `"ttl":"1m0s"}`},
		{"PUT /v1/nodes/a?ttl=1us", record, []string{"Micro-Lease: " + secretA}, 200, `"ttl":"1s"}`},
		{"PUT /v1/nodes/a?ttl=1000h", record, []string{"Micro-Lease: " + secretA}, 200, `"ttl":"1h0m0s"}`},
		{"PUT /v1/nodes/a", record, []string{"Micro-Lease: " + secretB}, 409, `held by another owner`},
		{"PUT /v1/nodes/a", record, nil, 409, `held by another owner`},
		{"DELETE /v1/nodes/a", "", []string{"Micro-Lease: " + secretB}, 409, `held by another owner`},
		{"DELETE /v1/nodes/a", "", nil, 409, `held by another owner`},
		{"DELETE /v1/nodes", "", []string{"Micro-Lease: " + secretB}, 204, ``},
		{"DELETE /v1/nodes", "", nil, 400, `Micro-Lease`},
		{"GET /v1/nodes/a", "", nil, 200, `"id":"a"`},
		{"PUT /v1/nodes/b", `{"id":"b","service":"greeter","version":"2","address":"127.0.0.1:1"}`, nil, 201, `"lease":"`},
		{"GET /v1/services", "", nil, 200, `[{"name":"greeter","nodes":2,"versions":["","2"]}]`},
		{"GET /v1/services/greeter", "", nil, 200, `"nodes":[{"id":"a"`},
		{"DELETE /v1/nodes/a?service=other", "", []string{"Micro-Lease: " + secretA}, 204, ``},
		{"GET /v1/nodes/a", "", nil, 200, `"id":"a"`},
		{"DELETE /v1/nodes/a", "", []string{"Micro-Lease: " + secretA}, 204, ``},
		{"DELETE /v1/nodes/a", "", []string{"Micro-Lease: " + secretA}, 204, ``},
		{"GET /v1/nodes/a", "", nil, 404, ``},

		{"PUT /v1/nodes/c", record, []string{"Content-Type: text/plain"}, 415, `want application/json`},
		{"PUT /v1/nodes/c", record, []string{"Content-Type: application/x-www-form-urlencoded"}, 415, ``},
		{"PUT /v1/nodes/c", `{"id":"other","service":"greeter","address":"x:1"}`, nil, 400, `the body \"other\"`},
		{"PUT /v1/nodes/c", `{"service":"gre/eter","address":"x:1"}`, nil, 400, `service name`},
		{"PUT /v1/nodes/c", `{"service":"greeter"}`, nil, 400, `address`},
		{"PUT /v1/nodes/c", `not JSON`, nil, 400, `not a node`},
		{"PUT /v1/nodes/c", `[]`, nil, 400, `not a node`},
		{"PUT /v1/nodes/c", record + "x", nil, 400, `not a node`},
		{"PUT /v1/nodes/c", `{"service":"greeter","address":"x:1","endpoints":[{"name":"E","response":{"values":[null]}}]}`, nil, 400, `null`},
		{"PUT /v1/nodes/c", `{"x":"` + strings.Repeat("x", 65<<10) + `"}`, nil, 413, `65536 bytes`},
		{"PUT /v1/nodes/c?ttl=soon", record, nil, 400, `ttl`},
		{"PUT /v1/nodes/c?ttl=-1s", record, nil, 400, `ttl`},
		{"PUT /v1/nodes/c?ttl=0", record, nil, 400, `ttl`},
		{"PUT /v1/nodes/c", record, []string{"Micro-Lease: short"}, 400, `32 to 128 hexadecimal digits`},
		{"PUT /v1/nodes/c", record, []string{"Micro-Lease: " + strings.Repeat("x", 32)}, 400, `hexadecimal`},
		{"PUT /v1/nodes/a%20b", record, nil, 400, `node id`},
		{"PUT /v1/nodes/a%2F..%2Fb", record, nil, 400, `node id`},
		{"PUT /v1/nodes/%2Fb", record, nil, 400, `node id`},
		{"PUT /v1/nodes/a/b", record, nil, 404, `no PUT`},
		{"PUT /v1/nodes/a%2Fb", record, []string{"Micro-Lease: " + secretA}, 201, `"ttl"`},
		{"GET /v1/nodes/a%2Fb", "", nil, 200, `"id":"a/b"`},
		{"DELETE /v1/nodes/a%2Fb", "", []string{"Micro-Lease: " + secretA}, 204, ``},
		{"GET /v1/nodes/a%2Fb", "", nil, 404, ``},
		{"GET /v1/nodes/c", "", nil, 404, ``},
		{"GET /v1/watch?service=a/b", "", nil, 400, `no service's name`},
		{"POST /v1/nodes", record, nil, 405, `DELETE, GET, HEAD are`},
		{"POST /v1/nodes/a", record, nil, 405, `DELETE, GET, HEAD, PUT are`},
		{"PUT /v1/services/greeter", record, nil, 405, `GET, HEAD are`},
		{"DELETE /v1/watch", "", nil, 405, `GET, HEAD are`},
		{"PATCH /healthz", "", nil, 405, `GET, HEAD are`},
		{"POST /", "", nil, 405, `GET, HEAD are`},
		{"GET /v2", "", nil, 404, `/v1/nodes`},

		{"GET /v1/nodes", "", []string{"Host: evil.example"}, 421, ``},
		{"GET /v1/nodes", "", []string{"Origin: http://evil.example"}, 403, ``},
		{"PUT /v1/nodes/c", record, []string{"Sec-Fetch-Site: cross-site"}, 403, ``},
		{"GET /v1/nodes", "", []string{"Host: localhost:8000"}, 200, ``},
	} {
		w := ask(s, step.line, step.body, step.headers...)
		if w.Code != step.code || !strings.Contains(w.Body.String(), step.want) {
			t.Errorf("%s %.80s %v\n\tgave %d %s\twant %d %s", step.line, step.body, step.headers, w.Code, w.Body, step.code, step.want)
		}
		if allow := w.Header().Get("Allow"); (w.Code == 405) != (allow != "") || !strings.HasPrefix(step.want, allow) {
			t.Errorf("%s: %d allows %q", step.line, w.Code, allow)
		}
		if w.Code != 204 && w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s gave content type %q", step.line, w.Header().Get("Content-Type"))
		}
	}
	if h := s.Health(); h.Nodes != 1 || h.Revision == 0 {
		t.Errorf("health %+v", h)
	}
}

func TestConflictTellsWhen(t *testing.T) {
	t.Parallel()
	s := handler(t, registryserver.Options{})
	ask(s, "PUT /v1/nodes/a?ttl=20s", record)
	if got := ask(s, "PUT /v1/nodes/a", record).Header().Get("Retry-After"); got != "20" {
		t.Errorf("Retry-After %q", got)
	}
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	s := handler(t, registryserver.Options{MaxNodes: 3, MaxService: 2, MaxWatches: 1})
	put := func(id, service string) int {
		return ask(s, "PUT /v1/nodes/"+id, fmt.Sprintf(`{"service":"%s","address":"x:1"}`, service), "Micro-Lease: "+secretA).Code
	}
	for _, step := range []struct {
		id, service string
		code        int
	}{
		{"a", "one", 201}, {"b", "one", 201}, {"c", "one", 429}, {"c", "two", 201}, {"d", "two", 429},
		{"a", "one", 200}, // a renewal needs no room
		{"a", "two", 200}, // nor does a move
		{"b", "two", 429}, // unless the service is full
	} {
		if code := put(step.id, step.service); code != step.code {
			t.Errorf("%s of %s: %d, want %d", step.id, step.service, code, step.code)
		}
	}
	live := httptest.NewServer(s)
	defer live.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := stream(t, ctx, live.URL+"/v1/watch")
	first.Scan()
	rsp, err := stdhttp.Get(live.URL + "/v1/watch")
	must(t, err)
	defer rsp.Body.Close()
	if rsp.StatusCode != 429 {
		t.Errorf("the second watch got %d", rsp.StatusCode)
	}
	cancel()
	eventually(t, "a watch that ended is still counted", func() bool { return s.Health().Watches == 0 })
}

func stream(t *testing.T, ctx context.Context, url string) *bufio.Scanner {
	t.Helper()
	r, err := stdhttp.NewRequestWithContext(ctx, "GET", url, nil)
	must(t, err)
	rsp, err := stdhttp.DefaultClient.Do(r)
	must(t, err)
	t.Cleanup(func() { rsp.Body.Close() })
	if kind := rsp.Header.Get("Content-Type"); kind != "application/jsonl" {
		t.Errorf("content type %q", kind)
	}
	return bufio.NewScanner(rsp.Body)
}

func TestWatchLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ query, first, put, gone string }{
		{"?service=greeter", "[] [] []", "[a b] [] []", "[b] [] []"},
		{"?service=greeter&changes=true", "[] [] []", "[] [b] []", "[] [] [a]"},
	} {
		t.Run(c.query, func(t *testing.T) {
			t.Parallel()
			s := handler(t, registryserver.Options{Grace: 300 * time.Millisecond})
			live := httptest.NewServer(s)
			t.Cleanup(live.Close)
			lines := stream(t, t.Context(), live.URL+"/v1/watch"+c.query)
			settled := false
			next := func() string { // skips heartbeats
				t.Helper()
				for lines.Scan() {
					var l struct {
						Epoch      string
						Starting   bool
						Nodes, Put []registry.Node
						Gone       []string
					}
					must(t, json.Unmarshal(lines.Bytes(), &l))
					if len(l.Epoch) != 32 {
						t.Errorf("line %s", lines.Bytes())
					}
					settled = settled || !l.Starting
					if l.Nodes != nil || l.Put != nil || l.Gone != nil {
						return fmt.Sprint(ids(l.Nodes), ids(l.Put), l.Gone)
					}
					if settled {
						return "settled"
					}
				}
				t.Fatalf("the stream ended: %v", lines.Err())
				return ""
			}
			if got := next(); got != c.first {
				t.Errorf("first line %s, want %s", got, c.first)
			}
			if got := next(); got != "settled" {
				t.Errorf("line %s, want that the server has settled", got)
			}
			ask(s, "PUT /v1/nodes/a", record, "Micro-Lease: "+secretA)
			next()
			ask(s, "PUT /v1/nodes/b", record, "Micro-Lease: "+secretB)
			if got := next(); got != c.put {
				t.Errorf("line %s, want %s", got, c.put)
			}
			ask(s, "PUT /v1/nodes/b", record, "Micro-Lease: "+secretB) // a renewal is no line
			ask(s, "DELETE /v1/nodes/a", "", "Micro-Lease: "+secretA)
			if got := next(); got != c.gone {
				t.Errorf("line %s, want %s", got, c.gone)
			}
			must(t, s.Close())
			if lines.Scan() {
				t.Errorf("a line after Close: %s", lines.Text())
			}
			if w := ask(s, "GET /v1/nodes", ""); w.Code != 503 {
				t.Errorf("after Close: %d", w.Code)
			}
		})
	}
}

func ids(nodes []registry.Node) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.ID)
	}
	return out
}

func TestTokenOfServer(t *testing.T) {
	t.Parallel()
	s := handler(t, registryserver.Options{Token: "secret"})
	for _, c := range []struct {
		line, auth string
		code       int
	}{
		{"GET /healthz", "", 200}, {"GET /v1/nodes", "", 401}, {"GET /v1/nodes", "Bearer wrong", 401}, {"GET /v1/nodes", "Basic secret", 401},
		{"GET /v1/nodes", "Bearer secret", 200}, {"GET /v1/watch", "", 401}, {"DELETE /v1/nodes", "", 401}, {"GET /x", "", 401},
	} {
		if w := ask(s, c.line, "", "Authorization: "+c.auth); w.Code != c.code {
			t.Errorf("%s with %q: %d, want %d", c.line, c.auth, w.Code, c.code)
		}
	}
}

func TestServeRefusesOpenAddress(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o       registryserver.Options
		refused bool
	}{
		"no token": {registryserver.Options{}, true},
		"token":    {registryserver.Options{Token: "secret"}, false},
		"insecure": {registryserver.Options{Insecure: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			s := handler(t, c.o)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			got := make(chan error, 1)
			go func() { got <- s.Serve(ctx, open{l}) }()
			if c.refused {
				if err := <-got; err == nil || !strings.Contains(err.Error(), "token") {
					t.Errorf("Serve gave %v", err)
				}
				return
			}
			rsp, err := stdhttp.Get("http://" + l.Addr().String() + "/healthz")
			must(t, err)
			must(t, rsp.Body.Close())
			cancel()
			must(t, <-got)
		})
	}
}

// open is a listener that seems to be reached by other machines.
type open struct{ net.Listener }

func (open) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 8000} }

// TestOpenServerWarns each minute, for as long as it serves.
func TestOpenServerWarns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o    registryserver.Options
		at   net.IP
		want int
	}{
		"open":           {registryserver.Options{Insecure: true}, net.IPv4zero, 3},
		"with a token":   {registryserver.Options{Insecure: true, Token: "secret"}, net.IPv4zero, 0},
		"certificates":   {registryserver.Options{Insecure: true, ClientCerts: true}, net.IPv4zero, 0},
		"this machine's": {registryserver.Options{Insecure: true}, net.IPv4(127, 0, 0, 1), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				c.o.Logger = slog.New(slog.NewTextHandler(&log, nil))
				s, err := registryserver.New(c.o)
				must(t, err)
				ctx, cancel := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() { served <- s.Serve(ctx, &silent{ip: c.at, closed: make(chan struct{})}) }()
				time.Sleep(200 * time.Second)
				cancel()
				must(t, <-served)
				time.Sleep(time.Hour)
				if got := strings.Count(log.String(), "level=WARN"); got != c.want || c.want > 0 && !strings.Contains(log.String(), "0.0.0.0:8000") {
					t.Errorf("%d warnings, want %d: %s", got, c.want, log.String())
				}
			})
		})
	}
}

// silent is a listener at an address, to which nobody comes.
type silent struct {
	ip     net.IP
	closed chan struct{}
	once   sync.Once
}

func (l *silent) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l *silent) Close() error              { l.once.Do(func() { close(l.closed) }); return nil }
func (l *silent) Addr() net.Addr            { return &net.TCPAddr{IP: l.ip, Port: 8000} }

func TestServeOnClosedListener(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	s := handler(t, registryserver.Options{})
	if err := s.Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve gave %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]registryserver.Options{
		"ttl over its bound":  {TTL: time.Hour, MaxTTL: time.Minute},
		"ttl under its bound": {TTL: time.Second, MinTTL: time.Minute},
		"negative limit":      {MaxNodes: -1},
		"token with spaces":   {Token: "a b"},
		"token of bytes":      {Token: "a\xff\x00"},
		"token too long":      {Token: strings.Repeat("a", 4097)},
	} {
		if s, err := registryserver.New(o); err == nil {
			_ = s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token, empty := filepath.Join(dir, "token"), filepath.Join(dir, "empty")
	must(t, os.WriteFile(token, []byte("secret\n"), 0o600))
	must(t, os.WriteFile(empty, []byte(" \n"), 0o600))
	openers := registry.Openers{"http": http.Open, "https": http.Open}
	for raw, want := range map[string]string{
		"http://127.0.0.1:8000": "", "https://registry.example/prefix/": "", "http://[::1]:8000": "",
		"http://h:1?token-file=" + url.QueryEscape(token): "",
		"http://h:1?token-file=" + url.QueryEscape(empty): "is empty",
		"http://h:1?token-file=/nowhere":                  "token file",
		"http://h:1?tokenfile=x":                          "unknown parameter",
		"http://user:password@h:1":                        "credentials",
		"http://":                                         "want http://host:port",
		"http://:8000":                                    "want http://host:port",
		"http://h:1#x":                                    "no fragment",
		"http://h:99999":                                  "from 1 to 65535",
	} {
		r, err := openers.Open(t.Context(), raw)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Open %s gave %v, want %q", raw, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "password") {
			t.Errorf("the error shows the password: %v", err)
		}
		if r != nil {
			must(t, r.Close())
		}
	}
}

func TestTokenFileAndPrefix(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("secret\n"), 0o600))
	s := httptest.NewServer(stdhttp.StripPrefix("/registry", handler(t, registryserver.Options{Token: "secret"})))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL + "/registry/?token-file=" + url.QueryEscape(token))
	must(t, err)
	r, err := http.Open(t.Context(), u)
	must(t, err)
	defer r.Close()
	must(t, r.Register(t.Context(), node("a"), 0))
	nodes, err := r.Get(t.Context(), "greeter")
	if err != nil || len(nodes) != 1 {
		t.Errorf("%v, %v", nodes, err)
	}
}

// What the server is given by strangers never breaks it: every body is refused, or is a node that is given back.
func FuzzPut(f *testing.F) {
	for _, seed := range []string{record, `{}`, `null`, `[`, `{"endpoints":[null]}`, `{"endpoints":[{"request":{"values":[null]}}]}`,
		`{"service":"a","address":"b:1","metadata":{"k":null}}`, "{\"service\":\"a\",\"address\":\"b:1\",\"version\":\"\xff\"}"} {
		f.Add([]byte(seed))
	}
	s, err := registryserver.New(registryserver.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, body []byte) {
		w := ask(s, "PUT /v1/nodes/a", string(body), "Micro-Lease: "+secretA, "Content-Type: application/json")
		if w.Code != 200 && w.Code != 201 {
			if w.Code >= 500 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			return
		}
		var n registry.Node
		got := ask(s, "GET /v1/nodes/a", "")
		if err := json.Unmarshal(got.Body.Bytes(), &n); err != nil {
			t.Fatal(err)
		}
		if err := registry.Validate(n); err != nil {
			t.Fatalf("%s became %s: %v", body, got.Body, err)
		}
	})
}

// fixed answers every request with the same body.
type fixed struct {
	kind string
	body []byte
}

func (f fixed) RoundTrip(*stdhttp.Request) (*stdhttp.Response, error) {
	return &stdhttp.Response{
		StatusCode: 200, Header: stdhttp.Header{"Content-Type": {f.kind}}, Body: io.NopCloser(strings.NewReader(string(f.body))),
	}, nil
}

// What a server answers never breaks the client: it is refused, or it is a sorted set of valid nodes.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{`{"epoch":"` + epoch + `","revision":3,"starting":true,"nodes":[` + `{"id":"a","service":"greeter","address":"x:1"},null]}`,
		`{"epoch":"` + epoch + `","nodes":null}`, `{}`,
		`{"epoch":"` + epoch + `","nodes":[]}` + "\n" + `{"epoch":"` + epoch + `","put":[{"id":"a","service":"s","address":"x:1"},1],"gone":["a",""]}`, `{"epoch":"` + epoch + `","ttl":"1h","nodes":[{"id":"a"}]}` + "\n{}", "\n\n", `[[[[`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		check := func(nodes []registry.Node, err error) {
			if err != nil && !errors.Is(err, registry.ErrUnavailable) {
				t.Fatal(err)
			}
			for i, n := range nodes {
				if err := registry.Validate(n); err != nil {
					t.Fatal(err)
				}
				if i > 0 && nodes[i-1].Service == n.Service && nodes[i-1].ID >= n.ID {
					t.Fatalf("%s before %s", nodes[i-1].ID, n.ID)
				}
			}
		}
		r, err := http.New(http.Options{URL: "http://h:1", Client: &stdhttp.Client{Transport: fixed{"application/json", body}}})
		must(t, err)
		defer r.Close()
		check(r.List(t.Context()))
		w, err := http.New(http.Options{URL: "http://h:1", Client: &stdhttp.Client{Transport: fixed{"application/jsonl", body}}})
		must(t, err)
		defer w.Close()
		for nodes, err := range w.Watch(t.Context(), "") {
			check(nodes, err)
			break
		}
	})
}
