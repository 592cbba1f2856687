package multi_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/registry/multi"
)

// opening is a member that does not open before it is on.
type opening struct {
	inner *memory.Registry
	on    atomic.Bool
	mu    sync.Mutex
	tries []time.Time
}

func (o *opening) open(context.Context) (registry.Registry, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tries = append(o.tries, time.Now())
	if !o.on.Load() {
		return nil, errMulticast
	}
	return o.inner, nil
}

func (o *opening) join(t *testing.T) *multi.Registry {
	return join(t, multi.Member{Name: "local", Registry: memory.New()}, multi.Member{Name: "mdns", Open: o.open})
}

func TestRenewalOpensMember(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &opening{inner: memory.New()}
		r := o.join(t)
		start := time.Now()
		for time.Since(start) < 10*time.Minute {
			must(t, r.Register(t.Context(), node("x"), 0))
			time.Sleep(100 * time.Millisecond)
		}
		var gaps []time.Duration
		for i := range o.tries[1:] {
			gaps = append(gaps, o.tries[i+1].Sub(o.tries[i]).Round(time.Second))
		}
		if want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}; len(gaps) < 8 || !slices.EqualFunc(gaps[:8], want, func(g, w time.Duration) bool { return g == w*time.Second }) {
			t.Errorf("Open is tried again after %v", gaps)
		}
		if s := r.Status()[1]; s.Started || !errors.Is(s.Err, errMulticast) {
			t.Errorf("status %+v", s)
		}
		o.on.Store(true)
		time.Sleep(time.Minute)
		must(t, r.Register(t.Context(), node("x"), 0))
		if nodes, err := o.inner.Get(t.Context(), "greeter"); err != nil || len(nodes) != 1 {
			t.Errorf("the member has %v, %v", nodes, err)
		}
		addresses(t, r)
		if s := r.Status()[1]; !s.Started || s.Err != nil {
			t.Errorf("status %+v", s)
		}
		must(t, r.Close())
		if _, err := o.inner.List(t.Context()); !errors.Is(err, registry.ErrClosed) {
			t.Errorf("the member is left open: %v", err)
		}
	})
}

func TestWatchOpensMember(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &opening{inner: memory.New()}
		r := o.join(t)
		must(t, o.inner.Register(t.Context(), node("far"), 0))
		time.AfterFunc(5*time.Second, func() { o.on.Store(true) })
		var sizes []int
		for nodes, err := range r.Watch(t.Context(), "") {
			must(t, err)
			if sizes = append(sizes, len(nodes)); len(nodes) > 0 {
				break
			}
		}
		if !slices.Equal(sizes, []int{0, 1}) {
			t.Errorf("sets of %v nodes", sizes)
		}
		if _, ok := r.Host(); ok {
			t.Error("no member tells a host")
		}
		must(t, r.Close())
	})
}

func TestCloseBeforeMemberOpens(t *testing.T) {
	t.Parallel()
	o := &opening{inner: memory.New()}
	r := o.join(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range r.Watch(t.Context(), "") {
		}
	}()
	must(t, r.Deregister(t.Context(), node("x")))
	must(t, r.Close())
	<-ended
	must(t, o.inner.Close())
}
