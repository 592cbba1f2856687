package nats_test

import (
	"fmt"
	"testing"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/nats"
)

// BenchmarkCall is a call and its answer, between two connections to one NATS.
func BenchmarkCall(b *testing.B) {
	for _, size := range []int{16, 1 << 10, 64 << 10, 1 << 20} {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("%d-bytes-%d-callers", size, callers), func(b *testing.B) {
				o := nats.Options{Servers: []string{shared.Addr(b)}}
				l, err := open(b, o).Listen(b.Context(), "")
				must(b, err)
				go func() {
					if c, err := l.Accept(); err == nil {
						echo(c)
					}
				}()
				c, err := open(b, o).Dial(b.Context(), l.Addr())
				must(b, err)
				calls := transport.NewCaller(c)
				defer calls.Close()
				req := &transport.Message{Body: make([]byte, size)}
				b.SetParallelism(callers)
				b.SetBytes(int64(2 * size))
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					var rsp transport.Message
					for pb.Next() {
						if err := calls.Call(b.Context(), req, &rsp); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
