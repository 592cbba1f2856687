package delivery_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/status"
)

// pool gives a Pool whose handler is h, and a function that hands it a message; its outcome comes by the channel.
func pool(h broker.Handler, places int) (*delivery.Pool, func(id string) <-chan error) {
	p := delivery.NewPool(h, broker.SubscribeOptions{Concurrency: places, Timeout: time.Minute})
	return p, func(id string) <-chan error {
		if !p.Take(nil) {
			panic("no place")
		}
		out := make(chan error, 2)
		p.Run(&broker.Message{ID: id}, func(err error) { out <- err })
		return out
	}
}

// Quick handlers run in order, though many may run.
func TestPoolOrder(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []int
	p, hand := pool(func(_ context.Context, m *broker.Message) error {
		n, _ := strconv.Atoi(m.ID)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, n)
		return nil
	}, 64)
	var outs []<-chan error
	for n := range 1000 {
		outs = append(outs, hand(strconv.Itoa(n)))
	}
	for _, out := range outs {
		if err := <-out; err != nil {
			t.Error(err)
		}
	}
	p.Close()
	outOf := 0
	for i := range got[1:] {
		if got[i+1] < got[i] {
			outOf++
		}
	}
	if !slices.Contains(got, 999) || len(got) != 1000 || outOf > 100 { // a pause of the machine makes some slow
		t.Errorf("%d messages were handled, and %d out of order", len(got), outOf)
	}
}

// Handlers that wait for each other run at the same time, as many as there are places; the next waits.
func TestPoolPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		entered, leave := make(chan string, 10), make(chan error)
		p, hand := pool(func(_ context.Context, m *broker.Message) error {
			entered <- m.ID
			return <-leave
		}, 3)
		var outs []<-chan error
		for n := range 3 {
			outs = append(outs, hand(strconv.Itoa(n)))
		}
		for range 3 {
			<-entered
		}
		if p.TakeMore(1) != 0 {
			t.Error("there is a fourth place")
		}
		stop := make(chan struct{})
		close(stop)
		if p.Take(stop) {
			t.Error("there is a fourth place")
		}
		mine := errors.New("mine")
		leave <- nil
		leave <- mine
		synctest.Wait()
		if n := p.TakeMore(5); n != 2 {
			t.Errorf("%d places are free, want 2", n)
		}
		p.Give(2)
		leave <- nil
		var errs []error
		for _, out := range outs {
			errs = append(errs, <-out)
		}
		if !slices.Contains(errs, mine) {
			t.Errorf("the outcomes are %v", errs)
		}
		p.Close()
		if p.Take(nil) {
			t.Error("a closed Pool has a place")
		}
	})
}

// A handler that outlasts its time is settled then, holds its place, and is waited for by Close. Others go on.
func TestPoolLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leave := make(chan struct{})
		p, hand := pool(func(ctx context.Context, m *broker.Message) error {
			switch m.ID {
			case "hangs":
				<-leave
			case "minds":
				<-ctx.Done()
				return ctx.Err()
			case "exits":
				runtime.Goexit()
			case "panics":
				panic("no")
			}
			return nil
		}, 4)
		start := time.Now()
		for _, id := range []string{"hangs", "minds"} {
			out := hand(id)
			if err := <-out; !errors.Is(err, &status.Error{Code: status.HandlerTimeout}) || time.Since(start).Round(time.Second) != time.Minute {
				t.Errorf("%s: %v after %v", id, err, time.Since(start))
			}
			start = time.Now()
		}
		for _, id := range []string{"exits", "panics"} {
			if err := <-hand(id); !errors.As(err, new(*delivery.Panic)) {
				t.Errorf("%s: %v", id, err)
			}
		}
		if err := <-hand("well"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := p.TakeMore(4); n != 3 {
			t.Errorf("%d places are free, want 3", n)
		}
		p.Give(3)
		closed := make(chan struct{})
		go func() { p.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close has not waited for the handler")
		default:
		}
		close(leave)
		<-closed
	})
}

// Close ends the handlers' contexts, and what has not begun does not begin.
func TestPoolClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, hand := pool(func(ctx context.Context, _ *broker.Message) error { <-ctx.Done(); return ctx.Err() }, 2)
		outs := []<-chan error{hand("a"), hand("b")}
		p.Close()
		for _, out := range outs {
			if err := <-out; !errors.Is(err, broker.ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		}
	})
}
