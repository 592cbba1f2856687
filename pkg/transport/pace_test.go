package transport_test

import (
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
)

// many has n calls of the duration run, on the goroutine that Inline says, and gives how much they delayed others.
func many(p *transport.Pace, n int, d time.Duration) (delay time.Duration) {
	for i := range n {
		inline := p.Inline()
		if inline {
			delay += d
		}
		if p.Timed(uint32(i)) {
			p.Ran(d, inline)
		}
	}
	return delay
}

func TestPace(t *testing.T) {
	t.Parallel()
	var none *transport.Pace
	if none.Inline() || transport.NewPace(transport.PaceGoroutine).Inline() {
		t.Error("inline, where each call has a goroutine")
	}
	always := transport.NewPace(transport.PaceInline)
	many(always, 1000, time.Second)
	if !always.Inline() {
		t.Error("PaceInline lost it")
	}
	p := transport.NewPace(transport.PaceAdaptive)
	if !p.Inline() || !p.Timed(1) {
		t.Fatal("a new endpoint is not tried")
	}
	if many(p, 1_000_000, 100*time.Microsecond); !p.Inline() || p.Timed(1) || !p.Timed(16) {
		t.Error("a fast endpoint is not known for one")
	}
	if delay := many(p, 100_000, 2*time.Millisecond); delay > 20*time.Millisecond || p.Inline() {
		t.Errorf("calls of 2 ms delayed others by %v, inline %t", delay, p.Inline())
	}
}

// TestPaceInAll: an endpoint that turns slow whenever it is tried again delays others by 100 ms, and then by a call at a time.
func TestPaceInAll(t *testing.T) {
	t.Parallel()
	p := transport.NewPace(transport.PaceAdaptive)
	var delay time.Duration
	const rounds = 200
	for range rounds {
		if delay += many(p, 1000, 2*time.Millisecond); p.Inline() {
			t.Fatal("slow and inline")
		}
		many(p, 1<<14, time.Microsecond)
	}
	if limit := 100*time.Millisecond + rounds*2*time.Millisecond; delay > limit || delay < 80*time.Millisecond {
		t.Errorf("%v of delay, want at most %v", delay, limit)
	}
	p = transport.NewPace(transport.PaceAdaptive)
	if delay = many(p, 1_000_000, 2*time.Millisecond); delay > 20*time.Millisecond {
		t.Errorf("%v of delay by an endpoint that is never fast", delay)
	}
}

// TestPaceBlocked: a call that blocks is enough.
func TestPaceBlocked(t *testing.T) {
	t.Parallel()
	p := transport.NewPace(transport.PaceAdaptive)
	p.Blocked(5 * time.Millisecond)
	if p.Inline() {
		t.Error("inline after a call blocked")
	}
}
