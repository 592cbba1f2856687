package retry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

func TestNext(t *testing.T) {
	t.Parallel()
	var wait, sum time.Duration
	for range 5 {
		wait = retry.Next(wait)
		sum += wait
	}
	if want := (200 + 400 + 800 + 1600 + 3200) * time.Millisecond; sum != want {
		t.Errorf("five waits take %v, want %v", sum, want)
	}
	if wait = retry.Next(wait); wait != retry.Last || retry.Next(wait) != retry.Last {
		t.Errorf("the wait grows to %v, want %v", wait, retry.Last)
	}
}

func TestJitter(t *testing.T) {
	t.Parallel()
	for range 1000 {
		if d := retry.Jitter(time.Second); d < 800*time.Millisecond || d > 1200*time.Millisecond {
			t.Fatalf("a second became %v", d)
		}
	}
	if d := retry.Jitter(0); d != 0 {
		t.Errorf("nothing became %v", d)
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		if !retry.Pause(t.Context(), time.Second) || time.Since(begun) != time.Second {
			t.Errorf("the pause took %v", time.Since(begun))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if retry.Pause(ctx, time.Hour) || time.Since(begun) != 2*time.Second {
			t.Errorf("the pause was not ended by its context, after %v", time.Since(begun))
		}
	})
}
