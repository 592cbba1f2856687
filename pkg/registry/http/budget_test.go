package http_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
)

// from asks as a client of an address.
func from(h *registryserver.Server, addr, line string, headers map[string]string) *httptest.ResponseRecorder {
	method, target, _ := strings.Cut(line, " ")
	body := ""
	if method == "PUT" {
		body = record
	}
	r := httptest.NewRequest(method, "http://127.0.0.1:8000"+target, strings.NewReader(body))
	r.RemoteAddr = addr + ":4711"
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for key, value := range headers {
		r.Header.Set(key, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestWritesArePaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := handler(t, registryserver.Options{MaxWrites: 5})
		a := map[string]string{"Micro-Lease": secretA}
		b := map[string]string{"Micro-Lease": secretB}
		write := func(addr string, lease map[string]string, times int) (taken int) {
			for range times {
				w := from(s, addr, "DELETE /v1/nodes", lease)
				switch {
				case w.Code == 204:
					taken++
				case w.Code != 429 || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "5 times a second"):
					t.Fatalf("gave %d %v %s", w.Code, w.Header(), w.Body)
				}
			}
			return taken
		}
		for _, step := range []struct {
			what, addr string
			lease      map[string]string
			want       int
		}{
			{"a burst", "10.0.0.1", a, 50},
			{"of another lease", "10.0.0.1", b, 0},
			{"of another address", "10.0.0.2", a, 50},
			{"on this machine", "127.0.0.1", a, 50},
			{"of another program of it", "127.0.0.1", b, 50},
			{"once more", "[::1]", a, 0},
		} {
			if got := write(step.addr, step.lease, 60); got != step.want {
				t.Errorf("%s: %d writes were taken, want %d", step.what, got, step.want)
			}
		}
		if w := from(s, "10.0.0.1", "GET /v1/nodes", nil); w.Code != 200 {
			t.Errorf("to read is refused too: %d", w.Code)
		}
		time.Sleep(2 * time.Second)
		if got := write("10.0.0.1", a, 60); got != 10 {
			t.Errorf("after two seconds %d writes were taken", got)
		}
	})
}

// Of more clients than are told apart the rest share a budget, until others' are full again.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := handler(t, registryserver.Options{MaxWrites: 1})
		write := func(i int) int {
			return from(s, fmt.Sprintf("10.0.%d.%d", i/250, i%250), "DELETE /v1/nodes", map[string]string{"Micro-Lease": secretA}).Code
		}
		for i := range 10_100 {
			if got, want := write(i), map[bool]int{true: 204, false: 429}[i < 10_010]; got != want {
				t.Fatalf("writer %d: %d, want %d", i, got, want)
			}
		}
		time.Sleep(time.Second)
		if got := write(10_050); got != 204 {
			t.Errorf("a second later: %d", got)
		}
	})
}

func TestWrongTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := handler(t, registryserver.Options{Token: "secret"})
		good, bad := map[string]string{"Authorization": "Bearer secret"}, map[string]string{"Authorization": "Bearer guess"}
		get := func(addr string, headers map[string]string) int {
			return from(s, addr, "GET /v1/nodes", headers).Code
		}
		for _, addr := range []string{"10.0.0.1", "127.0.0.1"} {
			for i := range 20 {
				if got, want := get(addr, bad), map[bool]int{true: 401, false: 429}[i < 10]; got != want {
					t.Fatalf("wrong token %d of %s gave %d, want %d", i, addr, got, want)
				}
			}
		}
		if got := get("10.0.0.1", good); got != 429 {
			t.Errorf("after ten wrong tokens the next gave %d", got)
		}
		if got := get("127.0.0.1", good); got != 200 {
			t.Errorf("one program's wrong tokens gave another %d", got)
		}
		if got := get("10.0.0.2", good); got != 200 {
			t.Errorf("another address's token gave %d", got)
		}
		time.Sleep(time.Second)
		if got := get("10.0.0.1", good); got != 200 {
			t.Errorf("a second later the token gave %d", got)
		}
	})
}
