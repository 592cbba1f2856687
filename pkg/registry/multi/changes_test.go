package multi_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/registry/multi"
)

// told watches by changes and writes them down: R for a Reset, + and - with ids.
func told(ctx context.Context, r registry.ChangeWatcher) *[]string {
	list := new([]string)
	go func() {
		for c, err := range r.WatchChanges(ctx, "greeter") {
			text := ""
			if c.Reset {
				text = "R"
			}
			for _, n := range c.Put {
				text += "+" + n.ID + "@" + n.Address
			}
			for _, id := range c.Gone {
				text += "-" + id
			}
			if err != nil {
				text = "error"
			}
			*list = append(*list, text)
		}
	}()
	return list
}

// TestChangesOfMembers: who has the word, and whose copy is hidden, shows in the changes as in the sets.
func TestChangesOfMembers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := memory.New(), memory.New()
		r := join(t, multi.Member{Name: "near", Registry: near, Authority: true}, multi.Member{Name: "far", Registry: far})
		x, y := node("x"), node("y")
		farX := x
		farX.Address = "10.0.0.1:1"
		must(t, near.Register(t.Context(), x, 0))
		must(t, far.Register(t.Context(), farX, 0))
		list := told(t.Context(), r)
		for _, step := range []func(){
			func() { time.Sleep(time.Second) },
			func() { must(t, far.Register(t.Context(), y, 0)) },
			func() { farX.Version = "2"; must(t, far.Register(t.Context(), farX, 0)) }, // near has the word
			func() { must(t, near.Deregister(t.Context(), x)) },                        // it died: far's copy is hidden
			func() { farX.Version = "3"; must(t, far.Register(t.Context(), farX, 0)) },
			func() { time.Sleep(3 * time.Minute) }, // who still announces it by then is not dead
			func() { must(t, far.Deregister(t.Context(), farX)) },
			func() { must(t, r.Close()) },
		} {
			step()
			synctest.Wait()
		}
		want := []string{"R+x@127.0.0.1:1", "+y@127.0.0.1:1", "-x", "+x@10.0.0.1:1", "-x"}
		if fmt.Sprint(*list) != fmt.Sprint(want) {
			t.Errorf("told %q, want %q", *list, want)
		}
	})
}

// TestAnEventCostsWhatChanged bounds what one node's change allocates among 5000 that two members know.
func TestAnEventCostsWhatChanged(t *testing.T) {
	const size, events = 5000, 1000 // far's first set may come among them
	near, far := memory.New(), memory.New()
	r := join(t, multi.Member{Name: "near", Registry: near, Authority: true}, multi.Member{Name: "far", Registry: far})
	register := func(i int, version string) {
		n := node(fmt.Sprintf("node-%05d", i))
		n.Version = version
		must(t, near.Register(t.Context(), n, 0))
	}
	for i := range size {
		register(i, "1")
		must(t, far.Register(t.Context(), node(fmt.Sprintf("node-%05d", i)), 0))
	}
	var before, after runtime.MemStats
	seen := 0
	for c, err := range r.WatchChanges(t.Context(), "greeter") {
		must(t, err)
		if c.Reset {
			if len(c.Put) != size {
				t.Fatalf("%d nodes, want %d", len(c.Put), size)
			}
			runtime.ReadMemStats(&before)
		} else if seen++; seen == events {
			break
		}
		register(seen*37%size, "2")
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / events; got > 16<<10 {
		t.Errorf("%d bytes for each event, want at most 16 KiB", got)
	}
}
