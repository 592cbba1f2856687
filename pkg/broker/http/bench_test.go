package http_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

// BenchmarkPublish publishes messages of 128 B from one broker to the subscribers of others over TCP on loopback, all in
// this process. An operation is a message; the processor's time for a delivery, of both sides, is what can be compared on a
// machine that does other things too.
func BenchmarkPublish(b *testing.B) {
	for _, subscribers := range []int{1, 16} {
		for _, reuse := range []bool{false, true} {
			for _, shape := range []struct{ publishers, messages int }{{1, 1}, {64, 1}, {1, 1000}, {4, 256}, {4, 1000}} {
				name := fmt.Sprintf("1to%d/reuse=%v/publishers=%d/messages=%d", subscribers, reuse, shape.publishers, shape.messages)
				b.Run(name, func(b *testing.B) { benchmark(b, subscribers, shape.publishers, shape.messages, reuse) })
			}
		}
	}
}

func benchmark(b *testing.B, subscribers, publishers, messages int, reuse bool) {
	reg := memory.New()
	defer func() { _ = reg.Close() }()
	to := newAttached(b, reg, true)
	from := newAttached(b, reg, true)
	var opts []broker.SubscribeOption
	if reuse {
		opts = append(opts, broker.Reuse())
	}
	for range subscribers {
		n := new(atomic.Int64) // of this subscription alone
		_, err := to.Subscribe(b.Context(), "bench", func(context.Context, *broker.Message) error {
			n.Add(1)
			return nil
		}, opts...)
		if err != nil {
			b.Fatal(err)
		}
	}
	for end := time.Now().Add(10 * time.Second); ; {
		r, err := from.Publish(b.Context(), &broker.Message{Topic: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		if r.Delivered() == subscribers {
			break
		}
		if time.Now().After(end) {
			b.Fatalf("%d subscribers were found", r.Delivered())
		}
	}
	header, body := metadata.Of("content-type", "application/octet-stream"), make([]byte, 128)
	ms := make([]*broker.Message, messages)
	for i := range ms {
		ms[i] = &broker.Message{Topic: "bench", Header: header, Body: body}
	}
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for {
				n := int(left.Add(-int64(messages))) + messages
				if n <= 0 {
					return
				}
				n = min(n, messages)
				r, err := from.Publish(context.Background(), ms[:n]...)
				if err != nil || r.Delivered() != n*subscribers {
					b.Errorf("%d delivered of %d: %v %v", r.Delivered(), n*subscribers, err, r.Err())
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N*subscribers), "cpu-ns/delivery")
	b.ReportMetric(float64(b.N*subscribers)/b.Elapsed().Seconds(), "deliveries/s")
}
