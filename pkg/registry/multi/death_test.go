package multi_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/registry/multi"
)

// deaths runs a scenario with an authority "local" and a network "mdns" whose copies linger, once with an authority that
// is a witness and once with one that is not. kill is a death that local saw.
func deaths(t *testing.T, f func(t *testing.T, r *multi.Registry, local, mdns registry.Registry, kill func(registry.Node))) {
	t.Helper()
	for _, name := range []string{"witness", "difference"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				local := &witness{Registry: memory.New(), dead: map[string]registry.Node{}}
				mdns := memory.New()
				kill := func(n registry.Node) { local.die(t, n) }
				first := multi.Member{Name: "local", Registry: local, Authority: true}
				if name == "difference" {
					first.Registry = local.Registry
					kill = func(n registry.Node) { must(t, local.Deregister(t.Context(), n)) }
				}
				r := join(t, first, multi.Member{Name: "mdns", Registry: mdns})
				f(t, r, local, mdns, kill)
			})
		})
	}
}

func TestDeathRemovesCopies(t *testing.T) {
	t.Parallel()
	deaths(t, func(t *testing.T, r *multi.Registry, local, mdns registry.Registry, kill func(registry.Node)) {
		n := node("x")
		lan := n
		lan.Address = "192.168.1.2:1"
		must(t, local.Register(t.Context(), n, 0))
		must(t, mdns.Register(t.Context(), lan, 0))
		must(t, mdns.Register(t.Context(), node("remote"), 0))
		if got := addresses(t, r); got != "remote@127.0.0.1:1 x@127.0.0.1:1 " {
			t.Fatal(got)
		}
		kill(n)
		if got := addresses(t, r); got != "remote@127.0.0.1:1 " {
			t.Fatalf("after its death: %s", got)
		}
		must(t, local.Register(t.Context(), n, 0)) // the same id is back
		if got := addresses(t, r); got != "remote@127.0.0.1:1 x@127.0.0.1:1 " {
			t.Fatalf("after its return: %s", got)
		}
	})
}

func TestDeathRemovesCopiesFromWatch(t *testing.T) {
	t.Parallel()
	deaths(t, func(t *testing.T, r *multi.Registry, local, mdns registry.Registry, kill func(registry.Node)) {
		n := node("x")
		must(t, local.Register(t.Context(), n, 0))
		must(t, mdns.Register(t.Context(), n, 0))
		var sizes []int
		for nodes, err := range r.Watch(t.Context(), "greeter") {
			must(t, err)
			if sizes = append(sizes, len(nodes)); len(nodes) == 0 {
				break
			}
			kill(n)
		}
		if len(sizes) != 2 || sizes[0] != 1 {
			t.Errorf("sets of %v nodes", sizes)
		}
	})
}

func TestLaterStartElsewhere(t *testing.T) {
	t.Parallel()
	deaths(t, func(t *testing.T, r *multi.Registry, local, mdns registry.Registry, kill func(registry.Node)) {
		n := node("x")
		must(t, local.Register(t.Context(), n, 0))
		must(t, mdns.Register(t.Context(), n, 0))
		addresses(t, r)
		kill(n)
		if got := addresses(t, r); got != "" {
			t.Fatal(got)
		}
		n.Address = "192.168.1.3:1"
		n.Metadata = map[string]string{registry.MetaStarted: "2025-01-01T00:00:09Z"}
		must(t, mdns.Register(t.Context(), n, 0)) // it runs on another machine now
		if got := addresses(t, r); got != "x@192.168.1.3:1 " {
			t.Fatal(got)
		}
	})
}

func TestCopyThatStaysIsAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		local, mdns := memory.New(), memory.New()
		r := join(t, multi.Member{Name: "local", Registry: local, Authority: true}, multi.Member{Name: "mdns", Registry: mdns})
		n := node("x")
		must(t, local.Register(t.Context(), n, 0))
		must(t, mdns.Register(t.Context(), n, 0))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		start := time.Now()
		var sizes []int
		for nodes, err := range r.Watch(ctx, "") {
			must(t, err)
			if sizes = append(sizes, len(nodes)); len(sizes) == 1 {
				must(t, local.Deregister(t.Context(), n))
			}
			if len(sizes) == 3 {
				break
			}
		}
		if took := time.Since(start); len(sizes) != 3 || sizes[2] != 1 || took < 2*time.Minute || took > 3*time.Minute {
			t.Errorf("sets of %v nodes, the last after %v", sizes, took)
		}
	})
}

func TestCopyDroppedAndShownAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		local, mdns := memory.New(), memory.New()
		r := join(t, multi.Member{Name: "local", Registry: local, Authority: true}, multi.Member{Name: "mdns", Registry: mdns})
		n := node("x")
		must(t, local.Register(t.Context(), n, 0))
		must(t, mdns.Register(t.Context(), n, 0))
		go func() {
			for range r.Watch(t.Context(), "") {
			}
		}()
		for _, step := range []struct {
			do   func() error
			want string
		}{
			{func() error { return nil }, "x@127.0.0.1:1 "},
			{func() error { return local.Deregister(t.Context(), n) }, ""},
			{func() error { return mdns.Deregister(t.Context(), n) }, ""},
			{func() error { return mdns.Register(t.Context(), n, 0) }, "x@127.0.0.1:1 "},
		} {
			must(t, step.do())
			synctest.Wait()
			if got := addresses(t, r); got != step.want {
				t.Fatalf("got %q, want %q", got, step.want)
			}
		}
		must(t, r.Close())
	})
}

func TestOwnNodeIsNotDead(t *testing.T) {
	t.Parallel()
	local, mdns := memory.New(), memory.New()
	intruder := local.View()
	defer intruder.Close()
	r := join(t, multi.Member{Name: "local", Registry: local, Authority: true}, multi.Member{Name: "mdns", Registry: mdns})
	must(t, r.Register(t.Context(), node("x"), 0))
	addresses(t, r)
	must(t, local.Deregister(t.Context(), node("x"))) // its folder was removed
	if got := addresses(t, r); got != "x@127.0.0.1:1 " {
		t.Errorf("got %q: our own node went with its file", got)
	}
}
