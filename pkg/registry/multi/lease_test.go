package multi_test

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/registry/multi"
)

// leasing is a registry of another machine, as a process has it: it may be cut off, lose all that it has, and keep nodes for longer than
// they are registered for.
type leasing struct {
	registry.Registry
	stretch time.Duration
	cut     *atomic.Bool
	lost    chan struct{} // closed when it has lost all
	after   registry.Registry
}

func (l *leasing) now() registry.Registry {
	select {
	case <-l.lost:
		return l.after
	default:
		return l.Registry
	}
}

func (l *leasing) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if l.cut.Load() {
		return registry.ErrUnavailable
	}
	return l.now().Register(ctx, n, ttl+l.stretch)
}

func (l *leasing) Get(ctx context.Context, service string) ([]registry.Node, error) {
	return l.now().Get(ctx, service)
}

func (l *leasing) List(ctx context.Context) ([]registry.Node, error) { return l.now().List(ctx) }

func (l *leasing) Watch(ctx context.Context, service string) iter.Seq2[[]registry.Node, error] {
	return func(yield func([]registry.Node, error) bool) {
		first, stop := context.WithCancel(ctx)
		defer stop()
		go func() {
			select {
			case <-l.lost:
			case <-first.Done():
			}
			stop()
		}()
		for nodes, err := range l.Registry.Watch(first, service) {
			if !yield(nodes, err) {
				return
			}
		}
		if l.now() != l.after || ctx.Err() != nil || !yield(nil, registry.ErrUnavailable) {
			return
		}
		for nodes, err := range l.after.Watch(ctx, service) {
			if !yield(nodes, err) {
				return
			}
		}
	}
}

// leases are two registries a and b, of which b keeps what it has for two minutes more; an owner who renews in both, and somebody who looks.
type leases struct {
	a, b   *memory.Registry
	cut    atomic.Bool   // the owner from a
	lost   chan struct{} // a has lost all
	owner  *multi.Registry
	reader *multi.Registry
	sets   []string
}

func leased(t *testing.T) *leases {
	l := &leases{a: memory.New(), b: memory.New(), lost: make(chan struct{})}
	fresh := memory.New()
	view := func(cut *atomic.Bool) []multi.Member {
		return []multi.Member{
			{Name: "a", Registry: &leasing{Registry: l.a.View(), cut: cut, lost: l.lost, after: fresh.View()}},
			{Name: "b", Registry: &leasing{Registry: l.b.View(), cut: &atomic.Bool{}, stretch: 2 * time.Minute, lost: make(chan struct{})}},
		}
	}
	l.owner, l.reader = join(t, view(&l.cut)...), join(t, view(&atomic.Bool{})...)
	return l
}

// renew renews a node as a service does, for a while.
func (l *leases) renew(t *testing.T, d time.Duration) {
	for start := time.Now(); time.Since(start) < d; time.Sleep(10 * time.Second) {
		must(t, l.owner.Register(t.Context(), node("x"), 30*time.Second))
	}
}

func (l *leases) watch(t *testing.T) {
	go func() {
		for nodes, err := range l.reader.Watch(t.Context(), "greeter") {
			text := fmt.Sprint(err)
			if err == nil {
				text = ""
				for _, n := range nodes {
					text += n.ID + n.Metadata[registry.MetaRegistered]
				}
			}
			l.sets = append(l.sets, text)
		}
	}()
	time.Sleep(2 * time.Second)
}

// leasesRun runs a scenario with a reader who watches, and with one who only asks.
func leasesRun(t *testing.T, f func(t *testing.T, l *leases), sets ...string) {
	for _, way := range []string{"watch", "list"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := leased(t)
				must(t, l.owner.Register(t.Context(), node("x"), 30*time.Second))
				if way == "watch" {
					l.watch(t)
				}
				l.shows(t, "x@127.0.0.1:1 ")
				f(t, l)
				synctest.Wait()
				if way == "watch" && fmt.Sprint(l.sets) != fmt.Sprint(sets) {
					t.Errorf("the watch showed %q, want %q", l.sets, sets)
				}
				must(t, l.owner.Close())
				must(t, l.reader.Close())
			})
		})
	}
}

