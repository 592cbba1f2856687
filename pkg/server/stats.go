package server

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// stats counts one endpoint's calls. Its methods may be called concurrently.
type stats struct {
	calls, errors atomic.Uint64
	inflight      atomic.Int64
	longest       atomic.Int64
	times         histogram
}

func (s *stats) begin() time.Time {
	s.inflight.Add(1)
	return time.Now()
}

func (s *stats) end(start time.Time, err error) {
	d := time.Since(start)
	s.inflight.Add(-1)
	s.calls.Add(1)
	if err != nil {
		s.errors.Add(1)
	}
	s.times.add(d)
	for old := s.longest.Load(); int64(d) > old && !s.longest.CompareAndSwap(old, int64(d)); old = s.longest.Load() {
	}
}

func (s *stats) read(name string) EndpointStats {
	longest := milliseconds(time.Duration(s.longest.Load()))
	return EndpointStats{
		Name: name, Calls: s.calls.Load(), Errors: s.errors.Load(), Inflight: s.inflight.Load(),
		// The middle of the last bucket may lie beyond the longest call in it.
		P50: min(s.times.quantile(0.50), longest), P99: min(s.times.quantile(0.99), longest), Max: longest,
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// histogram counts durations in buckets that grow by a quarter of a power of two, from a microsecond to over an hour:
// a quantile is off by an eighth at most.
type histogram [4 * 34]atomic.Uint32

func (h *histogram) add(d time.Duration) { h[bucket(d)].Add(1) }

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
		counts[i] = uint64(h[i].Load())
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
