package server

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
)

// Of the calls of a fast endpoint one in 2^timedBits is timed, as the clock costs as much as the rest of a call's way through
// this package.
const timedBits = 3

// golden spreads the numbers of calls (Knuth's multiplicative hashing), so that which are timed fits no rhythm of a caller's.
const golden = 0x9E3779B97F4A7C15

// slow is the time from which on a call is followed by one that is timed in any case. The clock is then nothing beside it.
const slow = 20 * time.Microsecond

// stats counts one endpoint's calls. Its methods may be called concurrently.
type stats struct {
	_       [64]byte // what stands before it is read by all calls, and is not to share their line of the cache
	begun   atomic.Uint64
	ended   atomic.Uint64
	errors  atomic.Uint64
	longest atomic.Int64
	slow    atomic.Bool // the latest call that was timed
	times   histogram
}

// weight gives how many calls the next one stands for in the times; zero is that it is not timed.
func (s *stats) weight(always bool) uint64 {
	switch {
	case s.slow.Load() || always:
		return 1
	case s.begun.Load()*golden>>(64-timedBits) == 0:
		return 1 << timedBits
	}
	return 0
}

// end counts a call that began at start, where its weight is not zero.
func (s *stats) end(start int64, weight uint64, err error) {
	if err != nil {
		s.errors.Add(1)
	}
	s.ended.Add(1)
	if weight > 0 {
		s.timed(start, weight)
	}
}

// timed takes the time of a call that began at start, and stands for weight ones.
func (s *stats) timed(start int64, weight uint64) {
	d := time.Duration(callctx.Now() - start)
	s.times.add(d, weight)
	if isSlow := d >= slow; isSlow != s.slow.Load() {
		s.slow.Store(isSlow)
	}
	for old := s.longest.Load(); int64(d) > old && !s.longest.CompareAndSwap(old, int64(d)); old = s.longest.Load() {
	}
}

func (s *stats) read(name string) EndpointStats {
	longest := milliseconds(time.Duration(s.longest.Load()))
	ended := s.ended.Load() // before begun, which is never less
	return EndpointStats{
		Name: name, Calls: ended, Errors: s.errors.Load(), Inflight: int64(s.begun.Load() - ended),
		// The middle of the last bucket may lie beyond the longest call in it.
		P50: min(s.times.quantile(0.50), longest), P99: min(s.times.quantile(0.99), longest), Max: longest,
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// histogram counts durations in buckets that grow by a quarter of a power of two, from a microsecond to over an hour:
// a quantile is off by an eighth at most.
type histogram [4 * 34]atomic.Uint64

func (h *histogram) add(d time.Duration, n uint64) { h[bucket(d)].Add(n) }

// bucket is 4·log2 of the microseconds: the power, and the two bits below it.
func bucket(d time.Duration) int {
	us := uint64(max(d/time.Microsecond, 1))
	power := bits.Len64(us) - 1
	part := (us << 2 >> power) & 3
	return min(4*power+int(part), len(histogram{})-1)
}

// quantile gives the middle of the bucket that holds the q-th part of all, in milliseconds; 0 for none.
func (h *histogram) quantile(q float64) float64 {
	var counts [len(histogram{})]uint64
	total := uint64(0)
	for i := range h {
		counts[i] = h[i].Load()
		total += counts[i]
	}
	rank, seen := uint64(q*float64(total)), uint64(0)
	for i, n := range counts {
		if seen += n; n > 0 && seen > rank {
			power, part := i/4, i%4
			us := float64(uint64(1)<<power) * (1 + (float64(part)+0.5)/4)
			return us / 1000
		}
	}
	return 0
}
