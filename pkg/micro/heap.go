package micro

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
)

// DefaultMinHeap is what [MinHeap] is without the option: 32 MiB.
const DefaultMinHeap = 32 << 20

// MinHeap keeps the garbage collector from running before the process's heap has that many bytes. Default DefaultMinHeap; 0
// switches it off.
//
// A service that keeps little has a heap of some MiB, and Go collects when that has doubled: under load a hundred times a second,
// which costs more time than many a handler. With a floor of 32 MiB it collects as often as a service that keeps 16 MiB of its
// own; one that keeps more is left as it is. The price is memory: up to the floor may be garbage.
//
// It is the GOGC of the process that is raised for that, while a service runs, by what is alive after each collection; the largest
// floor of the services that run counts, and after the last of them GOGC is 100 again. Where the environment has GOGC or
// GOMEMLIMIT, or the program sets another GOGC than 100 or a limit by [debug.SetGCPercent] or [debug.SetMemoryLimit], before a
// service runs or while one does, all is left to that.
func MinHeap(bytes int) Option { return func(o *options) { o.minHeap = bytes } }

// The runtime's GOGC where nobody has set it, and the heap below which it does not collect at that. The latter grows with GOGC.
const (
	usualPercent = 100
	usualHeap    = 4 << 20
)

// collector is the process's garbage collector, as services change it.
var collector heapFloor

// heapFloor raises GOGC while the heap is small. Its zero value leaves it alone.
type heapFloor struct {
	mu       sync.Mutex
	floors   []int // of the services that run
	percent  int   // GOGC as it has been set last; 0: others set it, and it is left alone until no service runs
	watching bool  // adjust runs after the next collection
}

// hold keeps the heap's floor at that many bytes or more, until release is called, once.
func (h *heapFloor) hold(bytes int) (release func()) {
	if bytes <= 0 {
		return func() {}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.floors) == 0 {
		h.percent = usualPercent
		if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
			h.percent = 0
		}
	}
	h.floors = append(h.floors, bytes)
	h.adjust()
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		i := slices.Index(h.floors, bytes)
		h.floors = slices.Delete(h.floors, i, i+1)
		h.adjust()
	}
}

// adjust sets GOGC by what is alive, and sees to it that it is done again after the next collection. It takes some
// microseconds. Callers hold the lock.
func (h *heapFloor) adjust() {
	if h.percent == 0 {
		return
	}
	m := readMemory()
	if m.limited || m.percent != h.percent {
		if m.percent == h.percent { // the limit is another's, the percentage is not
			debug.SetGCPercent(usualPercent)
		}
		h.percent = 0
		return
	}
	want := usualPercent
	if len(h.floors) > 0 {
		want = m.percentFor(slices.Max(h.floors))
	}
	if near := h.percent / 8; want == usualPercent && want != h.percent || want < h.percent-near || want > h.percent+near {
		if was := debug.SetGCPercent(want); was != h.percent { // set by another in this moment
			debug.SetGCPercent(was)
			h.percent = 0
			return
		}
		h.percent = want
	}
	if len(h.floors) > 0 && !h.watching {
		h.watch()
	}
}

// watch has adjust called when the collector has been through: it finds an object that nobody holds.
func (h *heapFloor) watch() {
	h.watching = true
	found := new([64]byte) // smaller ones may share their memory with others, which keep it
	runtime.AddCleanup(found, func(h *heapFloor) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.watching = false
		h.adjust()
	}, h)
}

// memory is what the runtime tells of the heap.
type memory struct {
	percent int    // GOGC; -1 is off
	limited bool   // there is a GOMEMLIMIT
	live    uint64 // bytes that the last collection left
	scanned uint64 // and what else counts in when the next is due: stacks and variables
}

func readMemory() memory {
	s := []metrics.Sample{
		{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"},
	}
	metrics.Read(s)
	var v [5]uint64
	for i := range s {
		if s[i].Value.Kind() == metrics.KindUint64 {
			v[i] = s[i].Value.Uint64()
		}
	}
	return memory{percent: int(int32(v[0])), limited: v[1] < math.MaxInt64, live: v[2], scanned: v[3] + v[4]}
}

// percentFor is the GOGC at which the next collection comes when the heap has the bytes of floor, or later.
func (m memory) percentFor(floor int) int {
	bytes := min(uint64(floor), 1<<40) // so that a percentage has 32 bits
	if bytes <= m.live {
		return usualPercent
	}
	want := (bytes - m.live) * 100 / max(m.live+m.scanned, 1)
	enough := bytes * 100 / usualHeap // by this alone nothing is collected below the floor
	return int(max(min(want, enough), usualPercent))
}
