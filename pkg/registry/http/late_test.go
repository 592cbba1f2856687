package http_test

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

// late is a registry that has much to do: what changes there its watches tell later, and answers take their time, or are lost. All
// times are nanoseconds.
type late struct {
	registry.Registry

	watch, register, deregister atomic.Int64
	lose                        atomic.Bool // answers of Register and Deregister
}

var errLost = fmt.Errorf("%w: the answer was lost", registry.ErrUnavailable)

func (l *late) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	err := l.Registry.Register(ctx, n, ttl)
	time.Sleep(time.Duration(l.register.Load()))
	if l.lose.Load() {
		return errLost
	}
	return err
}

func (l *late) Deregister(ctx context.Context, n registry.Node) error {
	time.Sleep(time.Duration(l.deregister.Load()))
	err := l.Registry.Deregister(ctx, n)
	if l.lose.Load() {
		return errLost
	}
	return err
}

// WatchChanges is of registry.ChangeWatcher.
func (l *late) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	type news struct {
		registry.Change

		err error
		at  time.Time
	}
	return func(yield func(registry.Change, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		queue := make(chan news, 10_000)
		var reading sync.WaitGroup
		defer reading.Wait()
		defer stop()
		reading.Go(func() {
			defer close(queue)
			for c, err := range registry.WatchChanges(ctx, l.Registry, service) {
				queue <- news{c, err, time.Now()}
			}
		})
		for n := range queue {
			select {
			case <-time.After(time.Until(n.at.Add(time.Duration(l.watch.Load())))):
			case <-ctx.Done():
				return
			}
			if !yield(n.Change, n.err) {
				return
			}
		}
	}
}

// inBubble runs a test with copies of a server, each before a late view of one registry, in a time of its own.
func inBubble(t *testing.T, n int, f func(t *testing.T, copies []*registryserver.Server, views []*late, behind *memory.Registry)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		behind := memory.New()
		defer behind.Close()
		var copies []*registryserver.Server
		var views []*late
		for range n {
			view := &late{Registry: behind.View()}
			defer view.Close()
			s, err := registryserver.New(registryserver.Options{Registry: view, RegistryName: "memory", MaxWrites: 10_000})
			must(t, err)
			defer s.Close()
			copies, views = append(copies, s), append(views, view)
		}
		synctest.Wait()
		f(t, copies, views, behind)
	})
}

func putAt(s *registryserver.Server, service, version, secret string) error {
	w := ask(s, "PUT /v1/nodes/x?ttl=1m", fmt.Sprintf(`{"service":"%s","version":"%s","address":"127.0.0.1:1"}`, service, version), "Micro-Lease: "+secret)
	if w.Code != 200 && w.Code != 201 {
		return fmt.Errorf("PUT: %d %s", w.Code, w.Body)
	}
	return nil
}

func takeAt(s *registryserver.Server, service, secret string) error {
	if service != "" {
		service = "?service=" + service
	}
	if w := ask(s, "DELETE /v1/nodes/x"+service, "", "Micro-Lease: "+secret); w.Code != 204 {
		return fmt.Errorf("DELETE: %d %s", w.Code, w.Body)
	}
	return nil
}

// stands tells the version of x behind the servers; empty where there is none.
func stands(t *testing.T, behind *memory.Registry) (version string) {
	t.Helper()
	nodes, err := behind.List(t.Context())
	must(t, err)
	for _, n := range nodes {
		if n.ID == "x" {
			version += n.Version
		}
	}
	return version
}

