package http_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http"
	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// before makes copies of a server before one registry.
func before(t *testing.T, n int, o registryserver.Options) (copies []*registryserver.Server, behind *memory.Registry) {
	t.Helper()
	behind = memory.New()
	t.Cleanup(func() { must(t, behind.Close()) })
	for range n {
		view := behind.View()
		t.Cleanup(func() { must(t, view.Close()) })
		o.Registry, o.RegistryName = view, "memory"
		copies = append(copies, handler(t, o))
	}
	return copies, behind
}

// TestFrontConformance: each client uses another one of three copies.
func TestFrontConformance(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, registrytest.Harness{
		New: func(t *testing.T) registrytest.Open {
			copies, _ := before(t, 3, registryserver.Options{MinTTL: time.Millisecond, MaxWrites: 10_000})
			var urls []string
			for _, c := range copies {
				live := httptest.NewServer(c)
				t.Cleanup(live.Close)
				t.Cleanup(live.CloseClientConnections)
				urls = append(urls, live.URL)
			}
			var turn atomic.Uint64
			return func(t *testing.T) registry.Registry {
				r, err := http.New(http.Options{URL: urls[turn.Add(1)%uint64(len(urls))]})
				must(t, err)
				return r
			}
		},
		Shared: true, Endpoints: true, Conflicts: true, Crowd: 100,
	})
}

// TestCopies: what one copy took, the others show, renew, change and take away, for its owner alone.
func TestCopies(t *testing.T) {
	t.Parallel()
	copies, behind := before(t, 2, registryserver.Options{MaxWrites: 1000})
	a, b := copies[0], copies[1]
	if a.Health().Epoch != b.Health().Epoch {
		t.Error("two copies have two epochs")
	}
	eventually(t, "a copy does not get ready", func() bool { return ask(a, "GET /v1/nodes", "").Code == 200 && ask(b, "GET /v1/nodes", "").Code == 200 })
	put := func(s *registryserver.Server, version, secret string) int {
		return ask(s, "PUT /v1/nodes/x", fmt.Sprintf(`{"service":"greeter","version":"%s","address":"127.0.0.1:1"}`, version), "Micro-Lease: "+secret).Code
	}
	if code := put(a, "1", secretA); code != 201 {
		t.Fatal(code)
	}
	eventually(t, "the other copy does not show it", func() bool { return ask(b, "GET /v1/nodes/x", "").Code == 200 })
	if got := ask(b, "GET /v1/nodes/x", "").Body.String(); strings.Contains(got, "registry.lease") {
		t.Errorf("the node shows its owner: %s", got)
	}
	if code := put(b, "1", secretB); code != 409 {
		t.Errorf("another owner: %d", code)
	}
	for i, s := range []*registryserver.Server{b, a, b} {
		version := fmt.Sprint(i + 2)
		if code := put(s, version, secretA); code != 200 && code != 201 { // it may be new to the copy
			t.Errorf("a change by the other copy: %d", code)
		}
		if got := ask(s, "GET /v1/nodes/x", "").Body.String(); !strings.Contains(got, `"version":"`+version+`"`) {
			t.Errorf("after it: %s", got)
		}
	}
	if w := ask(a, "DELETE /v1/nodes/x", "", "Micro-Lease: "+secretB); w.Code != 409 {
		t.Errorf("taken away by another owner: %d", w.Code)
	}
	eventually(t, "the owner cannot take it away", func() bool { return ask(a, "DELETE /v1/nodes/x", "", "Micro-Lease: "+secretA).Code == 204 })
	eventually(t, "the node is left", func() bool { _, err := behind.Get(t.Context(), "greeter"); return errors.Is(err, registry.ErrNotFound) })

	direct := node("direct")
	must(t, behind.Register(t.Context(), direct, 0))
	eventually(t, "what is registered there does not show", func() bool { return ask(a, "GET /v1/nodes/direct", "").Code == 200 })
	if w := ask(a, "PUT /v1/nodes/direct", record, "Micro-Lease: "+secretA); w.Code != 409 {
		t.Errorf("a node of another owner: %d", w.Code)
	}
}

// TestCopyIsGone: a node whose copy is no more stays its owner's, by another one, and lapses for nobody.
func TestCopyIsGone(t *testing.T) {
	t.Parallel()
	behind := memory.New()
	defer behind.Close()
	gone, left := behind.View(), behind.View()
	defer gone.Close()
	defer left.Close()
	first := handler(t, registryserver.Options{Registry: gone, RegistryName: "memory"})
	eventually(t, "not ready", func() bool { return ask(first, "GET /v1/nodes", "").Code == 200 })
	if w := ask(first, "PUT /v1/nodes/x?ttl=4s", record, "Micro-Lease: "+secretA); w.Code != 201 {
		t.Fatal(w.Code)
	}
	must(t, first.Close()) // its view keeps the lease, as a cluster would
	second := handler(t, registryserver.Options{Registry: left, RegistryName: "memory"})
	eventually(t, "not ready", func() bool { return ask(second, "GET /v1/nodes/x", "").Code == 200 })
	if w := ask(second, "PUT /v1/nodes/x?ttl=10s", record, "Micro-Lease: "+secretA); w.Code != 200 {
		t.Errorf("a renewal: %d %s", w.Code, w.Body)
	}
	now, err := behind.Get(t.Context(), "greeter")
	must(t, err)
	eventually(t, "the other copy does not take it over", func() bool {
		nodes, err := behind.Get(t.Context(), "greeter")
		return err == nil && nodes[0].Metadata["registry.copy"] != now[0].Metadata["registry.copy"]
	})
}

// TestRegistryBehindIsAway: what was known is served, and a server that never knew says so.
func TestRegistryBehindIsAway(t *testing.T) {
	t.Parallel()
	behind := serve(t, registryserver.Options{})
	r := behind.client(http.Options{})
	s := handler(t, registryserver.Options{Registry: r, RegistryName: "behind"})
	eventually(t, "not ready", func() bool { return ask(s, "PUT /v1/nodes/x", record, "Micro-Lease: "+secretA).Code == 201 })
	behind.stop()
	eventually(t, "does not say that it is away", func() bool { return s.Health().Status == "away" })
	if w := ask(s, "GET /v1/nodes/x", ""); w.Code != 200 {
		t.Errorf("what was known: %d", w.Code)
	}
	if w := ask(s, "PUT /v1/nodes/y", record, "Micro-Lease: "+secretA); w.Code != 503 {
		t.Errorf("a new node: %d %s", w.Code, w.Body)
	}
	late := handler(t, registryserver.Options{Registry: behind.client(http.Options{}), RegistryName: "behind"})
	if w := ask(late, "GET /v1/nodes", ""); w.Code != 503 {
		t.Errorf("nothing was known: %d", w.Code)
	}
	behind.start()
	eventually(t, "does not come back", func() bool { return s.Health().Status == "ok" && ask(late, "GET /v1/nodes", "").Code == 200 })
}
