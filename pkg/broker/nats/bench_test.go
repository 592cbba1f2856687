package nats_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// BenchmarkPublish measures messages of 100 bytes to a server on loopback, without a subscriber, and until a queue has handled them.
func BenchmarkPublish(b *testing.B) {
	for _, stream := range []string{"", "bench"} {
		kind := "core"
		if stream != "" {
			kind = "stream"
		}
		for _, several := range []int{1, 100} {
			for _, handled := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/several=%d/handled=%v", kind, several, handled), func(b *testing.B) {
					benchmarkPublish(b, stream, several, handled)
				})
			}
		}
		b.Run(kind+"/parallel=64", func(b *testing.B) {
			o := account(b)
			o.Stream = stream
			br := open(b, o)
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				m := sized()
				for pb.Next() {
					if _, err := br.Publish(b.Context(), m); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func sized() *broker.Message {
	return &broker.Message{Topic: "bench", Header: metadata.Of("content-type", "application/octet-stream"), Body: make([]byte, 100)}
}

func benchmarkPublish(b *testing.B, stream string, several int, handled bool) {
	o := account(b)
	o.Stream = stream
	br := open(b, o)
	var count atomic.Int64
	done := make(chan struct{})
	total := int64((b.N + several - 1) / several * several)
	if handled {
		_, err := br.Subscribe(b.Context(), "bench", func(context.Context, *broker.Message) error {
			if count.Add(1) == total {
				close(done)
			}
			return nil
		}, broker.Queue("q"))
		must(b, err)
	}
	ms := make([]*broker.Message, several)
	for i := range ms {
		ms[i] = sized()
	}
	b.ResetTimer()
	for sent := int64(0); sent < total; sent += int64(several) {
		must(b, second(br.Publish(b.Context(), ms...)))
	}
	if handled {
		<-done
	}
}
