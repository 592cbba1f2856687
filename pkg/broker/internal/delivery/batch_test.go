package delivery

import (
	"context"
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
