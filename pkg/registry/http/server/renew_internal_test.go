package server

import (
	"net"
	stdhttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/registry/http/internal/shortcut"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
)

// TestWhatIsARenewal: the shortcut takes what the handler would answer with 200 without a change, and nothing else.
func TestWhatIsARenewal(t *testing.T) {
	t.Parallel()
	const (
		lease = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		body  = `{"service":"greeter","address":"127.0.0.1:1"}`
	)
	local, far := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}
	renewal := shortcut.Request{
		Path: []byte("/v1/nodes/a"), Query: []byte("ttl=1m"), Host: []byte("127.0.0.1:8000"), ContentType: []byte("application/json"),
		Authorization: []byte("Bearer secret"), Lease: []byte(lease), Body: []byte(body), Remote: local,
	}
	for name, c := range map[string]struct {
		o      Options
		change func(*Server, *shortcut.Request)
		taken  bool
	}{
		"a renewal":              {Options{}, func(*Server, *shortcut.Request) {}, true},
		"with the token":         {Options{Token: "secret"}, func(*Server, *shortcut.Request) {}, true},
		"a little less":          {Options{}, func(_ *Server, r *shortcut.Request) { r.Query = []byte("ttl=59.99s") }, true},
		"cut to what is given":   {Options{TTL: 1e9, MaxTTL: 60e9}, func(_ *Server, r *shortcut.Request) { r.Query = []byte("ttl=1h") }, true},
		"another ttl":            {Options{}, func(_ *Server, r *shortcut.Request) { r.Query = []byte("ttl=30s") }, false},
		"no ttl":                 {Options{}, func(_ *Server, r *shortcut.Request) { r.Query = nil }, false},
		"a wrong ttl":            {Options{}, func(_ *Server, r *shortcut.Request) { r.Query = []byte("ttl=soon") }, false},
		"a ttl in escapes":       {Options{}, func(_ *Server, r *shortcut.Request) { r.Query = []byte("ttl=%31m") }, false},
		"more in the query":      {Options{}, func(_ *Server, r *shortcut.Request) { r.Query = []byte("ttl=1m&owner=none") }, false},
		"another query":          {Options{}, func(_ *Server, r *shortcut.Request) { r.Query = []byte("owner=none") }, false},
		"a wrong token":          {Options{Token: "other"}, func(*Server, *shortcut.Request) {}, false},
		"another scheme":         {Options{Token: "secret"}, func(_ *Server, r *shortcut.Request) { r.Authorization = []byte("Basic secret") }, false},
		"another lease":          {Options{}, func(_ *Server, r *shortcut.Request) { r.Lease = []byte(strings.Repeat("b", 32)) }, false},
		"no lease":               {Options{}, func(_ *Server, r *shortcut.Request) { r.Lease = nil }, false},
		"another record":         {Options{}, func(_ *Server, r *shortcut.Request) { r.Body = []byte(strings.Replace(body, "1:1", "1:2", 1)) }, false},
		"the same, otherwise":    {Options{}, func(_ *Server, r *shortcut.Request) { r.Body = []byte(body + " ") }, false},
		"another type":           {Options{}, func(_ *Server, r *shortcut.Request) { r.ContentType = []byte("text/plain") }, false},
		"a foreign host":         {Options{}, func(_ *Server, r *shortcut.Request) { r.Host = []byte("evil.example") }, false},
		"an allowed host":        {Options{AllowedHosts: []string{"reg.example"}}, func(_ *Server, r *shortcut.Request) { r.Host = []byte("reg.example:80") }, true},
		"another node":           {Options{}, func(_ *Server, r *shortcut.Request) { r.Path = []byte("/v1/nodes/b") }, false},
		"a path that is cleaned": {Options{}, func(_ *Server, r *shortcut.Request) { r.Path = []byte("/v1/nodes//a") }, false},
		"an id in escapes":       {Options{}, func(_ *Server, r *shortcut.Request) { r.Path = []byte("/v1/nodes/%61") }, false},
		"an id that looks so": {Options{}, func(s *Server, r *shortcut.Request) {
			put(s, "/v1/nodes/%2561", body, lease)
			r.Path = []byte("/v1/nodes/%61")
		}, false},
		"an id with a slash": {Options{}, func(s *Server, r *shortcut.Request) {
			put(s, "/v1/nodes/a%2Fb", body, lease)
			r.Path = []byte("/v1/nodes/a/b")
		}, false},
		"of another machine":  {Options{}, func(_ *Server, r *shortcut.Request) { r.Remote = far }, true},
		"too many":            {Options{MaxWrites: 1}, func(s *Server, _ *shortcut.Request) { spend(s, lease, "/v1/nodes") }, false},
		"a lapsed node":       {Options{}, func(s *Server, _ *shortcut.Request) { _ = s.held.Evict(t.Context(), "greeter", "a") }, false},
		"a server that stops": {Options{}, func(s *Server, _ *shortcut.Request) { _ = s.Close() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			answer := s.renewals("127.0.0.1:8000")
			put(s, "/v1/nodes/a?ttl=1m", body, lease)
			put(s, "/v1/nodes/a?ttl=1m", body, lease)
			r := renewal
			c.change(s, &r)
			changes := s.nodes.Revision()
			out, ok := answer(nil, &r)
			if ok != c.taken {
				t.Fatalf("taken: %t: %s", ok, out)
			}
			if s.nodes.Revision() != changes {
				t.Error("it changed the nodes")
			}
		})
	}
}

// TestRefusedRenewalsAreNotCounted: what the shortcut leaves to the handler does not count twice towards what a client may write.
func TestRefusedRenewalsAreNotCounted(t *testing.T) {
	t.Parallel()
	s, err := New(Options{MaxWrites: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(s, "/v1/nodes/a", "{\"service\":\"greeter\",\"address\":\"127.0.0.1:1\"}", strings.Repeat("a", 32))
	r := shortcut.Request{Path: []byte("/v1/nodes/a"), Query: []byte("ttl=1m"), Host: []byte("localhost"), ContentType: []byte("application/json"),
		Lease: []byte(strings.Repeat("a", 32)), Body: []byte("{\"service\":\"greeter\",\"address\":\"127.0.0.1:1\"}"), Remote: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	answer := s.renewals("127.0.0.1:8000")
	for range 100 {
		if _, ok := answer(nil, &r); ok {
			t.Fatal("a change of the ttl was taken for a renewal")
		}
	}
	if code := put(s, "/v1/nodes/a?ttl=1m", string(r.Body), string(r.Lease)); code != 200 {
		t.Errorf("then the handler gave %d", code)
	}
}

// put registers a node as a program of this machine.
func put(s *Server, target, body, lease string) int {
	r := httptest.NewRequest(stdhttp.MethodPut, "http://127.0.0.1:8000"+target, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:4711"
	r.Header.Set("Content-Type", wire.JSONType)
	r.Header.Set(wire.LeaseHeader, lease)
	r.Header.Set("Authorization", "Bearer "+s.o.Token)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code
}

// spend writes until the client may write no more.
func spend(s *Server, lease, target string) {
	for put(s, target+"/none", "", lease) != stdhttp.StatusTooManyRequests {
	}
}
