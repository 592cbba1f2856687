package link_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
)

// BenchmarkCall is a call over a connection, without codec, selection or middleware.
func BenchmarkCall(b *testing.B) {
	for _, mode := range []transport.PaceMode{transport.PaceAdaptive, transport.PaceGoroutine} {
		for _, size := range []int{16, 1 << 10, 64 << 10, 1 << 20} {
			for _, callers := range []int{1, 8, 64} {
				b.Run(fmt.Sprintf("%d/%d/mode%d", size, callers, mode), func(b *testing.B) {
					client, _ := served(b, router(echo, mode))
					body := bytes.Repeat([]byte("x"), size)
					b.ReportAllocs()
					b.ResetTimer()
					var left atomic.Int64
					left.Store(int64(b.N))
					var wg sync.WaitGroup
					for range callers {
						wg.Go(func() {
							var rsp transport.Message
							req := transport.Message{Timeout: 5 * time.Second, Header: callHeader, Body: body}
							for left.Add(-1) >= 0 {
								if err := client.Call(context.Background(), &req, &rsp); err != nil || len(rsp.Body) != size {
									b.Error(err, len(rsp.Body))
									return
								}
							}
						})
					}
					wg.Wait()
				})
			}
		}
	}
}