func (l *leases) shows(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	if got := addresses(t, l.reader); got != want {
		t.Fatalf("the list has %q, want %q", got, want)
	}
}

// A node that is not renewed goes with the first of its leases, and its copy with it.
func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	leasesRun(t, func(t *testing.T, l *leases) {
		l.renew(t, time.Minute)
		l.shows(t, "x@127.0.0.1:1 ")
		time.Sleep(25 * time.Second) // the last renewal was 10 s ago
		l.shows(t, "")
		if nodes, err := l.b.Get(t.Context(), "greeter"); err != nil || len(nodes) != 1 {
			t.Errorf("b has no copy any more: %v, %v", nodes, err)
		}
		must(t, l.owner.Register(t.Context(), node("x"), 30*time.Second)) // it was merely slow
		l.shows(t, "x@127.0.0.1:1 ")
	}, "x", "", "x")
}

// A node that one registry hears of no more, and the other does, stays; and when it dies after all it goes.
func TestOwnerIsCutOff(t *testing.T) {
	t.Parallel()
	leasesRun(t, func(t *testing.T, l *leases) {
		l.cut.Store(true)
		for range 30 {
			l.renew(t, 10*time.Second)
			l.shows(t, "x@127.0.0.1:1 ")
		}
		if nodes, err := l.a.Get(t.Context(), "greeter"); err == nil {
			t.Errorf("a still has %v", nodes)
		}
		l.cut.Store(false)
		for range 10 {
			l.renew(t, 10*time.Second)
			l.shows(t, "x@127.0.0.1:1 ")
		}
		time.Sleep(40 * time.Second)
		l.shows(t, "")
	}, "x", "")
}

// A registry that comes back with nothing kills nobody.
func TestRegistryLosesAll(t *testing.T) {
	t.Parallel()
	leasesRun(t, func(t *testing.T, l *leases) {
		close(l.lost)
		l.shows(t, "x@127.0.0.1:1 ")
		time.Sleep(5 * time.Second)
		l.shows(t, "x@127.0.0.1:1 ")
		l.renew(t, time.Minute)
		l.shows(t, "x@127.0.0.1:1 ")
		time.Sleep(25 * time.Second)
		l.shows(t, "")
	}, "x", "")
}

// hearsay is a registry of hearsay.
type hearsay struct{ registry.Registry }

func (hearsay) Hearsay() bool { return true }

// What hearsay lost need not be dead, and what nobody promised to renew neither.
func TestWhoseWordDoesNotCount(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		wrap func(registry.Registry) registry.Registry
		ttl  time.Duration
	}{
		"hearsay":   {func(r registry.Registry) registry.Registry { return hearsay{r} }, time.Minute},
		"no ttl":    {func(r registry.Registry) registry.Registry { return r }, 0},
		"by itself": {nil, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a, b := memory.New(), memory.New()
				first, n, view := registry.Registry(a), node("x"), a.View()
				if tt.wrap != nil {
					first = tt.wrap(a)
				}
				r := join(t, multi.Member{Name: "a", Registry: first}, multi.Member{Name: "b", Registry: b})
				if tt.wrap == nil { // each copy is registered by itself
					must(t, view.Register(t.Context(), n, tt.ttl))
					must(t, b.Register(t.Context(), n, tt.ttl))
				} else {
					owner := join(t, multi.Member{Name: "a", Registry: view}, multi.Member{Name: "b", Registry: b.View()})
					must(t, owner.Register(t.Context(), n, tt.ttl))
				}
				addresses(t, r)
				time.Sleep(time.Second)
				must(t, view.Deregister(t.Context(), n))
				synctest.Wait()
				if got := addresses(t, r); got != "x@127.0.0.1:1 " {
					t.Errorf("the list has %q", got)
				}
				must(t, r.Close())
			})
		})
	}
}
