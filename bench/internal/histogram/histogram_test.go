package histogram

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestQuantiles compares the quantiles with those of the sorted values themselves.
func TestQuantiles(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for _, scale := range []float64{10, 1e3, 1e6, 1e9} {
		var h Histogram
		var all []time.Duration
		for range 20_000 {
			d := time.Duration(r.ExpFloat64() * scale)
			h.Record(d)
			all = append(all, d)
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.5, 0.99, 0.999, 1} {
			want := all[min(int(q*float64(len(all))), len(all)-1)]
			got := h.Quantile(q)
			if off := float64(got-want) / float64(max(want, 1)); off < -0.035 || off > 0.035 {
				t.Errorf("values about %g ns, quantile %g: got %v, want %v", scale, q, got, want)
			}
		}
	}
}

// TestBuckets goes over the edges: each value is in the bucket whose middle is nearest to it, and buckets do not go back.
func TestBuckets(t *testing.T) {
	t.Parallel()
	last := -1
	for v := time.Duration(0); v < time.Hour; v += 1 + v/50 {
		i := index(v)
		if i < last || i >= buckets {
			t.Fatalf("%v is in bucket %d, after %d of %d", v, i, last, buckets)
		}
		last = i
		if m := middle(i); v < 15*time.Minute && (m-v > v/32+1 || v-m > v/32+1) {
			t.Fatalf("%v is in a bucket about %v", v, m)
		}
	}
	if index(-1) != 0 || index(1<<62) != buckets-1 {
		t.Errorf("what is below and above: buckets %d and %d", index(-1), index(1<<62))
	}
}

func TestEmptyAndMerged(t *testing.T) {
	t.Parallel()
	var a, b Histogram
	if q := a.Quantile(0.5); q != 0 {
		t.Errorf("empty: got %v", q)
	}
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for range 1000 {
				b.Record(20)
			}
		})
	}
	work.Wait()
	a.Record(10)
	a.Merge(&b)
	if got := [2]time.Duration{a.Quantile(0), a.Quantile(0.5)}; got != [2]time.Duration{10, 20} {
		t.Errorf("got %v", got)
	}
}
