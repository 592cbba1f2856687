package googlepubsub_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// BenchmarkPublish measures messages of 100 bytes to Google's stand-in, which runs in this process, without a
// subscriber, until a queue has handled them, and from 64 publishers.
func BenchmarkPublish(b *testing.B) {
	for _, several := range []int{1, 100} {
		for _, handled := range []bool{false, true} {
			b.Run(fmt.Sprintf("several=%d/handled=%v", several, handled), func(b *testing.B) { benchmarkPublish(b, several, handled) })
		}
	}
	b.Run("parallel=64", func(b *testing.B) {
		br := open(b, startServer(b).options())
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

func sized() *broker.Message {
	return &broker.Message{Topic: "bench", Header: metadata.Of("content-type", "application/octet-stream"), Body: make([]byte, 100)}
}

func benchmarkPublish(b *testing.B, several int, handled bool) {
	br := open(b, startServer(b).options())
	var count atomic.Int64
	done := make(chan struct{})
	total := int64((b.N + several - 1) / several * several)
	if handled {
		_, err := br.Subscribe(b.Context(), "bench", func(context.Context, *broker.Message) error {
			if count.Add(1) == total { // one that comes twice is counted twice
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
		_, err := br.Publish(b.Context(), ms...)
		must(b, err)
	}
	if handled {
		<-done
	}
}
