package memory_test

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, registrytest.Harness{
		New: func(t *testing.T) registrytest.Open {
			root := memory.New()
			t.Cleanup(func() { _ = root.Close() })
			return func(*testing.T) registry.Registry { return root.View() }
		},
		Shared: true, Endpoints: true, Conflicts: true,
	})
}

func node(id string) registry.Node {
	return registry.Node{ID: id, Service: "greeter", Address: "127.0.0.1:1"}
}

func count(t *testing.T, r registry.Registry) int {
	t.Helper()
	nodes, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(nodes)
}

func TestTTLToTheInstant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := memory.New()
		defer r.Close()
		const ttl = 30 * time.Second
		for range 24 * 360 { // a day of renewals
			if err := r.Register(t.Context(), node("a"), ttl); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			if count(t, r) != 1 {
				t.Fatal("the node lapsed though it was renewed")
			}
		}
		time.Sleep(ttl - 10*time.Second - time.Nanosecond)
		if count(t, r) != 1 {
			t.Fatal("the node lapsed too early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if count(t, r) != 0 {
			t.Fatal("the node did not lapse")
		}
	})
}

func TestLapseWakesWatchers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := memory.New()
		defer r.Close()
		start := time.Now()
		if err := r.Register(t.Context(), node("a"), time.Minute); err != nil {
			t.Fatal(err)
		}
		sizes := []int{}
		for nodes, err := range r.Watch(t.Context(), "greeter") {
			if err != nil {
				t.Fatal(err)
			}
			if sizes = append(sizes, len(nodes)); len(nodes) == 0 {
				break
			}
		}
		if took := time.Since(start); len(sizes) != 2 || took != time.Minute {
			t.Fatalf("sets of %v nodes, the last after %v", sizes, took)
		}
	})
}

func TestLapsedIDIsFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := memory.New()
		defer r.Close()
		other := r.View()
		defer other.Close()
		if err := r.Register(t.Context(), node("a"), time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		if err := other.Register(t.Context(), node("a"), time.Minute); !errors.Is(err, registry.ErrConflict) {
			t.Fatalf("a held id: %v", err)
		}
		time.Sleep(time.Second)
		if err := other.Register(t.Context(), node("a"), time.Minute); err != nil {
			t.Fatalf("a lapsed id: %v", err)
		}
		synctest.Wait()
		if count(t, r) != 1 {
			t.Fatal("the first owner's lapse took the second owner's node")
		}
	})
}

func TestViewOutlivesFirst(t *testing.T) {
	t.Parallel()
	r := memory.New()
	view := r.View()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := view.Register(t.Context(), node("a"), 0); err != nil {
		t.Fatal(err)
	}
	if count(t, view) != 1 {
		t.Fatal("the view does not hold its node")
	}
	if err := view.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	openers := registry.Openers{"memory": memory.Open}
	for raw, ok := range map[string]bool{
		"memory": true, "memory://": true, "memory://host": false, "memory://?ttl=3": false, "memory:x": false,
	} {
		r, err := openers.Open(context.Background(), raw)
		if (err == nil) != ok {
			t.Errorf("Open %s: %v", raw, err)
		}
		if r != nil {
			_ = r.Close()
		}
	}
	if _, err := memory.Open(t.Context(), &url.URL{Scheme: "memory"}); err != nil {
		t.Error(err)
	}
}
