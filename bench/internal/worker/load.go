package worker

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/histogram"
)

// The phases of a load. Callers look at them between two operations.
const (
	warming int32 = iota
	measuring
	stopped
)

// manyCallers is from how many callers on only some operations are timed: by then the clock is a visible part of an
// operation's cost, and there are enough of them.
const (
	manyCallers = 16
	timedOneIn  = 8
)

// load has callers at work.
type load struct {
	cell  cell.Cell
	phase atomic.Int32
	ops   atomic.Int64 // done while measuring; each caller adds its own at the end
	times [64]histogram.Histogram
	work  sync.WaitGroup

	mu  sync.Mutex
	err error // the first
}

// start sets each of ops to work on a goroutine of its own.
func start(c cell.Cell, ops []Op) *load {
	l := &load{cell: c}
	begin := time.Now()
	for i, op := range ops {
		l.work.Go(func() {
			var err error
			if c.Rate > 0 {
				err = l.paced(i, op, begin)
			} else {
				err = l.closed(i, op)
			}
			if err != nil && l.phase.Load() != stopped {
				l.fail(fmt.Errorf("caller %d: %w", i, err))
			}
		})
	}
	return l
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

func (l *load) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// closed calls again as soon as the last answer is there.
func (l *load) closed(caller int, op Op) error {
	done, every := int64(0), 1
	if l.cell.Callers >= manyCallers {
		every = timedOneIn
	}
	if l.cell.Kind != cell.Call {
		every = 1 << 62 // the time between two messages of a stream says nothing
	}
	defer func() { l.ops.Add(done) }()
	times := &l.times[caller%len(l.times)]
	for n := caller; ; n++ {
		phase := l.phase.Load()
		if phase == stopped {
			return nil
		}
		if phase == measuring && n%every == 0 {
			begin := time.Now()
			if err := op(); err != nil {
				return err
			}
			times.Record(time.Since(begin))
		} else if err := op(); err != nil {
			return err
		}
		if phase == measuring {
			done++
		}
	}
}

// paced calls at times that the clock sets, which the callers share evenly. A call that is late because the one before it
// took so long counts from when it was due; one that is late because a timer was counts from when it began.
func (l *load) paced(caller int, op Op, begin time.Time) error {
	period := time.Duration(float64(time.Second) * float64(l.cell.Callers) / float64(l.cell.Rate))
	due := begin.Add(period * time.Duration(caller) / time.Duration(l.cell.Callers))
	var done int64
	defer func() { l.ops.Add(done) }()
	times := &l.times[caller%len(l.times)]
	for ; ; due = due.Add(period) {
		from := due
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
			from = time.Now()
		}
		phase := l.phase.Load()
		if phase == stopped {
			return nil
		}
		if err := op(); err != nil {
			return err
		}
		if phase == measuring {
			times.Record(time.Since(from))
			done++
		}
	}
}

// quantiles gives those of all callers, in µs.
func (l *load) quantiles(qs ...float64) []float64 {
	var all histogram.Histogram
	for i := range l.times {
		all.Merge(&l.times[i])
	}
	out := make([]float64, len(qs))
	for i, q := range qs {
		out[i] = float64(all.Quantile(q).Nanoseconds()) / 1e3
	}
	return out
}
