package delivery

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
)

// TestLeftBehindBeforeItsTurn: a runner whose time is over, or whose publisher has gone, before its goroutine runs, handles nothing and
// gives its place back.
func TestLeftBehindBeforeItsTurn(t *testing.T) {
	t.Parallel()
	r := NewReceiver(func(context.Context, *broker.Message) error {
		t.Error("the handler was called")
		return nil
	}, broker.SubscribeOptions{Timeout: time.Minute, Concurrency: 1})
	defer r.Close()
	if !r.more() {
		t.Fatal("no place")
	}
	w := &runner{b: newBatch(r, make([]broker.Message, 3))}
	w.span.Store(leftBehind)
	w.ctx, w.cancel = context.WithCancel(r.ctx)
	w.run()
	if w.ctx.Err() == nil {
		t.Error("its context goes on")
	}
	if !r.more() {
		t.Fatal("its place is still taken")
	}
	r.release()
}

// counted is a Worker that counts what becomes of it.
type counted struct {
	handle               broker.Handler
	open, handled, ended *atomic.Int32
}

func (w counted) Handle(ctx context.Context, m *broker.Message) error {
	w.handled.Add(1)
	return w.handle(ctx, m)
}

func (w counted) Done() {
	w.open.Add(-1)
	w.ended.Add(1)
}

// TestWorkers: each goroutine has a Worker of its own, which is told when it is done before the publisher knows; also where a handler
// fails, or ends the goroutine.
func TestWorkers(t *testing.T) {
	t.Parallel()
	var open, handled, ended atomic.Int32
	handler := func(_ context.Context, m *broker.Message) error {
		switch m.ID {
		case "panic":
			panic("test")
		case "exit":
			runtime.Goexit()
		case "error":
			return errors.New("test")
		}
		return nil
	}
	worker := func() broker.Worker {
		open.Add(1)
		return counted{handler, &open, &handled, &ended}
	}
	r := NewReceiver(handler, broker.SubscribeOptions{Timeout: time.Minute, Concurrency: 4, Worker: worker})
	defer r.Close()
	ms := make([]broker.Message, 100)
	ms[10].ID, ms[20].ID, ms[30].ID = "panic", "exit", "error"
	outs, over := r.Deliver(t.Context(), ms)
	failed := 0
	for _, out := range outs {
		if out.Err != nil {
			failed++
		}
	}
	if failed != 3 || !over || open.Load() != 0 || handled.Load() != 100 || ended.Load() < 2 {
		t.Errorf("%d failed, over is %v; of %d workers %d are not done, and handled %d", failed, over, ended.Load(), open.Load(), handled.Load())
	}
}

// TestWorkerLeftBehind: a Worker whose handler was left behind is done when that returns.
func TestWorkerLeftBehind(t *testing.T) {
	t.Parallel()
	var open, handled, ended atomic.Int32
	release := make(chan struct{})
	worker := func() broker.Worker {
		open.Add(1)
		return counted{func(context.Context, *broker.Message) error { <-release; return nil }, &open, &handled, &ended}
	}
	r := NewReceiver(nil, broker.SubscribeOptions{Timeout: 20 * time.Millisecond, Concurrency: 1, Worker: worker})
	outs, over := r.Deliver(t.Context(), make([]broker.Message, 1))
	if over || outs == nil || outs[0].Err == nil || open.Load() != 1 {
		t.Errorf("%v, over is %v, %d workers are not done", outs, over, open.Load())
	}
	close(release)
	r.Close()
	if open.Load() != 0 {
		t.Errorf("%d workers are not done", open.Load())
	}
}

// BenchmarkDeliver is what a message costs beside its handler, of a batch.
func BenchmarkDeliver(b *testing.B) {
	r := NewReceiver(func(context.Context, *broker.Message) error { return nil }, broker.SubscribeOptions{Concurrency: 64, Timeout: time.Minute})
	defer r.Close()
	ms := make([]broker.Message, 1000)
	b.ReportAllocs()
	for n := b.N; n > 0; n -= len(ms) {
		if outs, _ := r.Deliver(context.Background(), ms); outs != nil {
			b.Fatal(outs[0].Err)
		}
	}
}
