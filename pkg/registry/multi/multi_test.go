package multi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/registry/multi"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, members := range map[string]func(a, b *memory.Registry) []multi.Member{
		"one": func(a, _ *memory.Registry) []multi.Member {
			return []multi.Member{{Name: "a", Registry: a.View(), Authority: true}}
		},
		"two": func(a, b *memory.Registry) []multi.Member {
			return []multi.Member{{Name: "a", Registry: a.View(), Authority: true}, {Name: "b", Registry: b.View()}}
		},
		"authority last": func(a, b *memory.Registry) []multi.Member {
			return []multi.Member{{Name: "a", Registry: a.View()}, {Name: "b", Registry: b.View(), Authority: true}}
		},
		"one does not start": func(a, _ *memory.Registry) []multi.Member {
			return []multi.Member{{Name: "a", Registry: a.View(), Authority: true}, {Name: "b", Open: noMulticast}}
		},
		"one fails": func(a, _ *memory.Registry) []multi.Member {
			return []multi.Member{{Name: "b", Registry: broken{}, Authority: true}, {Name: "a", Registry: a.View(), Authority: true}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registrytest.Run(t, registrytest.Harness{
				New: func(t *testing.T) registrytest.Open {
					a, b := memory.New(), memory.New()
					t.Cleanup(func() { _, _ = a.Close(), b.Close() })
					return func(t *testing.T) registry.Registry {
						r, err := multi.New(members(a, b)...)
						if err != nil {
							t.Fatal(err)
						}
						return r
					}
				},
				Shared: true, Endpoints: true, Conflicts: true, Crowd: 200,
			})
		})
	}
}

var errMulticast = errors.New("no multicast on eth0")

func noMulticast(context.Context) (registry.Registry, error) { return nil, errMulticast }

// broken is a member that fails whatever it is asked.
type broken struct{}

func (broken) Register(context.Context, registry.Node, time.Duration) error {
	return registry.ErrUnavailable
}
func (broken) Deregister(context.Context, registry.Node) error { return registry.ErrUnavailable }
func (broken) Get(context.Context, string) ([]registry.Node, error) {
	return nil, registry.ErrUnavailable
}
func (broken) List(context.Context) ([]registry.Node, error) { return nil, registry.ErrUnavailable }
func (broken) Close() error                                  { return nil }
func (broken) Watch(ctx context.Context, _ string) iter.Seq2[[]registry.Node, error] {
	return func(yield func([]registry.Node, error) bool) {
		if yield(nil, registry.ErrUnavailable) {
			<-ctx.Done()
		}
	}
}

// hanging is a member that answers nothing before its context ends.
type hanging struct{ broken }

