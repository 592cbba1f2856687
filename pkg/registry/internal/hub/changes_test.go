package hub_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
)

// TestChangesAreToldAsTheyCome writes changes down: R for a Reset, + and - with ids, or the error.
func TestChangesAreToldAsTheyCome(t *testing.T) {
	t.Parallel()
	lost := errors.New("lost")
	a, b, other := node("greeter", "a"), node("greeter", "b"), node("auth", "o")
	synctest.Test(t, func(t *testing.T) {
		h := hub.NewPending()
		seen := map[string]*[]string{}
		for _, service := range []string{"greeter", ""} {
			list := new([]string)
			seen[service] = list
			go func() {
				for c, err := range h.WatchChanges(t.Context(), service) {
					text := ""
					if c.Reset {
						text = "R"
					}
					for _, n := range c.Put {
						text += "+" + n.ID
					}
					for _, id := range c.Gone {
						text += "-" + id
					}
					if err != nil {
						text = err.Error()
					}
					*list = append(*list, text)
				}
			}()
		}
		for _, step := range []func(){
			func() { h.Put(b) },
			func() { h.Put(b) },
			func() { h.Apply([]registry.Node{other, a}, []string{"nobody"}) },
			func() { h.Apply([]registry.Node{a}, []string{"b"}) },
			func() { h.Fail(lost) },
			func() { h.Put(b) },
			func() { h.Mend() },
			func() { h.Put(node("auth", "a")) }, // it goes over
			func() { h.Replace([]registry.Node{b}) },
			func() { h.Put(a); h.Remove("a") },
			func() { h.Close() },
		} {
			synctest.Wait()
			step()
		}
		synctest.Wait()
		for service, want := range map[string][]string{
			"greeter": {"R+b", "+a", "-b", "lost", "R+a+b", "-a", "-a"},
			"":        {"R+b", "+o+a", "-b", "lost", "R+o+a+b", "+a", "-a-o", "-a"},
		} {
			if !slices.Equal(*seen[service], want) {
				t.Errorf("watch of %q saw %q, want %q", service, *seen[service], want)
			}
		}
	})
}

// TestReadersOfAnyPace compares, at random times, what each reader has made of the changes with the hub's own set: some
// read each change, some after hundreds, and so also what is no longer in the log.
func TestReadersOfAnyPace(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	h := hub.New()
	type follower struct {
		service string
		*hub.Reader
		set    map[string]registry.Node
		resets int
		pace   int
	}
	var all []*follower
	for _, service := range []string{"s0", "s1", ""} {
		for _, pace := range []int{1, 20, 400} {
			all = append(all, &follower{service: service, Reader: h.Follow(service), set: map[string]registry.Node{}, pace: pace})
		}
	}
	set := map[string]registry.Node{}
	for i := range 2000 {
		n := node(fmt.Sprint("s", r.IntN(3)), fmt.Sprint("node-", r.IntN(300)))
		if n.Version = fmt.Sprint(r.IntN(3)); r.IntN(3) == 0 {
			h.Remove(n.ID)
			delete(set, n.ID)
		} else {
			h.Put(n)
			set[n.ID] = n
		}
		for _, f := range all {
			if r.IntN(f.pace) > 0 {
				continue
			}
			if c, _, ok, err := f.Change(); ok {
				if c.Reset {
					f.resets++
					clear(f.set)
				}
				for _, id := range c.Gone {
					delete(f.set, id)
				}
				for _, n := range c.Put {
					f.set[n.ID] = n
				}
			} else if err != nil {
				t.Fatal(err)
			}
			want := map[string]registry.Node{}
			for id, n := range set {
				if f.service == "" || f.service == n.Service {
					want[id] = n
				}
			}
			if !maps.EqualFunc(f.set, want, registry.Node.Equal) {
				t.Fatalf("after %d changes a reader of %q has %d nodes, want %d", i+1, f.service, len(f.set), len(want))
			}
			sorted := slices.AppendSeq([]registry.Node{}, maps.Values(want))
			registry.Sort(sorted)
			if got, _ := h.Snapshot(f.service); !slices.EqualFunc(got, sorted, registry.Node.Equal) {
				t.Fatalf("after %d changes the set of %q is another than its nodes", i+1, f.service)
			}
		}
	}
	for _, f := range all {
		if f.pace == 1 && f.resets > 1 || f.pace == 400 && f.resets < 2 {
			t.Errorf("a reader of %q that reads every %d changes had %d resets", f.service, f.pace, f.resets)
		}
		f.Stop()
	}
}

// TestSince compares, at random times, a set with what Since makes of an earlier one, also while a Fail lasts.
func TestSince(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(9, 10))
	h := hub.New().Remembering(50, 1000)
	for _, service := range []string{"", "s1"} {
		set, at, unknown := map[string]registry.Node{}, uint64(1000), 0
		for round := range 500 {
			for range r.IntN(60) {
				n := node(fmt.Sprint("s", r.IntN(3)), fmt.Sprint("node-", r.IntN(40)))
				if r.IntN(3) == 0 {
					h.Remove(n.ID)
				} else {
					h.Put(n)
				}
			}
			if round == 250 {
				h.Fail(errors.New("lost"))
			}
			c, revision, ok := h.Since(service, at)
			if known := h.Revision()-at <= 50; ok != known {
				t.Fatalf("%d changes ago: known: %t", h.Revision()-at, ok)
			}
			nodes, now := h.Snapshot(service)
			if at = now; !ok {
				unknown++
				clear(set)
				c.Put = nodes
			} else if revision != now {
				t.Fatalf("revision %d, want %d", revision, now)
			}
			for _, id := range c.Gone {
				delete(set, id)
			}
			for _, n := range c.Put {
				set[n.ID] = n
			}
			got := slices.AppendSeq([]registry.Node{}, maps.Values(set))
			registry.Sort(got)
			if !slices.EqualFunc(got, nodes, registry.Node.Equal) {
				t.Fatalf("of %q the changes make %d nodes, want %d", service, len(got), len(nodes))
			}
		}
		if unknown == 0 || unknown == 500 {
			t.Errorf("%d times it was not known", unknown)
		}
		if _, _, ok := h.Since(service, h.Revision()+1); ok {
			t.Error("a revision that is to come is known")
		}
		h.Mend()
	}
}

