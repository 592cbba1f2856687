package selector_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/status"
)

func TestFailedNodeIsTriedLast(t *testing.T) {
	t.Parallel()
	refused := errors.New("connection refused")
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFinder()
				b := open(t, f, selector.WithStrategy(strategy))
				f.set("greeter", "a", "b", "c")
				failure := func(id string, err error) {
					_, done := pick(t, b, selector.Query{Service: "greeter", Filters: []selector.Filter{selector.ID(id)}})
					done(err)
				}
				var keys []selector.Query
				for i := range 100 {
					keys = append(keys, selector.Query{Service: "greeter", Key: fmt.Sprint(i)})
				}
				all := func(err error) string {
					counts := map[string]int{}
					for _, q := range keys {
						id, done := pick(t, b, q)
						done(err)
						counts[id]++
					}
					return only(counts)
				}
				failure("a", refused)
				if got := all(nil); got != "[b c]" {
					t.Errorf("after a failed: %s", got)
				}
				failure("b", refused)
				failure("c", refused)
				if got := all(refused); got != "[a b c]" {
					t.Errorf("after all failed: %s", got)
				}
			})
		})
	}
}

func TestFailedNodeComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f, selector.WithStrategy(selector.RoundRobin()))
		f.set("greeter", "a", "b")
		// tries counts the calls that reach a in so many seconds of ten calls each; each of them ends with err.
		tries := func(seconds int, err error) (n int) {
			for range seconds * 10 {
				id, done := pick(t, b, greeter)
				if id == "a" {
					n++
					done(err)
				} else {
					done(nil)
				}
				time.Sleep(100 * time.Millisecond)
			}
			return n
		}
		// At once, and after 1, 2, 4, 8 and 16 seconds more, give or take a turn; then every 30.
		if n := tries(33, errors.New("connection refused")); n != 6 {
			t.Errorf("%d tries in 33 s, want 6", n)
		}
		if n := tries(90, errors.New("connection refused")); n != 3 {
			t.Errorf("%d tries in 90 s, want 3", n)
		}
		if n := tries(60, nil); n < 140 {
			t.Errorf("%d tries in 60 s once it is back, want its half of them", n)
		}
	})
}

// dialTimeout gives the error of a dialer whose time ran out, which package net calls a context.DeadlineExceeded.
func dialTimeout(t *testing.T) error {
	t.Helper()
	d := net.Dialer{Deadline: time.Now().Add(-time.Second)}
	c, err := d.DialContext(t.Context(), "tcp", "127.0.0.1:9")
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("dial gives %v, want context.DeadlineExceeded", err)
	}
	return fmt.Errorf("not sent: %w", err)
}

func TestWhatCountsAsFailure(t *testing.T) {
	t.Parallel()
	remote := func(code status.Code) error { return &status.Error{Code: code, Remote: true} }
	for _, tc := range []struct {
		name string
		err  error
		last bool
	}{
		{"success", nil, false},
		{"a transport's error", errors.New("connection refused"), true},
		{"the handler said no", remote(status.InvalidArgument), false},
		{"the handler failed", fmt.Errorf("call: %w", remote(status.Internal)), false},
		{"another service's port", remote(status.Misdirected), true},
		{"a node that leaves", remote(status.Unavailable), true},
		{"the caller gave up", context.Canceled, false},
		{"nobody is at the address", dialTimeout(t), true},
		{"time ran out", context.DeadlineExceeded, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFinder()
				b := open(t, f)
				f.set("greeter", "a", "b")
				_, done := pick(t, b, selector.Query{Service: "greeter", Filters: []selector.Filter{selector.ID("a")}})
				done(tc.err)
				if last := only(picks(t, b, greeter, 100)) == "[b]"; last != tc.last {
					t.Errorf("tried last: %v, want %v", last, tc.last)
				}
			})
		})
	}
}
