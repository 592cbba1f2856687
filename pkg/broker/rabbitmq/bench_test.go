package rabbitmq_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cb02dfca/micro/pkg/broker"
)

// BenchmarkPublish: messages of 256 bytes to a durable queue that one subscriber reads, confirmed one by one, by 64 publishers at a
// time, and by hundreds; beside them the same by the client library alone, with its own confirmations.
func BenchmarkPublish(b *testing.B) {
	o := own(b, servers.Addr(b))
	br := open(b, o)
	body := make([]byte, 256)
	if _, err := br.Subscribe(b.Context(), "t", func(context.Context, *broker.Message) error { return nil }, broker.Queue("q"), broker.Reuse()); err != nil {
		b.Fatal(err)
	}
	publish := func(b *testing.B, n int) {
		ms := make([]*broker.Message, n)
		for i := range ms {
			ms[i] = &broker.Message{Topic: "t", Body: body}
		}
		if _, err := br.Publish(b.Context(), ms...); err != nil {
			b.Error(err)
		}
	}
	for _, parallel := range []int{1, 64} {
		b.Run(fmt.Sprintf("by=%d", parallel), func(b *testing.B) {
			var wg sync.WaitGroup
			for p := range parallel {
				wg.Go(func() {
					for i := p; i < b.N; i += parallel {
						publish(b, 1)
					}
				})
			}
			wg.Wait()
		})
	}
	b.Run("hundreds", func(b *testing.B) {
		for i := 0; i < b.N; i += 500 {
			publish(b, min(500, b.N-i))
		}
	})
	b.Run("library, hundreds", func(b *testing.B) {
		ch := raw(b, o.Addrs[0])
		if err := ch.Confirm(false); err != nil {
			b.Fatal(err)
		}
		confirmed := make([]*amqp.DeferredConfirmation, 0, 500)
		for i := 0; i < b.N; i += 500 {
			confirmed = confirmed[:0]
			for range min(500, b.N-i) {
				c, err := ch.PublishWithDeferredConfirm(o.Exchange, "t", false, false, amqp.Publishing{Body: body, DeliveryMode: amqp.Persistent})
				if err != nil {
					b.Fatal(err)
				}
				confirmed = append(confirmed, c)
			}
			for _, c := range confirmed {
				c.Wait()
			}
		}
	})
}