// TestAChangeCostsWhatChanged bounds what a change of one node in 10,000 allocates, with a hundred watches of it.
func TestAChangeCostsWhatChanged(t *testing.T) {
	h := hub.New()
	const size, watches, changes = 10_000, 100, 100
	for i := range size {
		h.Put(node("greeter", fmt.Sprintf("node-%05d", i)))
	}
	ctx, stop := context.WithCancel(t.Context())
	var watching, seen sync.WaitGroup
	seen.Add(watches)
	for range watches {
		watching.Go(func() {
			for range h.WatchChanges(ctx, "greeter") {
				seen.Done()
			}
		})
	}
	seen.Wait()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range changes {
		seen.Add(watches)
		n := node("greeter", fmt.Sprintf("node-%05d", i*97))
		n.Version = "2"
		h.Put(n)
		seen.Wait()
	}
	runtime.ReadMemStats(&after)
	stop()
	watching.Wait()
	if got := (after.TotalAlloc - before.TotalAlloc) / changes / watches; got > 1024 {
		t.Errorf("%d bytes for a change and watch, want at most 1 KiB", got)
	}
}

// TestWatchesShareTheSet: a hundred watches of sets do not copy it a hundred times.
func TestWatchesShareTheSet(t *testing.T) {
	t.Parallel()
	h := hub.New()
	h.Put(node("greeter", "a"))
	h.Put(node("greeter", "b"))
	var first []registry.Node
	for range 2 {
		for nodes := range h.Watch(t.Context(), "greeter") {
			if first != nil && &first[0] != &nodes[0] {
				t.Error("two watches have two copies of one set")
			}
			first = nodes
			break
		}
	}
	h.Put(node("greeter", "c"))
	if len(first) != 2 || first[0].ID != "a" || cap(first) != 2 {
		t.Errorf("the set of before was changed, or may be: %v", first)
	}
}

func BenchmarkChange(b *testing.B) {
	for _, size := range []int{10, 1000, 10_000} {
		for _, watches := range []int{1, 100} {
			b.Run(fmt.Sprintf("%d nodes, %d watches", size, watches), func(b *testing.B) {
				h := hub.New()
				for i := range size {
					h.Put(node("greeter", fmt.Sprintf("node-%05d", i)))
				}
				var watching, seen sync.WaitGroup
				seen.Add(watches)
				for range watches {
					watching.Go(func() {
						for range h.WatchChanges(b.Context(), "greeter") {
							seen.Done()
						}
					})
				}
				seen.Wait()
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					seen.Add(watches)
					n := node("greeter", fmt.Sprintf("node-%05d", i*7919%size))
					n.Version = fmt.Sprint(i)
					i++
					h.Put(n)
					seen.Wait()
				}
				h.Close()
				watching.Wait()
			})
		}
	}
}

func BenchmarkListAfterAChange(b *testing.B) {
	for _, size := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("%d services", size), func(b *testing.B) {
			h := hub.New()
			for i := range size {
				h.Put(node(fmt.Sprintf("service-%05d", i), fmt.Sprintf("node-%05d", i)))
			}
			i := 0
			for b.Loop() {
				n := node(fmt.Sprintf("service-%05d", i%size), fmt.Sprintf("node-%05d", i%size))
				n.Version = fmt.Sprint(i)
				i++
				h.Put(n)
				if got := h.List(); len(got) != size {
					b.Fatal(len(got))
				}
			}
		})
	}
}

// TestSkip: who reads the set elsewhere is told of what comes after it alone, and of how much that may be.
func TestSkip(t *testing.T) {
	t.Parallel()
	h := hub.New()
	h.Put(node("greeter", "a"))
	h.Put(node("greeter", "b"))
	r := h.Follow("")
	defer r.Stop()
	if !r.Whole() || r.Ahead(false) != 2 || r.Skip(h.Revision()-1) || !r.Skip(h.Revision()) || r.Skip(h.Revision()) {
		t.Error("the first set")
	}
	h.Put(node("greeter", "c"))
	if r.Whole() || r.Ahead(false) != 1 || r.Ahead(true) != 3 || r.Revision() == h.Revision() {
		t.Error("a change")
	}
	if c, revision, ok, err := r.Change(); !ok || err != nil || c.Reset || len(c.Put) != 1 || c.Put[0].ID != "c" || revision != h.Revision() {
		t.Errorf("%v %v", c, err)
	}
	h.Fail(errors.New("lost"))
	if r.Skip(h.Revision()) {
		t.Error("a set that is not known was skipped")
	}
}
