package http

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// toldConn counts how often the system would be told of a deadline.
type toldConn struct {
	net.Conn
	told atomic.Int64
}

func (c *toldConn) SetReadDeadline(t time.Time) error {
	c.told.Add(1)
	return c.Conn.SetReadDeadline(t)
}

func (c *toldConn) SetWriteDeadline(t time.Time) error {
	c.told.Add(1)
	return c.Conn.SetWriteDeadline(t)
}

// latePair gives a connection with late deadlines, what is below it, and its peer. It is for a bubble of synctest.
func latePair(t *testing.T) (c *lateConn, below *toldConn, peer net.Conn) {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	below = &toldConn{Conn: near}
	return &lateConn{Conn: below}, below, far
}

func in(d time.Duration) time.Time { return time.Now().Add(d) }

// TestLateDeadlines: a read or a write ends at the deadline that was set last, whatever the system was told of before.
func TestLateDeadlines(t *testing.T) {
	t.Parallel()
	never := time.Time{}
	for name, test := range map[string]struct {
		set  func(set func(time.Time) error) // before, and beside it
		want time.Duration                   // when it ends
	}{
		"set before": {func(set func(time.Time) error) { _ = set(in(2 * time.Second)) }, 2 * time.Second},
		"set beside": {func(set func(time.Time) error) { time.Sleep(time.Second); _ = set(in(time.Second)) }, 2 * time.Second},
		"an earlier one beside": {func(set func(time.Time) error) {
			_ = set(in(time.Hour))
			time.Sleep(time.Second)
			_ = set(in(time.Second))
		}, 2 * time.Second},
		"a later one beside": {func(set func(time.Time) error) {
			_ = set(in(2 * time.Second))
			time.Sleep(time.Second)
			_ = set(in(3 * time.Second))
		}, 4 * time.Second},
		"later ones, again and again": {func(set func(time.Time) error) {
			for range 5 {
				_ = set(in(2 * time.Second))
				time.Sleep(time.Second)
			}
		}, 6 * time.Second},
		"none, and then one": {func(set func(time.Time) error) {
			_ = set(in(time.Second))
			_ = set(never)
			time.Sleep(3 * time.Second)
			_ = set(in(0))
		}, 3 * time.Second},
		"the past": {func(set func(time.Time) error) { _ = set(time.Unix(1, 0)) }, 0},
		"the past beside": {func(set func(time.Time) error) {
			_ = set(in(time.Hour))
			time.Sleep(time.Second)
			_ = set(time.Unix(1, 0))
		}, time.Second},
	} {
		for _, direction := range []string{"read", "write"} {
			t.Run(name+"/"+direction, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c, _, _ := latePair(t)
					set, wait := c.SetReadDeadline, c.Read
					if direction == "write" {
						set, wait = c.SetWriteDeadline, c.Write
					}
					start, beside := time.Now(), make(chan struct{})
					go func() { defer close(beside); test.set(set) }()
					synctest.Wait()
					n, err := wait(make([]byte, 1))
					if took := time.Since(start); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || took != test.want {
						t.Errorf("ended after %s with %d, %v, want %s", took, n, err, test.want)
					}
					var timeout net.Error
					if !errors.As(err, &timeout) || !timeout.Timeout() {
						t.Errorf("%v is no timeout", err)
					}
					<-beside
				})
			})
		}
	}
}

// TestLateDeadlineOfTheNext: a deadline that was met counts no more for what comes after it.
func TestLateDeadlineOfTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, below, peer := latePair(t)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for range 3 {
				_, _ = peer.Write([]byte("x"))
				time.Sleep(4 * time.Second)
			}
		}()
		for _, d := range []time.Duration{time.Second, 5 * time.Second, 0} {
			end := time.Time{}
			if d > 0 {
				end = in(d)
			}
			_ = c.SetReadDeadline(end)
			if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Fatalf("with %s: %d, %v", d, n, err)
			}
		}
		_ = c.SetReadDeadline(time.Unix(1, 0))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("in the past: %v", err)
		}
		before := below.told.Load()
		for range 100 {
			_ = c.SetReadDeadline(in(5 * time.Second))
			_ = c.SetReadDeadline(time.Time{})
			_ = c.SetWriteDeadline(in(time.Minute))
		}
		if told := below.told.Load() - before; told != 0 {
			t.Errorf("the system was told %d times while nothing waited", told)
		}
		<-sent
	})
}

// TestLateWriteIsWhole: a write that goes on after a former deadline sends each byte once.
func TestLateWriteIsWhole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _, peer := latePair(t)
		got := make(chan string)
		go func() {
			b := make([]byte, 2)
			_, _ = io.ReadFull(peer, b)
			time.Sleep(3 * time.Second)
			rest := make([]byte, 4)
			_, _ = io.ReadFull(peer, rest)
			got <- string(b) + string(rest)
		}()
		_ = c.SetWriteDeadline(in(time.Second))
		go func() { time.Sleep(time.Second / 2); _ = c.SetWriteDeadline(in(time.Minute)) }()
		if n, err := c.Write([]byte("abcdef")); n != 6 || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		if s := <-got; s != "abcdef" {
			t.Errorf("the peer got %q", s)
		}
	})
}

// TestSettled: the user of a connection that was handed over sets deadlines of the system itself.
func TestSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, below, _ := latePair(t)
		held := &limitConn{lateConn: lateConn{Conn: c.Conn}}
		_ = held.SetReadDeadline(in(time.Second))
		settle(held)
		if _, err := below.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("what was set before: %v", err)
		}
		before := below.told.Load()
		_ = held.SetReadDeadline(time.Time{})
		_ = held.SetWriteDeadline(in(time.Minute))
		if told := below.told.Load() - before; told != 2 {
			t.Errorf("told %d times, want each at once", told)
		}
	})
}
