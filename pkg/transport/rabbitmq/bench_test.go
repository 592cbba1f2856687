package rabbitmq_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/rabbitmq"
)

// BenchmarkCall: calls of 64 bytes through RabbitMQ and back, one after the other and 64 at a time.
func BenchmarkCall(b *testing.B) {
	tr := open(b, rabbitmq.Options{Addrs: []string{servers.Addr(b)}})
	l, err := tr.Listen(b.Context(), "")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := tr.Dial(b.Context(), l.Addr())
	if err != nil {
		b.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		var m transport.Message
		for s.Recv(b.Context(), &m) == nil {
			m.Kind = transport.Reply
			_ = s.Send(b.Context(), &m)
		}
	})
	defer serving.Wait()
	calls := transport.NewCaller(c)
	defer calls.Close()
	for _, parallel := range []int{1, 64} {
		b.Run(fmt.Sprintf("by=%d", parallel), func(b *testing.B) {
			var wg sync.WaitGroup
			for p := range parallel {
				wg.Go(func() {
					var rsp transport.Message
					for i := p; i < b.N; i += parallel {
						if err := calls.Call(b.Context(), &transport.Message{Body: make([]byte, 64)}, &rsp); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
