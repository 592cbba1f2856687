// Package histogram counts durations at the cost of an addition, and gives their quantiles to within three percent.
package histogram

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	fine    = 5 // bits of a value that its bucket keeps: 32 buckets for each power of two
	buckets = (41 - fine) << fine
)

// Histogram counts durations of up to 18 minutes; a longer one counts as the longest. The zero value is empty. Record may
// be called concurrently.
type Histogram struct {
	counts [buckets]atomic.Uint32
}

// Record counts d.
func (h *Histogram) Record(d time.Duration) { h.counts[index(d)].Add(1) }

func index(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<fine {
		return int(v)
	}
	shift := bits.Len64(v) - fine - 1
	return min((shift+1)<<fine+int(v>>shift)-1<<fine, buckets-1)
}

// middle gives the duration in the middle of a bucket.
func middle(i int) time.Duration {
	if i < 1<<fine {
		return time.Duration(i)
	}
	shift := i>>fine - 1
	low := uint64(1<<fine+i&(1<<fine-1)) << shift
	return time.Duration(low + uint64(1)<<shift/2)
}

// Merge adds what other counted.
func (h *Histogram) Merge(other *Histogram) {
	for i := range other.counts {
		if n := other.counts[i].Load(); n > 0 {
			h.counts[i].Add(n)
		}
	}
}

// Quantile gives the duration that the part q of the recorded ones did not pass; zero where none was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	var total uint64
	for i := range h.counts {
		total += uint64(h.counts[i].Load())
	}
	if total == 0 {
		return 0
	}
	rank := min(uint64(q*float64(total))+1, total)
	for i := range h.counts {
		n := uint64(h.counts[i].Load())
		if rank <= n {
			return middle(i)
		}
		rank -= n
	}
	return middle(buckets - 1)
}