func (hanging) Register(ctx context.Context, _ registry.Node, _ time.Duration) error {
	<-ctx.Done()
	return ctx.Err()
}
func (hanging) Get(ctx context.Context, _ string) ([]registry.Node, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (hanging) List(ctx context.Context) ([]registry.Node, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (hanging) Watch(ctx context.Context, _ string) iter.Seq2[[]registry.Node, error] {
	return func(func([]registry.Node, error) bool) { <-ctx.Done() }
}

// witness is an authority that tells deaths.
type witness struct {
	registry.Registry
	mu   sync.Mutex
	dead map[string]registry.Node
}

func (w *witness) Died(id string) (registry.Node, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, ok := w.dead[id]
	return n, ok
}

func (w *witness) die(t *testing.T, n registry.Node) {
	w.mu.Lock()
	w.dead[n.ID] = n
	w.mu.Unlock()
	must(t, w.Deregister(t.Context(), n))
}

func node(id string) registry.Node {
	return registry.Node{ID: id, Service: "greeter", Address: "127.0.0.1:1", Metadata: map[string]string{registry.MetaStarted: "2025-01-01T00:00:00Z"}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func join(t *testing.T, members ...multi.Member) *multi.Registry {
	t.Helper()
	r, err := multi.New(members...)
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

func addresses(t *testing.T, r registry.Registry) string {
	t.Helper()
	nodes, err := r.List(t.Context())
	must(t, err)
	got, err := r.Get(t.Context(), "greeter")
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		t.Fatal(err)
	}
	out, alone := "", ""
	for _, n := range nodes {
		out += n.ID + "@" + n.Address + " "
	}
	for _, n := range got {
		alone += n.ID + "@" + n.Address + " "
	}
	if out != alone {
		t.Fatalf("List gives %q, Get gives %q", out, alone)
	}
	return out
}

func TestBadMembers(t *testing.T) {
	t.Parallel()
	open := func(context.Context) (registry.Registry, error) { return memory.New(), nil }
	for name, c := range map[string]struct {
		members []multi.Member
		want    string
	}{
		"none":         {nil, "no members"},
		"no name":      {[]multi.Member{{Registry: memory.New()}}, "no name"},
		"same name":    {[]multi.Member{{Name: "a", Open: open}, {Name: "a", Open: open}}, "stands twice"},
		"neither":      {[]multi.Member{{Name: "a"}}, "either"},
		"both":         {[]multi.Member{{Name: "a", Registry: memory.New(), Open: open}}, "either"},
		"none started": {[]multi.Member{{Name: "mdns", Open: noMulticast}, {Name: "b", Open: noMulticast}}, "mdns: no multicast on eth0"},
	} {
		_, err := multi.New(c.members...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMemberThatDoesNotStart(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r, err := multi.Join(t.Context(), multi.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))},
		multi.Member{Name: "local", Open: func(context.Context) (registry.Registry, error) { return memory.New(), nil }},
		multi.Member{Name: "mdns", Open: noMulticast})
	must(t, err)
	defer r.Close()
	s := r.Status()
	if len(s) != 2 || !s[0].Started || s[0].Err != nil || s[1].Started || !errors.Is(s[1].Err, errMulticast) {
		t.Errorf("status %+v", s)
	}
	if !strings.Contains(log.String(), "member=mdns") {
		t.Errorf("log %q", log.String())
	}
	must(t, r.Register(t.Context(), node("a"), 0))
	if got := addresses(t, r); got != "a@127.0.0.1:1 " {
		t.Error(got)
	}
}

func TestFirstMemberHasTheWord(t *testing.T) {
	t.Parallel()
	a, b := memory.New(), memory.New()
	r := join(t, multi.Member{Name: "a", Registry: a}, multi.Member{Name: "b", Registry: b})
	n := node("x")
	must(t, a.Register(t.Context(), n, 0))
	n.Address = "10.0.0.1:1"
	must(t, b.Register(t.Context(), n, 0))
	must(t, b.Register(t.Context(), node("y"), 0))
	if got := addresses(t, r); got != "x@127.0.0.1:1 y@127.0.0.1:1 " {
		t.Error(got)
	}
}

func TestConflictTakesNothing(t *testing.T) {
	t.Parallel()
	local, mdns := memory.New(), memory.New()
	other := mdns.View()
	defer other.Close()
	r := join(t, multi.Member{Name: "local", Registry: local, Authority: true}, multi.Member{Name: "mdns", Registry: mdns})
	must(t, other.Register(t.Context(), node("x"), 0))
	err := r.Register(t.Context(), node("x"), 0)
	if !errors.Is(err, registry.ErrConflict) || !strings.Contains(err.Error(), "x of greeter") {
		t.Fatalf("got %v", err)
	}
	if _, err := local.Get(t.Context(), "greeter"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("local kept the node: %v", err)
	}
	if _, err := other.Get(t.Context(), "greeter"); err != nil {
		t.Errorf("the owner lost its node: %v", err)
	}
}

// picky announces no names of over eight bytes.
type picky struct{ registry.Registry }

func (p picky) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if len(n.Service) > 8 {
		return fmt.Errorf("%w: %s is too long for it", registry.ErrInvalid, n.Service)
	}
	return p.Registry.Register(ctx, n, ttl)
}

// TestWhatOneCannotAnnounceTheOthersDoNot: a service that only some could find would be a riddle to its user.
func TestWhatOneCannotAnnounceTheOthersDoNot(t *testing.T) {
	t.Parallel()
	local := memory.New()
	r := join(t, multi.Member{Name: "local", Registry: local, Authority: true}, multi.Member{Name: "mdns", Registry: picky{memory.New()}})
	n := node("x")
	must(t, r.Register(t.Context(), n, 0))
	n.ID, n.Service = "y", "greeter-of-the-north"
	err := r.Register(t.Context(), n, 0)
	if !errors.Is(err, registry.ErrInvalid) || !strings.HasPrefix(err.Error(), "registry: mdns: ") || strings.Count(err.Error(), "registry") > 1 {
		t.Errorf("got %v", err)
	}
	if _, err := local.Get(t.Context(), n.Service); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("local kept the node: %v", err)
	}
}

// switching fails to register while it is off.
type switching struct {
	registry.Registry
	on bool
}

func (s *switching) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if !s.on {
		return registry.ErrUnavailable
	}
	return s.Registry.Register(ctx, n, ttl)
}

func TestFailedRegistrationIsReportedAndTriedAgain(t *testing.T) {
	t.Parallel()
	far := &switching{Registry: memory.New()}
	r := join(t, multi.Member{Name: "near", Registry: memory.New()}, multi.Member{Name: "far", Registry: far})
	must(t, r.Register(t.Context(), node("x"), time.Minute))
	if s := r.Status(); s[0].Err != nil || !errors.Is(s[1].Err, registry.ErrUnavailable) || !strings.Contains(s[1].Err.Error(), "register x") {
		t.Fatalf("status %+v", s)
	}
	far.on = true
	must(t, r.Register(t.Context(), node("x"), time.Minute))
	if s := r.Status(); s[1].Err != nil {
		t.Fatalf("status %+v", s)
	}
	if nodes, err := far.Get(t.Context(), "greeter"); err != nil || len(nodes) != 1 {
		t.Fatal(nodes, err)
	}
}

func TestAllFail(t *testing.T) {
	t.Parallel()
	r := join(t, multi.Member{Name: "a", Registry: broken{}}, multi.Member{Name: "b", Registry: broken{}})
	_, getErr := r.Get(t.Context(), "greeter")
	_, listErr := r.List(t.Context())
	for what, err := range map[string]error{
		"Register":   r.Register(t.Context(), node("x"), 0),
		"Deregister": r.Deregister(t.Context(), node("x")),
		"Get":        getErr, "List": listErr,
	} {
		if !errors.Is(err, registry.ErrUnavailable) || errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s gave %v", what, err)
		}
	}
	for nodes, err := range r.Watch(t.Context(), "") {
		if nodes != nil || !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("Watch gave %v and %v", nodes, err)
		}
		break
	}
}

