package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func node(service, id string) registry.Node {
	return registry.Node{ID: id, Service: service, Address: "127.0.0.1:1"}
}

// follow watches in the background and writes what it saw down: ids, or the error.
func follow(ctx context.Context, h *hub.Hub, service string) *[]string {
	var seen []string
	go func() {
		for nodes, err := range h.Watch(ctx, service) {
			text := "["
			for _, n := range nodes {
				text += n.ID
			}
			text += "]"
			if err != nil {
				text = err.Error()
			}
			seen = append(seen, text)
		}
		seen = append(seen, "end")
	}()
	return &seen
}

func TestWatchers(t *testing.T) {
	t.Parallel()
	lost := errors.New("lost")
	a, b, other := node("greeter", "a"), node("greeter", "b"), node("auth", "o")
	for _, c := range []struct {
		name    string
		hub     func() *hub.Hub
		steps   []func(*hub.Hub)
		greeter []string
		all     []string
	}{
		{"known and empty", hub.New, nil, []string{"[]", "end"}, []string{"[]", "end"}},
		{"pending", hub.NewPending, nil, []string{"end"}, []string{"end"}},
		{"pending, then empty", hub.NewPending, []func(*hub.Hub){
			func(h *hub.Hub) { h.Replace(nil) },
			func(h *hub.Hub) { h.Replace(nil) },
		}, []string{"[]", "end"}, []string{"[]", "end"}},
		{"pending, then a put of another service", hub.NewPending, []func(*hub.Hub){
			func(h *hub.Hub) { h.Put(other) },
		}, []string{"[]", "end"}, []string{"[o]", "end"}},
		{"replace wakes who changed", hub.New, []func(*hub.Hub){
			func(h *hub.Hub) { h.Replace([]registry.Node{b, other, a}) },
			func(h *hub.Hub) { h.Replace([]registry.Node{a, b, other, {ID: "a", Service: "auth"}}) },
			func(h *hub.Hub) { h.Replace([]registry.Node{a, b}) },
		}, []string{"[]", "[ab]", "end"}, []string{"[]", "[oab]", "[ab]", "end"}},
		{"several at once", hub.NewPending, []func(*hub.Hub){
			func(h *hub.Hub) { h.Apply([]registry.Node{b, a}, nil) },
			func(h *hub.Hub) { h.Apply([]registry.Node{a, other}, []string{"b", "nobody"}) },
			func(h *hub.Hub) { h.Apply([]registry.Node{a}, nil) },
		}, []string{"[ab]", "[a]", "end"}, []string{"[ab]", "[oa]", "end"}},
		{"an id moves", hub.New, []func(*hub.Hub){
			func(h *hub.Hub) { h.Put(a) },
			func(h *hub.Hub) { h.Put(node("auth", "a")) },
			func(h *hub.Hub) { h.Remove("a") },
			func(h *hub.Hub) { h.Remove("a") },
		}, []string{"[]", "[a]", "[]", "end"}, []string{"[]", "[a]", "[a]", "[]", "end"}},
		{"fail once, recover with the same set", hub.New, []func(*hub.Hub){
			func(h *hub.Hub) { h.Put(a) },
			func(h *hub.Hub) { h.Fail(lost) },
			func(h *hub.Hub) { h.Fail(lost) },
			func(h *hub.Hub) { h.Replace([]registry.Node{a}) },
		}, []string{"[]", "[a]", "lost", "[a]", "end"}, []string{"[]", "[a]", "lost", "[a]", "end"}},
		{"fail while pending", hub.NewPending, []func(*hub.Hub){
			func(h *hub.Hub) { h.Fail(lost) },
			func(h *hub.Hub) { h.Replace(nil) },
		}, []string{"lost", "[]", "end"}, []string{"lost", "[]", "end"}},
		{"after close", hub.New, []func(*hub.Hub){
			func(h *hub.Hub) { h.Close(); h.Close() },
			func(h *hub.Hub) { h.Put(a); h.Replace([]registry.Node{b}); h.Fail(lost); h.Remove("a") },
		}, []string{"[]", "end"}, []string{"[]", "end"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := c.hub()
				greeter, all := follow(t.Context(), h, "greeter"), follow(t.Context(), h, "")
				synctest.Wait()
				for _, step := range c.steps {
					step(h)
					synctest.Wait()
				}
				h.Close()
				synctest.Wait()
				if !slices.Equal(*greeter, c.greeter) {
					t.Errorf("watch of greeter saw %q, want %q", *greeter, c.greeter)
				}
				if !slices.Equal(*all, c.all) {
					t.Errorf("watch of all saw %q, want %q", *all, c.all)
				}
			})
		})
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	h := hub.New()
	if !h.Put(node("greeter", "b")) || h.Put(node("greeter", "b")) || !h.Put(node("greeter", "a")) {
		t.Error("Put does not tell what changed")
	}
	if got := fmt.Sprint(h.List()); got != fmt.Sprint([]registry.Node{node("greeter", "a"), node("greeter", "b")}) {
		t.Error(got)
	}
	if n, ok := h.Lookup("a"); !ok || n.Service != "greeter" {
		t.Error(n, ok)
	}
	if _, ok := h.Lookup("c"); ok {
		t.Error("Lookup found what is not there")
	}
	if _, err := h.Get("auth"); !errors.Is(err, registry.ErrNotFound) {
		t.Error(err)
	}
}

func BenchmarkPutWithWatcher(b *testing.B) {
	h := hub.New()
	for i := range 1000 {
		h.Put(node(fmt.Sprint("service-", i%50), fmt.Sprint("node-", i)))
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range h.Watch(b.Context(), "service-1") {
		}
	}()
	n := node("service-1", "moving")
	for i := 0; b.Loop(); i++ {
		n.Version = fmt.Sprint(i)
		h.Put(n)
	}
	h.Close()
	<-ended
}
