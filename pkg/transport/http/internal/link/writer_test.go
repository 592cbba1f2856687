package link

import (
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

// TestGather: what is added while somebody holds the writer is left to that one, for a while.
func TestGather(t *testing.T) {
	t.Parallel()
	c := &Conn{o: &Options{Buffers: NewBuffers()}}
	w := &writer{c: c, whole: line{limit: maxQueued}}
	add := func(now int64) (lead bool) {
		t.Helper()
		_, lead, full, err := w.add(&frame.Header{Kind: transport.Call}, nil, payload{}, &w.whole, nil, now)
		if full || err != nil {
			t.Fatalf("full %t, %v", full, err)
		}
		return lead
	}
	if !w.hold() {
		t.Fatal("nobody writes, and it cannot be held")
	}
	if w.hold() {
		t.Fatal("held twice")
	}
	start := int64(1)
	late := start + int64(gatherTime)
	if add(start) || add(late-1) || add(0) {
		t.Error("a call that came in time is to be written by its caller")
	}
	if !add(late) {
		t.Error("a call that came late is left to who holds")
	}
	if add(late + int64(time.Second)) {
		t.Error("two are to write at a time")
	}
	if w.release(); !w.busy || w.queued != 5*frame.HeaderSize {
		t.Error("release has written what another is to write")
	}
}

// TestPace: callers are woken one by the other until that was slow three times in a row, and again later on.
func TestPace(t *testing.T) {
	t.Parallel()
	c := &calls{behind: 10}
	run := func(took time.Duration) (apart bool) {
		c.passed = callctx.Now() - int64(took)
		c.pace()
		return c.apart > 0
	}
	const quick, slow = 0, 100 * turnTime
	for i, took := range []time.Duration{slow, slow, quick, slow, slow} {
		if run(took) {
			t.Fatalf("chain %d: the next ones are woken apart", i)
		}
	}
	for n := 0; run(slow); n++ {
		if n > apartRuns {
			t.Fatal("apart for ever")
		}
	}
	run(quick)
	for i := range slowRuns {
		if apart, want := run(slow), i == slowRuns-1; apart != want {
			t.Errorf("slow chain %d after a quick one: woken apart %t", i, apart)
		}
	}
}