func TestSlowMembers(t *testing.T) {
	t.Parallel()
	members := func(m *memory.Registry) []multi.Member {
		return []multi.Member{{Name: "local", Registry: m, Authority: true}, {Name: "far", Registry: hanging{}}}
	}
	for name, c := range map[string]struct {
		known int // nodes that local has
		call  func(ctx context.Context, r registry.Registry) ([]registry.Node, error)
		most  time.Duration
		err   error
	}{
		"get known":   {1, get, 2 * time.Millisecond, nil},
		"get unknown": {0, get, 5 * time.Second, context.DeadlineExceeded},
		"list":        {1, list, 5 * time.Second, nil},
		"list none":   {0, list, 5 * time.Second, nil},
		"watch known": {1, watch, 2 * time.Millisecond, nil},
		"watch none":  {0, watch, time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := memory.New()
				r := join(t, members(m)...)
				if c.known > 0 {
					must(t, m.Register(t.Context(), node("x"), 0))
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				start := time.Now()
				nodes, err := c.call(ctx, r)
				if took := time.Since(start); took > c.most {
					t.Errorf("it took %v, want %v at most", took, c.most)
				}
				if !errors.Is(err, c.err) || len(nodes) != c.known {
					t.Errorf("got %d nodes and %v", len(nodes), err)
				}
				must(t, r.Close())
			})
		})
	}
}

func get(ctx context.Context, r registry.Registry) ([]registry.Node, error) {
	return r.Get(ctx, "greeter")
}

func list(ctx context.Context, r registry.Registry) ([]registry.Node, error) { return r.List(ctx) }

func watch(ctx context.Context, r registry.Registry) ([]registry.Node, error) {
	for nodes, err := range r.Watch(ctx, "greeter") {
		return nodes, err
	}
	return nil, ctx.Err()
}

func TestLateMemberOfList(t *testing.T) {
	t.Parallel()
	r := join(t, multi.Member{Name: "local", Registry: memory.New()}, multi.Member{Name: "far", Registry: hanging{}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := r.List(ctx); err != nil {
		t.Fatal(err)
	}
	if s := r.Status(); s[0].Err != nil || !errors.Is(s[1].Err, context.DeadlineExceeded) {
		t.Errorf("status %+v", s)
	}
}

// A node that a member does not take is the others' alone, from its registration to its end; one that nobody takes is registered nowhere.
func TestMemberThatTakesSome(t *testing.T) {
	t.Parallel()
	all, some := memory.New(), memory.New()
	t.Cleanup(func() { _, _ = all.Close(), some.Close() })
	ports := func(n registry.Node) bool { return strings.Contains(n.Address, ":") }
	r, err := multi.New(multi.Member{Name: "all", Registry: all.View(), Authority: true}, multi.Member{Name: "some", Registry: some.View(), Takes: ports})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	count := func(r registry.Registry) int {
		ns, _ := r.Get(t.Context(), "s") // nobody is an error
		return len(ns)
	}
	for address, want := range map[string]int{"my.subject": 0, "127.0.0.1:1": 1} {
		n := registry.Node{ID: "s-1", Service: "s", Version: "latest", Address: address}
		for range 2 { // the second is a renewal
			if err := r.Register(t.Context(), n, time.Minute); err != nil {
				t.Fatal(err)
			}
			if count(all) != 1 || count(some) != want || count(r) != 1 {
				t.Errorf("%s: %d, %d and %d nodes, want 1, %d and 1", address, count(all), count(some), count(r), want)
			}
		}
		if err := r.Deregister(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if count(all)+count(some)+count(r) != 0 {
			t.Errorf("%s: it is there after its end", address)
		}
	}
	none, err := multi.New(multi.Member{Name: "some", Registry: some.View(), Takes: ports}, multi.Member{Name: "away", Registry: broken{}})
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	if err := none.Register(t.Context(), registry.Node{ID: "s-1", Service: "s", Version: "latest", Address: "my.subject"}, time.Minute); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("a node that no member has: %v, want ErrUnavailable", err)
	}
}
