package registrytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

func (s *suite) closeEndsWatches() {
	r := s.one()
	s.register(r, node("greeter", "greeter-1"), 0)
	gate := make(chan struct{})
	open, busy := s.watch(r, ""), s.gatedWatch(r, "greeter", gate)
	open.expect(node("greeter", "greeter-1"))
	busy.expect(node("greeter", "greeter-1"))
	ended := make(chan error)
	go func() { // Close from inside a watch's loop must not wait for that loop
		var err error
		for range r.Watch(s.Context(), "") {
			err = r.Close()
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		if err != nil {
			s.Errorf("Close: %v", err)
		}
	case <-time.After(s.h.Wait):
		s.Error("Close inside a watch's loop did not end the watch")
	}
	open.ends()
	close(gate)
	busy.ends()
	open.seen() // without an error
	busy.seen()
}

func (s *suite) closed() {
	r := s.one()
	n := node("greeter", "greeter-1")
	s.register(r, n, 0)
	for range 2 {
		if err := r.Close(); err != nil {
			s.Fatalf("Close: %v", err)
		}
	}
	_, getErr := r.Get(s.Context(), "greeter")
	_, listErr := r.List(s.Context())
	for what, err := range map[string]error{
		"Register": r.Register(s.Context(), n, 0), "Deregister": r.Deregister(s.Context(), n), "Get": getErr, "List": listErr,
	} {
		if !errors.Is(err, registry.ErrClosed) {
			s.Errorf("%s after Close gave %v, want ErrClosed", what, err)
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for nodes, err := range r.Watch(s.Context(), "") {
			if !errors.Is(err, registry.ErrClosed) {
				s.Errorf("Watch after Close yielded %d nodes and %v", len(nodes), err)
			}
		}
	}()
	select {
	case <-ended:
	case <-time.After(s.h.Wait):
		s.Fatal("Watch after Close did not end")
	}
}

func (s *suite) crowd() {
	r := s.one()
	reader := r
	if s.h.Shared {
		reader = s.another()
	}
	w := s.watch(reader, "")
	var want []registry.Node
	for i := range s.h.Crowd {
		want = append(want, node(fmt.Sprintf("service-%d", i%7), fmt.Sprintf("node-%04d", i)))
	}
	registry.Sort(want)
	order := rand.Perm(len(want))
	var wg sync.WaitGroup
	for part := range slices.Chunk(order, len(order)/8+1) {
		wg.Go(func() {
			for _, i := range part {
				if err := r.Register(s.Context(), want[i], 0); err != nil {
					s.Errorf("Register: %v", err)
				}
			}
		})
	}
	wg.Wait()
	s.eventuallyAll(reader, want...)
	w.expect(want...)
	some := slices.DeleteFunc(slices.Clone(want), func(n registry.Node) bool { return n.Service != "service-3" })
	s.eventually(reader, "service-3", some...)
	if err := r.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	if s.h.Shared {
		w.expect()
		s.eventuallyAll(reader)
	}
}

func (s *suite) concurrent() {
	r := s.one()
	rs := []registry.Registry{r}
	if s.h.Shared {
		rs = append(rs, s.another())
	}
	w := s.watch(r, "")
	var wg sync.WaitGroup
	for i := range 6 {
		r := rs[i%len(rs)]
		wg.Go(func() {
			for k := range 20 {
				n := node(fmt.Sprintf("service-%d", k%3), fmt.Sprintf("node-%d-%d", i, k%5))
				n.Version = fmt.Sprint(k)
				if err := r.Register(s.Context(), n, time.Minute); err != nil {
					s.Errorf("Register: %v", err)
				}
				if _, err := r.Get(s.Context(), n.Service); err != nil && !errors.Is(err, registry.ErrNotFound) {
					s.Errorf("Get: %v", err)
				}
				nodes, err := r.List(s.Context())
				sorted := slices.Clone(nodes)
				registry.Sort(sorted)
				if err != nil || !slices.Equal(ids(nodes), ids(sorted)) {
					s.Errorf("List: %v, ids %v", err, ids(nodes))
				}
				for _, err := range r.Watch(s.Context(), n.Service) {
					if err != nil {
						s.Errorf("Watch: %v", err)
					}
					break
				}
				if err := r.Deregister(s.Context(), n); err != nil {
					s.Errorf("Deregister: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for _, r := range rs {
		s.eventuallyAll(r)
	}
	w.expect()
	last := node("greeter", "greeter-1")
	s.register(r, last, 0)
	w.expect(last)
}
