package transport

import (
	"sync/atomic"
	"time"
)

// PaceMode says where the calls of an endpoint run.
type PaceMode uint8

// The modes.
const (
	// PaceAdaptive runs calls on the goroutine that reads the connection while they are fast, and else on their own.
	PaceAdaptive PaceMode = iota
	// PaceInline runs them on the goroutine that reads, fast or not. One that blocks loses the reading to another goroutine
	// all the same, so that it delays the calls behind it by a few milliseconds.
	PaceInline
	// PaceGoroutine gives each call a goroutine of its own.
	PaceGoroutine
)

// What adaptive endpoints may cost the other calls on their connections.
const (
	fastCall    = 250 * time.Microsecond // a call that takes less delays nobody
	paceStint   = 10 * time.Millisecond  // delay that an endpoint may cause before its calls get goroutines
	paceBudget  = 80 * time.Millisecond  // delay that it may cause in all
	paceRegain  = time.Millisecond       // what of that it gets back by paceReturn fast calls in a row
	paceReturn  = 1 << 14                // fast calls in a row after which one that has goroutines is tried again
	paceSamples = 16                     // one of so many calls is timed, of an endpoint that is known to be fast
	paceTrials  = 32                     // fast calls after which it is
)

// Pace learns whether the calls of one endpoint are fast enough to run on the goroutine that reads their connection, where
// they cost least and hold up what is behind them. An endpoint that has held up others for 10 ms is given goroutines. If it
// is fast from then on, 16,384 times in a row, it is tried again, as long as it has not delayed others by 80 ms in all;
// of these it gets one back by each 16,384 fast calls. It is used by connections, concurrently.
type Pace struct {
	mode PaceMode

	slow  atomic.Bool   // calls get goroutines
	quick atomic.Uint32 // fast calls in a row that were noted
	spent atomic.Int64  // nanoseconds of delay in this stint
	left  atomic.Int64  // nanoseconds that it may cause in all
	cost  atomic.Int64  // nanoseconds that a call takes, about
}

// NewPace gives the Pace of an endpoint.
func NewPace(m PaceMode) *Pace {
	p := &Pace{mode: m}
	p.left.Store(int64(paceBudget))
	return p
}

// Inline reports whether the next call runs on the goroutine that reads.
func (p *Pace) Inline() bool {
	return p != nil && (p.mode == PaceInline || p.mode == PaceAdaptive && !p.slow.Load())
}

// Timed reports whether the n-th call is one to be timed. Its duration goes to Ran.
func (p *Pace) Timed(n uint32) bool { return p.quick.Load() < paceTrials || n%paceSamples == 0 }

// Cost is how long a call takes, about.
func (p *Pace) Cost() time.Duration { return time.Duration(p.cost.Load()) }

// Ran notes that a call took d, inline or not.
func (p *Pace) Ran(d time.Duration, inline bool) {
	if p == nil {
		return
	}
	cost := p.cost.Load()
	p.cost.Store(cost + (int64(d)-cost)/8)
	if d < fastCall {
		p.fast()
		return
	}
	p.quick.Store(0)
	if inline {
		p.delayed(d)
	}
}

// fast notes a call that delayed nobody. After the first of a row, one in paceSamples is noted.
func (p *Pace) fast() {
	if p.quick.Add(1) < paceTrials+(paceReturn-paceTrials)/paceSamples {
		return
	}
	p.quick.Store(paceTrials)
	p.spent.Store(0)
	left := min(p.left.Load()+int64(paceRegain), int64(paceBudget))
	p.left.Store(left)
	if left > 0 {
		p.slow.Store(false)
	}
}

// delayed notes that a call has held up the connection for d.
func (p *Pace) delayed(d time.Duration) {
	p.left.Add(-int64(d))
	if p.spent.Add(int64(d)) >= int64(paceStint) || p.left.Load() <= 0 {
		p.slow.Store(true)
	}
}

// Met notes that a call that is not timed was met under way, and went on for d. One that is slow is met sooner than it is timed:
// then all are timed for a while.
func (p *Pace) Met(d time.Duration) {
	if p != nil && d >= fastCall/2 {
		p.quick.Store(0)
		p.delayed(2 * d) // it was met in its midst, on average
	}
}

// Blocked notes that a call has held up the connection for d, and lost the reading.
func (p *Pace) Blocked(d time.Duration) {
	if p == nil {
		return
	}
	p.quick.Store(0)
	p.delayed(max(d, paceStint))
}
