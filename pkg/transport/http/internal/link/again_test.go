//go:build !race

// Under the race detector a hundred thousand calls take long.

package link_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
)

// TestBesideSlowNowAndThen: an endpoint that is fast long enough to be tried again, and turns slow each time, holds others up
// for 100 ms in all.
func TestBesideSlowNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, end := newBeside(t, func(_ context.Context, req, rsp *transport.Message) {
			if string(req.Body) == "slow" {
				time.Sleep(4900 * time.Microsecond)
			}
		})
		defer end()
		turn := func() {
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 10 {
					b.slow("slow")
				}
			}()
			b.while(done)
			for range 1 << 14 {
				b.slow("fast")
			}
		}
		for range 9 {
			turn()
		}
		if b.delay < 5*atATime {
			t.Errorf("%v of delay: it was not tried again", b.delay)
		}
		b.check("at first", 10*atATime)
		turn()
		b.check("and from then on", 0)
	})
}