// TestLateWatch: what a server did a moment ago it knows, though its watch tells of what was before.
func TestLateWatch(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, copies []*registryserver.Server, views []*late, behind *memory.Registry) {
		s := copies[0]
		views[0].watch.Store(int64(7 * time.Second))
		must(t, putAt(s, "a", "1", secretA))
		must(t, takeAt(s, "a", secretA))
		must(t, putAt(s, "b", "2", secretA)) // here the watch tells that 1 has come, and soon that it has gone
		time.Sleep(4 * time.Second)
		must(t, putAt(s, "b", "3", secretA))
		if err := putAt(s, "b", "4", secretB); err == nil {
			t.Error("another owner has changed the node")
		}
		if v := stands(t, behind); v != "3" {
			t.Errorf("version %q stands there, want 3", v)
		}
		must(t, takeAt(s, "b", secretA))
		if v := stands(t, behind); v != "" {
			t.Errorf("version %q is left", v)
		}
		time.Sleep(30 * time.Second)
		if w := ask(s, "GET /v1/nodes/x", ""); w.Code != 404 {
			t.Errorf("at the end it shows %s", w.Body)
		}
	})
}

// TestLateChanges: changes at random, of two owners at two copies whose watches are late, end as the last of them says.
func TestLateChanges(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, copies []*registryserver.Server, views []*late, behind *memory.Registry) {
				random := rand.New(rand.NewPCG(seed, 1))
				version, sure := "", true
				for i := range 40 {
					for _, v := range views {
						v.watch.Store(random.Int64N(int64(8 * time.Second)))
						v.register.Store(random.Int64N(int64(time.Second)))
						v.lose.Store(random.IntN(8) == 0)
					}
					s := copies[random.IntN(2)]
					next, err := "", error(nil)
					if random.IntN(3) > 0 {
						next = fmt.Sprint(i)
						err = putAt(s, string("ab"[random.IntN(2)]), next, secretA)
					} else {
						err = takeAt(s, "", secretA)
					}
					sure = err == nil || sure && next == version // else it is done, or not
					if err == nil {
						version, sure = next, true
					}
					if got := stands(t, behind); sure && got != version {
						t.Fatalf("change %d: %q stands there, want %q", i, got, version)
					}
					time.Sleep(time.Duration(random.Int64N(int64(3 * time.Second))))
				}
				for _, v := range views {
					v.watch.Store(0)
					v.lose.Store(false)
				}
				time.Sleep(15 * time.Second)
				must(t, putAt(copies[0], "a", "last", secretA))
				if got := stands(t, behind); got != "last" {
					t.Errorf("%q stands there, want the last one", got)
				}
				must(t, takeAt(copies[1], "a", secretA))
				if got := stands(t, behind); got != "" {
					t.Errorf("%q is left", got)
				}
			})
		})
	}
}

// TestLostAnswer: a node that was put is its copy's, also where the answer to that was lost.
func TestLostAnswer(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, copies []*registryserver.Server, views []*late, behind *memory.Registry) {
		a, b := copies[0], copies[1]
		views[0].lose.Store(true)
		if err := putAt(a, "s", "1", secretA); err == nil {
			t.Error("a lost answer is no error")
		}
		views[0].lose.Store(false)
		time.Sleep(time.Second)
		must(t, putAt(b, "s", "2", secretA)) // the first one has to let go of it
		must(t, takeAt(b, "s", secretA))
		views[0].lose.Store(true)
		_ = putAt(a, "s", "3", secretA)
		views[0].lose.Store(false)
		must(t, putAt(a, "s", "4", secretA))
		must(t, takeAt(a, "s", secretA))
		if v := stands(t, behind); v != "" {
			t.Errorf("version %q is left", v)
		}
	})
}

// TestSlowToLetGo: another copy may take some seconds to let go of a node, and be asked before it knows that it has it.
func TestSlowToLetGo(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, copies []*registryserver.Server, views []*late, behind *memory.Registry) {
		a, b := copies[0], copies[1]
		views[0].register.Store(int64(time.Second))
		views[0].deregister.Store(int64(2500 * time.Millisecond))
		var putting sync.WaitGroup
		putting.Go(func() { must(t, putAt(a, "s", "1", secretA)) })
		time.Sleep(100 * time.Millisecond) // it is there, and the first copy has no answer
		must(t, putAt(b, "s", "2", secretA))
		putting.Wait()
		if v := stands(t, behind); v != "2" {
			t.Errorf("version %q stands there, want 2", v)
		}
	})
}
