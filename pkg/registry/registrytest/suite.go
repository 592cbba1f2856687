package registrytest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// suite is one test: a system of its own, and what every test does with it.
type suite struct {
	*testing.T
	h         Harness
	open      Open
	byChanges bool // watches are read by WatchChanges
}

// one gives a registry on a fresh system.
func (s *suite) one() registry.Registry {
	s.Helper()
	s.open = s.h.New(s.T)
	return s.another()
}

// another gives one more registry on the same system.
func (s *suite) another() registry.Registry {
	s.Helper()
	r := s.open(s.T)
	s.Cleanup(func() { _ = r.Close() })
	return r
}

// node is a node that every backend carries whole.
func node(service, id string) registry.Node {
	return registry.Node{
		ID: id, Service: service, Version: "1.2.3", Address: "127.0.0.1:4711",
		Metadata: map[string]string{"protocol": "mucp", "zone": "a"},
	}
}

func (s *suite) register(r registry.Registry, n registry.Node, ttl time.Duration) {
	s.Helper()
	if err := r.Register(s.Context(), n, ttl); err != nil {
		s.Fatalf("Register %s/%s: %v", n.Service, n.ID, err)
	}
}

func (s *suite) deregister(r registry.Registry, n registry.Node) {
	s.Helper()
	if err := r.Deregister(s.Context(), n); err != nil {
		s.Fatalf("Deregister %s/%s: %v", n.Service, n.ID, err)
	}
}

// get gives a service's nodes, none where it is not found.
func (s *suite) get(r registry.Registry, service string) []registry.Node {
	s.Helper()
	nodes, err := r.Get(s.Context(), service)
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		s.Fatalf("Get %s: %v", service, err)
	}
	if (len(nodes) == 0) != (err != nil) {
		s.Fatalf("Get %s: %d nodes with error %v", service, len(nodes), err)
	}
	return nodes
}

func (s *suite) list(r registry.Registry) []registry.Node {
	s.Helper()
	nodes, err := r.List(s.Context())
	if err != nil {
		s.Fatalf("List: %v", err)
	}
	return nodes
}

// same tells whether two sets are the same, but for endpoints that the backend cannot carry.
func (s *suite) same(got, want []registry.Node) bool {
	return slices.EqualFunc(got, want, func(g, w registry.Node) bool {
		if !s.h.Endpoints {
			g.Endpoints, w.Endpoints = nil, nil
		}
		if len(g.Metadata) == 0 && len(w.Metadata) == 0 {
			g.Metadata, w.Metadata = nil, nil
		}
		return g.Equal(w)
	})
}

// eventually polls until r's Get of a service gives want, in order of ids.
func (s *suite) eventually(r registry.Registry, service string, want ...registry.Node) {
	s.Helper()
	var got []registry.Node
	if !s.until(func() bool { got = s.get(r, service); return s.same(got, want) }) {
		s.Fatalf("Get %s gave\n%s\nwant\n%s", service, show(got), show(want))
	}
}

// eventuallyAll is eventually for List.
func (s *suite) eventuallyAll(r registry.Registry, want ...registry.Node) {
	s.Helper()
	var got []registry.Node
	if !s.until(func() bool { got = s.list(r); return s.same(got, want) }) {
		s.Fatalf("List gave\n%s\nwant\n%s", show(got), show(want))
	}
}

// until polls ok until it holds or Wait is over.
func (s *suite) until(ok func() bool) bool {
	for deadline := time.Now().Add(s.h.Wait); ; time.Sleep(2 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return ok()
		}
	}
}

func show(nodes []registry.Node) string {
	if len(nodes) > 10 {
		return fmt.Sprintf("%d nodes, from %+v", len(nodes), nodes[0])
	}
	out := "no node"
	for i, n := range nodes {
		if i == 0 {
			out = ""
		}
		out += fmt.Sprintf("  %+v\n", n)
	}
	return out
}

func ids(nodes []registry.Node) []string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = n.ID
	}
	return out
}

// watch reads a registry's watch from a goroutine, and keeps what it yielded.
type watch struct {
	s    *suite
	stop context.CancelFunc
	ctx  context.Context // done when the watch has ended
	news chan struct{}
	gate chan struct{} // not nil: after the first set the reader stops until it is closed

	mu   sync.Mutex
	sets [][]registry.Node
	err  error
}

// watch starts a watch. It is stopped, and waited for, at the end of the test.
func (s *suite) watch(r registry.Registry, service string) *watch {
	s.Helper()
	return s.gatedWatch(r, service, nil)
}

// gatedWatch starts a watch whose reader stops after the first set until gate is closed.
func (s *suite) gatedWatch(r registry.Registry, service string, gate chan struct{}) *watch {
	s.Helper()
	in, stop := context.WithCancel(s.Context())
	out, ended := context.WithCancel(context.WithoutCancel(s.Context()))
	w := &watch{s: s, stop: stop, ctx: out, news: make(chan struct{}, 1), gate: gate}
	seq := r.Watch(in, service)
	if s.byChanges {
		seq = s.fold(registry.WatchChanges(in, r, service))
	}
	go func() {
		defer ended()
		w.read(seq)
	}()
	s.Cleanup(func() { stop(); <-out.Done() })
	return w
}

func (w *watch) read(seq iter.Seq2[[]registry.Node, error]) {
	for nodes, err := range seq {
		w.mu.Lock()
		if err != nil {
			w.err = err
		} else {
			w.sets = append(w.sets, slices.Clone(nodes))
		}
		w.mu.Unlock()
		select {
		case w.news <- struct{}{}:
		default:
		}
		if w.gate != nil {
			<-w.gate
		}
	}
}

// seen gives how many sets were yielded, and the last one.
func (w *watch) seen() (int, []registry.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		w.s.Errorf("watch yielded the error: %v", w.err)
		w.err = nil
	}
	if len(w.sets) == 0 {
		return 0, nil
	}
	return len(w.sets), w.sets[len(w.sets)-1]
}

// expect waits until the last set yielded is want, and fails the test if it never is. It gives the number of sets so far.
func (w *watch) expect(want ...registry.Node) int {
	w.s.Helper()
	timeout := time.NewTimer(w.s.h.Wait)
	defer timeout.Stop()
	for {
		n, last := w.seen()
		if n > 0 && w.s.same(last, want) {
			return n
		}
		select {
		case <-w.news:
		case <-w.ctx.Done():
			w.s.Fatalf("the watch ended; its last set was number %d\n%s\nwant\n%s", n, show(last), show(want))
		case <-timeout.C:
			w.s.Fatalf("the watch's last set is number %d\n%s\nwant\n%s", n, show(last), show(want))
		}
	}
}

// ends waits for the watch to end, and fails the test if it does not.
func (w *watch) ends() {
	w.s.Helper()
	select {
	case <-w.ctx.Done():
	case <-time.After(w.s.h.Wait):
		w.s.Fatal("the watch did not end")
	}
}
