package link_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
)

// TestLine: of callers who have more to send than the queue takes, each gets its turn, and those whose time ends before leave the
// line without having sent anything.
func TestLine(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	const callers = 2000
	body := make([]byte, 8<<10)
	hasty, cancel := context.WithCancel(t.Context())
	var ok, late, gone atomic.Int32
	var calls, brief sync.WaitGroup
	for i := range callers {
		of := &calls
		if i%10 == 0 {
			of = &brief
		}
		of.Go(func() {
			ctx, timeout := context.Background(), time.Minute
			switch i % 10 {
			case 0:
				timeout = 50 * time.Millisecond
			case 1:
				ctx = hasty
			}
			var rsp transport.Message
			err := client.Call(ctx, &transport.Message{Timeout: timeout, Header: callHeader, Body: body}, &rsp)
			switch {
			case err == nil && len(rsp.Body) == len(body):
				ok.Add(1)
			case i%10 == 0 && errors.Is(err, context.DeadlineExceeded):
				late.Add(1)
			case i%10 == 1 && errors.Is(err, context.Canceled):
				gone.Add(1)
			default:
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	brief.Wait() // nobody reads: all of them run out of time
	cancel()
	done := make(chan error, 1)
	go func() { done <- server.ServeCalls(context.Background(), router(echo, transport.PaceInline)) }()
	calls.Wait()
	if ok.Load() != callers-callers/10-gone.Load() || gone.Load() == 0 {
		t.Errorf("of %d callers %d were answered, %d too late and %d gone", callers, ok.Load(), late.Load(), gone.Load())
	}
	client.Close()
	<-done
}

// TestLineOfALostConnection: those who wait are told when the connection ends, and that they have sent nothing.
func TestLineOfALostConnection(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	body := make([]byte, 64<<10)
	var unsent atomic.Int32
	var calls sync.WaitGroup
	for range 100 {
		calls.Go(func() {
			var rsp transport.Message
			err := client.Call(context.Background(), &transport.Message{Header: callHeader, Body: body}, &rsp)
			if err == nil {
				t.Error("answered by nobody")
			}
			if transport.NotSent(err) {
				unsent.Add(1)
			}
		})
	}
	time.Sleep(20 * time.Millisecond) // most wait by then, which nothing tells; those that come later find the connection ended
	server.Close()
	calls.Wait()
	if unsent.Load() == 0 {
		t.Error("nobody knows that it has sent nothing")
	}
}
