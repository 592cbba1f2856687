// Package retry says how long a backend waits before it tries again.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// The wait after a failure is doubled with each that follows upon it.
const (
	First = 200 * time.Millisecond
	Last  = 5 * time.Second
)

// Next gives the wait after a failure from that before it, which is 0 where there was none.
func Next(wait time.Duration) time.Duration { return min(max(2*wait, First), Last) }

// Jitter gives d more or less a fifth, so that not all come back at the same time.
func Jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d - d/5 + rand.N(2*d/5+1)
}

// Pause waits, and reports whether ctx let it.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
