package consul_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/consul"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
	"github.com/cb02dfca/micro/pkg/status"
)

// answering gives a registry on a server of the test.
func answering(t *testing.T, handler http.HandlerFunc) *consul.Registry {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return open(t, consul.Options{Address: s.Listener.Addr().String(), Timeout: 2 * time.Second})
}

func entry(id string) string {
	return fmt.Sprintf(`{"Node":{"Node":"n","Address":"127.0.0.1"},"Service":{"ID":%q,"Service":"greeter","Tags":["v=1"],"Port":80},"Checks":[{"CheckID":"serfHealth","Status":"passing"}]}`, id)
}

// A Consul that counts anew, as one that was restored does, is followed from where it is; and so is one that counts from nothing.
func TestIndexGoesBack(t *testing.T) {
	t.Parallel()
	steps := []struct{ asked, answer, id string }{
		{"", "100", "a"}, {"100", "7", "b"}, {"7", "7", "b"}, {"7", "0", "c"}, {"1", "12", "d"}, {"12", "13", "e"},
	}
	var mu sync.Mutex
	var asked []string
	r := answering(t, func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		asked = append(asked, req.URL.Query().Get("index"))
		n := len(asked)
		mu.Unlock()
		if n > len(steps) {
			<-req.Context().Done()
			return
		}
		w.Header().Set("X-Consul-Index", steps[n-1].answer)
		fmt.Fprintf(w, "[%s]", entry(steps[n-1].id))
	})
	sets := registrytest.Follow(t, r, "greeter")
	for i, step := range steps {
		if i == 2 { // the same again, which nobody hears of
			continue
		}
		if got := registrytest.Expect(t, sets, "anything", func(registrytest.Set) bool { return true }); !registrytest.IDs(step.id)(got) {
			t.Errorf("step %d: the watch yielded %+v, %v, want %s", i, got.Nodes, got.Err, step.id)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i, step := range steps {
		if asked[i] != step.asked {
			t.Errorf("request %d waits from %q, want %q", i, asked[i], step.asked)
		}
	}
}

// A busy Consul, whose index runs while the set stays, is not asked without a pause.
func TestBusyIndex(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	times := []time.Time{}
	r := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, time.Now())
		w.Header().Set("X-Consul-Index", fmt.Sprint(10+len(times)))
		_, _ = io.WriteString(w, "[]")
	})
	registrytest.Expect(t, registrytest.Follow(t, r, "greeter"), "an empty set", registrytest.IDs())
	registrytest.Eventually(t, "it is asked five times", func() bool { mu.Lock(); defer mu.Unlock(); return len(times) >= 5 })
	mu.Lock()
	defer mu.Unlock()
	if took := times[4].Sub(times[0]); took < 600*time.Millisecond { // 50, 100, 200 and 400 ms
		t.Errorf("five requests in %v", took)
	}
}

// What answers and is no Consul, or says what it should not, is unavailable, and says why.
func TestStrangeAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		code         int
		header, body string
		want         string
		is           error
	}{
		"a web page":      {200, "", "<html>", "what answers there is no Consul", registry.ErrUnavailable},
		"no JSON":         {200, "5", "<html>", "what answers there is no Consul", registry.ErrUnavailable},
		"another JSON":    {200, "5", `"x"`, "what answers there is no Consul", registry.ErrUnavailable},
		"not found":       {404, "", "404 page not found", "status 404: 404 page not found", registry.ErrUnavailable},
		"no leader":       {500, "", "No cluster leader", "status 500: No cluster leader", registry.ErrUnavailable},
		"control letters": {500, "", "a\x1b[31m\nb", "status 500: a [31m b", registry.ErrUnavailable},
		"a redirect":      {301, "", "", "status 301", registry.ErrUnavailable},
		"too many":        {429, "", "Your IP is issuing too many concurrent connections", "too many requests or connections", &status.Error{Code: status.ResourceExhausted}},
		"no token":        {403, "", "Permission denied", "it asks for a token: set CONSUL_HTTP_TOKEN, or token-file", &status.Error{Code: status.PermissionDenied}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := answering(t, func(w http.ResponseWriter, _ *http.Request) {
				if tt.header != "" {
					w.Header().Set("X-Consul-Index", tt.header)
				}
				w.WriteHeader(tt.code)
				_, _ = io.WriteString(w, tt.body)
			})
			for what, err := range map[string]error{
				"Get": second(r.Get(t.Context(), "greeter")), "List": second(r.List(t.Context())),
				"Watch": registrytest.Expect(t, registrytest.Follow(t, r, "greeter"), "an error", failed).Err, "Watch of all": registrytest.Expect(t, registrytest.Follow(t, r, ""), "an error", failed).Err,
			} {
				if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s gave %v, want %q", what, err, tt.want)
				}
			}
			if err := r.Register(t.Context(), node("a"), 0); err == nil {
				t.Error("Register gave no error")
			}
		})
	}
}

// An agent that refuses a node says why.
func TestRefusedNode(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var paths []string
	r := answering(t, func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		paths = append(paths, req.Method+" "+req.URL.Path)
		mu.Unlock()
		switch req.Method {
		case http.MethodGet:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"AggregatedStatus":"critical","Service":null,"Checks":null}`)
		default:
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, "Invalid service address")
		}
	})
	if err := r.Register(t.Context(), node("a"), 0); !errors.Is(err, registry.ErrInvalid) || !strings.Contains(err.Error(), "Invalid service address") {
		t.Errorf("Register gave %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"GET /v1/agent/health/service/id/a", "PUT /v1/agent/service/register"}; !slices.Equal(paths, want) {
		t.Errorf("it asked for %q, want %q", paths, want)
	}
}
