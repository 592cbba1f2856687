package selector_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
)

func TestStaleWhileTheRegistryIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f)
		f.set("greeter", "a", "b")
		picks(t, b, greeter, 1)
		f.fail("greeter", registry.ErrUnavailable)
		time.Sleep(time.Hour)
		if got := only(picks(t, b, greeter, 100)); got != "[a b]" {
			t.Errorf("while away: %s", got)
		}
		// A registry that has just come up knows nobody yet.
		f.set("greeter")
		time.Sleep(20 * time.Second)
		if got := only(picks(t, b, greeter, 100)); got != "[a b]" {
			t.Errorf("empty after it was away: %s", got)
		}
		f.set("greeter", "b")
		time.Sleep(time.Minute)
		if got := only(picks(t, b, greeter, 100)); got != "[b]" {
			t.Errorf("once it knows: %s", got)
		}
		f.fail("greeter", registry.ErrUnavailable)
		f.set("greeter")
		time.Sleep(time.Minute)
		if _, _, err := b.Select(t.Context(), greeter); !errors.Is(err, selector.ErrNotFound) {
			t.Errorf("empty for a minute: got %v", err)
		}
	})
}

func TestEmptySetIsBelieved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f)
		f.set("greeter", "a")
		picks(t, b, greeter, 1)
		time.Sleep(time.Minute)
		f.set("greeter")
		synctest.Wait()
		if _, _, err := b.Select(t.Context(), greeter); !errors.Is(err, selector.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWatchThatEndsBeginsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f)
		f.set("greeter", "a")
		picks(t, b, greeter, 1)
		f.end("greeter")
		synctest.Wait()
		if got := only(picks(t, b, greeter, 10)); got != "[a]" {
			t.Errorf("between: %s", got)
		}
		f.set("greeter", "b")
		time.Sleep(2 * time.Second)
		if got := only(picks(t, b, greeter, 10)); got != "[b]" {
			t.Errorf("after: %s", got)
		}
		if _, begun := f.watched(); begun != 2 {
			t.Errorf("%d watches begun, want 2", begun)
		}
	})
}

func TestIdleServicesAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f)
		for _, s := range []string{"used", "idle"} {
			f.set(s, "a")
			picks(t, b, selector.Query{Service: s}, 1)
		}
		for range 5 {
			time.Sleep(5 * time.Minute)
			picks(t, b, selector.Query{Service: "used"}, 1)
		}
		if watched, begun := f.watched(); fmt.Sprint(watched) != "[used]" || begun != 2 {
			t.Errorf("watches %v, %d begun", watched, begun)
		}
		time.Sleep(time.Hour)
		if watched, _ := f.watched(); len(watched) != 0 {
			t.Errorf("watches %v", watched)
		}
		f.set("used", "again")
		if id, _ := pick(t, b, selector.Query{Service: "used"}); id != "again" {
			t.Errorf("got %s", id)
		}
	})
}

func TestMaxServices(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f, selector.WithMaxServices(3))
		for i := range 50 {
			s := fmt.Sprintf("s%d", i)
			f.set(s, "a")
			picks(t, b, selector.Query{Service: s}, 1)
		}
		synctest.Wait()
		if watched, _ := f.watched(); len(watched) != 3 || !slices.Contains(watched, "s49") {
			t.Errorf("watches %v", watched)
		}
		// Services that are waited for are not thrown out.
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				if _, _, err := b.Select(ctx, selector.Query{Service: fmt.Sprintf("slow%d", i)}); !errors.Is(err, context.Canceled) {
					t.Errorf("slow%d: got %v", i, err)
				}
			})
		}
		synctest.Wait()
		if _, _, err := b.Select(t.Context(), selector.Query{Service: "more"}); !errors.Is(err, selector.ErrUnavailable) {
			t.Errorf("one more: got %v", err)
		}
		cancel()
		wg.Wait()
	})
}
