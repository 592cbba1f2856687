package selector_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// finder is a registry whose answers a test gives by hand.
type finder struct {
	registry.Finder // no other method is called

	mu      sync.Mutex
	answers map[string]chan answer
	open    map[string]int
	begun   int
	first   []registry.Node // what each watch begins with, where it is set
}

type answer struct {
	nodes []registry.Node
	err   error
	end   bool
}

func newFinder() *finder {
	return &finder{answers: map[string]chan answer{}, open: map[string]int{}}
}

func (f *finder) channel(service string) chan answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answers[service] == nil {
		f.answers[service] = make(chan answer, 16)
	}
	return f.answers[service]
}

func (f *finder) set(service string, ids ...string) {
	f.channel(service) <- answer{nodes: nodes(service, ids...)}
}

func (f *finder) fail(service string, err error) { f.channel(service) <- answer{err: err} }
func (f *finder) end(service string)             { f.channel(service) <- answer{end: true} }

// watched gives the services whose watch is open, and how many watches were begun.
func (f *finder) watched() ([]string, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.open)), f.begun
}

func (f *finder) count(service string, by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[service] += by; f.open[service] == 0 {
		delete(f.open, service)
	}
	f.begun += max(by, 0)
}

func (f *finder) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return func(yield func([]registry.Node, error) bool) {
		f.count(service, 1)
		defer f.count(service, -1)
		if f.first != nil && !yield(f.first, nil) {
			return
		}
		answers := f.channel(service)
		for {
			select {
			case a := <-answers:
				if a.end || !yield(a.nodes, a.err) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

func nodes(service string, ids ...string) []registry.Node {
	all := make([]registry.Node, len(ids))
	for i, id := range ids {
		all[i] = registry.Node{ID: id, Service: service, Version: "1", Address: id + ":1"}
	}
	return all
}

func names(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("node-%05d", i)
	}
	return ids
}

func open(t testing.TB, f registry.Finder, opts ...selector.Option) *selector.Balancer {
	t.Helper()
	b, err := selector.New(f, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func pick(t testing.TB, b *selector.Balancer, q selector.Query) (string, func(error)) {
	t.Helper()
	n, done, err := b.Select(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return n.ID, done
}

// picks counts the nodes of n calls that succeed at once.
func picks(t testing.TB, b *selector.Balancer, q selector.Query, n int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for range n {
		id, done := pick(t, b, q)
		done(nil)
		counts[id]++
	}
	return counts
}

func only(counts map[string]int) string { return fmt.Sprint(slices.Sorted(maps.Keys(counts))) }

var greeter = selector.Query{Service: "greeter"}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	if _, err := selector.New(nil); err == nil {
		t.Error("no registry: taken")
	}
	for name, opt := range map[string]selector.Option{
		"no strategy":    selector.WithStrategy(nil),
		"negative grace": selector.WithGrace(-1),
		"no idle time":   selector.WithIdle(0),
		"no services":    selector.WithMaxServices(0),
		"no logger":      selector.WithLogger(nil),
	} {
		if _, err := selector.New(newFinder(), opt); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestFirstSelectWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f)
		time.AfterFunc(3*time.Second, func() { f.set("greeter", "a") })
		start := time.Now()
		if id, _ := pick(t, b, greeter); id != "a" || time.Since(start) != 3*time.Second {
			t.Errorf("got %s after %v", id, time.Since(start))
		}
		if watched, begun := f.watched(); len(watched) != 1 || begun != 1 {
			t.Errorf("watches %v, %d begun", watched, begun)
		}
	})
}

func TestFirstSelectEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, newFinder())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := b.Select(ctx, greeter); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, selector.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f)
		f.set("greeter")
		start := time.Now()
		_, _, err := b.Select(t.Context(), greeter)
		var missing *selector.NotFoundError
		if !errors.Is(err, selector.ErrNotFound) || !errors.As(err, &missing) || time.Since(start) != 500*time.Millisecond {
			t.Fatalf("got %v after %v", err, time.Since(start))
		}
		if want := `selector: service not found: "greeter" (waited 500ms)`; err.Error() != want {
			t.Errorf("got %s, want %s", err, want)
		}
		// What is known by now is told at once.
		start = time.Now()
		if _, _, err := b.Select(t.Context(), greeter); !errors.Is(err, selector.ErrNotFound) || time.Since(start) != 0 {
			t.Errorf("again: got %v after %v", err, time.Since(start))
		}
		for _, name := range []string{"", "no name", "../x"} {
			if _, _, err := b.Select(t.Context(), selector.Query{Service: name}); !errors.Is(err, selector.ErrNotFound) {
				t.Errorf("%q: got %v", name, err)
			}
		}
		if watched, _ := f.watched(); len(watched) != 1 {
			t.Errorf("watches %v: the empty name would watch all", watched)
		}
	})
}

func TestGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f, selector.WithGrace(2*time.Second))
		f.set("greeter")
		time.AfterFunc(time.Second, func() { f.set("greeter", "late") })
		start := time.Now()
		if id, _ := pick(t, b, greeter); id != "late" || time.Since(start) != time.Second {
			t.Errorf("got %s after %v", id, time.Since(start))
		}
	})
}

func TestGraceEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f)
		f.set("greeter")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		var missing *selector.NotFoundError
		if _, _, err := b.Select(ctx, greeter); !errors.As(err, &missing) || missing.Waited != 100*time.Millisecond {
			t.Errorf("deadline: got %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, stop)
		if _, _, err := b.Select(ctx, greeter); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v", err)
		}
	})
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f)
		f.fail("greeter", registry.ErrUnavailable)
		if _, _, err := b.Select(t.Context(), greeter); !errors.Is(err, selector.ErrUnavailable) || !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		f.set("greeter", "a")
		synctest.Wait()
		if id, _ := pick(t, b, greeter); id != "a" {
			t.Errorf("got %s", id)
		}
	})
}

func TestFilters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f)
		set := nodes("greeter", "a", "b", "c")
		set[1].Version = "2"
		set[1].Metadata = map[string]string{"zone": "x"}
		set[1].Endpoints = []registry.Endpoint{{Name: "Say.Hello"}}
		set[2].Endpoints = []registry.Endpoint{{Name: "Say.Bye"}}
		f.channel("greeter") <- answer{nodes: set}
		for _, tc := range []struct {
			name    string
			filters []selector.Filter
			avoid   []string
			want    string
			err     error
		}{
			{"version", []selector.Filter{selector.Version("1")}, nil, "[a c]", nil},
			{"label", []selector.Filter{selector.Label("zone", "x")}, nil, "[b]", nil},
			{"endpoint", []selector.Filter{selector.Endpoint("Say.Hello")}, nil, "[a b]", nil},
			{"id", []selector.Filter{selector.ID("c")}, nil, "[c]", nil},
			{"two", []selector.Filter{selector.Version("1"), selector.Endpoint("Say.Bye")}, nil, "[a c]", nil},
			{"avoid", nil, []string{"a"}, "[b c]", nil},
			{"none match", []selector.Filter{selector.Version("3")}, nil, "", selector.ErrNoneMatch},
			{"none match, though some were tried", []selector.Filter{selector.Version("3")}, []string{"a"}, "", selector.ErrNoneMatch},
			{"all tried", nil, []string{"a", "b", "c"}, "", selector.ErrExhausted},
			{"all that match were tried", []selector.Filter{selector.Version("2")}, []string{"b"}, "", selector.ErrExhausted},
		} {
			q := selector.Query{Service: "greeter", Filters: tc.filters, Avoid: tc.avoid}
			if tc.err != nil {
				if _, _, err := b.Select(t.Context(), q); !errors.Is(err, tc.err) {
					t.Errorf("%s: got %v, want %v", tc.name, err, tc.err)
				}
				continue
			}
			if got := only(picks(t, b, q, 200)); got != tc.want {
				t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
			}
		}
	})
}

func TestOneNodeIsTaken(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFinder()
				b := open(t, f, selector.WithStrategy(strategy))
				f.set("greeter", "a")
				for range 10 {
					id, done := pick(t, b, greeter)
					if id != "a" {
						t.Errorf("got %s", id)
					}
					done(errors.New("connection refused"))
				}
			})
		})
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f)
		f.set("greeter", "a")
		_, done := pick(t, b, greeter)
		waiting := make(chan error)
		go func() {
			_, _, err := b.Select(context.Background(), selector.Query{Service: "slow"})
			waiting <- err
		}()
		synctest.Wait()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := <-waiting; !errors.Is(err, selector.ErrClosed) {
			t.Errorf("a Select that waits: got %v", err)
		}
		if _, _, err := b.Select(t.Context(), greeter); !errors.Is(err, selector.ErrClosed) {
			t.Errorf("after Close: got %v", err)
		}
		done(nil)
		if watched, _ := f.watched(); len(watched) != 0 {
			t.Errorf("watches %v", watched)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	f := newFinder()
	f.first = nodes("any", "a", "b", "c")
	b := open(t, f, selector.WithMaxServices(4), selector.WithIdle(time.Millisecond))
	var wg sync.WaitGroup
	for i := range 8 {
		service := fmt.Sprintf("s%d", i)
		wg.Go(func() {
			for n := range 500 {
				_, done, err := b.Select(t.Context(), selector.Query{Service: service})
				if errors.Is(err, selector.ErrUnavailable) {
					continue // for a moment all four are being waited for
				}
				if err != nil {
					t.Errorf("%s: %v", service, err)
					return
				}
				if n%50 == 25 {
					f.set(service, "b", "c", fmt.Sprint("d", n))
				}
				done([]error{nil, errors.New("refused")}[n%2])
			}
		})
	}
	wg.Wait()
}

func TestSelectAllocatesNothing(t *testing.T) {
	f := newFinder()
	f.first = nodes("greeter", "a", "b", "c")
	for name, strategy := range strategies() {
		b := open(t, f, selector.WithStrategy(strategy))
		q := selector.Query{Service: "greeter", Key: "key"}
		ctx := t.Context()
		allocs := testing.AllocsPerRun(200, func() {
			_, done, err := b.Select(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			done(nil)
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations for each Select", name, allocs)
		}
	}
}
