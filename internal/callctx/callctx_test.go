package callctx_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/callctx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type key string

// one is a single value.
type one struct{ key, value any }

func (o one) Value(key any) any {
	if key == o.key {
		return o.value
	}
	return nil
}

func in(d time.Duration) int64 { return callctx.Now() + int64(d) }

func TestEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end  func(c *callctx.Context, cancel context.CancelFunc)
		want error
	}{
		"by End":         {func(c *callctx.Context, _ context.CancelFunc) { c.End(context.Canceled) }, context.Canceled},
		"by its time":    {func(*callctx.Context, context.CancelFunc) { time.Sleep(time.Second) }, context.DeadlineExceeded},
		"by its parent":  {func(_ *callctx.Context, cancel context.CancelFunc) { cancel() }, context.Canceled},
		"by two of them": {func(c *callctx.Context, _ context.CancelFunc) { c.End(nil); time.Sleep(time.Second) }, context.Canceled},
	} {
		for _, waited := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancel(context.Background())
				defer cancel()
				var s callctx.Slab
				c := s.New(parent, in(time.Second), nil)
				if err := c.Err(); err != nil {
					t.Fatalf("%s: before the end: %v", name, err)
				}
				var derived context.Context
				ran := false
				if waited {
					var stop context.CancelFunc
					derived, stop = context.WithCancel(c)
					defer stop()
					context.AfterFunc(c, func() { ran = true })
				}
				test.end(c, cancel)
				synctest.Wait()
				if err := c.Err(); !errors.Is(err, test.want) {
					t.Errorf("%s, waited for %t: Err: %v, want %v", name, waited, err, test.want)
				}
				<-c.Done()
				if waited && (!errors.Is(derived.Err(), test.want) || !ran) {
					t.Errorf("%s: derived: %v, AfterFunc ran: %t", name, derived.Err(), ran)
				}
				c.End(nil)
			})
		}
	}
}

func TestStoppedAfterFunc(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s callctx.Slab
		c := s.New(context.Background(), callctx.Never, nil)
		stop := context.AfterFunc(c, func() { t.Error("ran") })
		if !stop() || stop() {
			t.Error("the first stop stops it, and no other")
		}
		c.End(nil)
		synctest.Wait()
		if context.AfterFunc(c, func() {})() {
			t.Error("stop of one that has run said that it stopped it")
		}
	})
}

func TestDeadlineAndValues(t *testing.T) {
	t.Parallel()
	soon, cancel := context.WithTimeout(context.WithValue(context.Background(), key("a"), "parent's"), time.Minute)
	defer cancel()
	var s callctx.Slab
	for want, deadline := range map[time.Duration]int64{time.Second: in(time.Second), time.Minute: callctx.Never, 59 * time.Second: in(59 * time.Second)} {
		c := s.New(soon, deadline, one{key("b"), "mine"})
		at, ok := c.Deadline()
		if left := time.Until(at); !ok || left > want || left < want-5*time.Second {
			t.Errorf("deadline in %v, want in %v", left, want)
		}
		if c.Value(key("a")) != "parent's" || c.Value(key("b")) != "mine" || c.Value(key("c")) != nil {
			t.Error("values are wrong")
		}
		c.End(nil)
	}
	if _, ok := s.New(context.Background(), callctx.Never, nil).Deadline(); ok {
		t.Error("a deadline where there is none")
	}
}

func TestAllocatesNothing(t *testing.T) {
	var s callctx.Slab
	parent, cancel := context.WithCancel(context.Background())
	defer cancel()
	n := testing.AllocsPerRun(1000, func() {
		c := s.New(parent, in(time.Second), nil)
		if c.Err() != nil {
			t.Error("ended")
		}
		c.End(nil)
	})
	if n != 0 {
		t.Errorf("%v allocations for a context that nobody waits for", n)
	}
}
