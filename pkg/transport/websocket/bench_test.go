package websocket_test

import (
	"context"
	"testing"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/transport"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
	"github.com/cb02dfca/micro/pkg/transport/websocket"
)

// BenchmarkCall makes calls one after another, and from 64 callers, by WebSocket and by frames.
func BenchmarkCall(b *testing.B) {
	ws, err := websocket.New(websocket.Options{})
	if err != nil {
		b.Fatal(err)
	}
	port, err := transporthttp.New(transporthttp.Options{})
	if err != nil {
		b.Fatal(err)
	}
	for _, by := range []struct {
		name string
		tr   transport.Transport
	}{{"websocket", ws}, {"frames", port}} {
		s, err := server.New("echo")
		if err != nil {
			b.Fatal(err)
		}
		_ = server.Handle(s, "Echo.Call", func(_ context.Context, n *number) (*number, error) { return n, nil })
		l, err := by.tr.Listen(b.Context(), "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l) }()
		c, err := client.New(client.WithTransport(by.tr))
		if err != nil {
			b.Fatal(err)
		}
		call := func(b *testing.B) {
			if err := c.Call(b.Context(), "echo", "Echo.Call", &number{1}, new(number), client.Address(l.Addr())); err != nil {
				b.Error(err)
			}
		}
		b.Run(by.name+"/1", func(b *testing.B) {
			for b.Loop() {
				call(b)
			}
		})
		b.Run(by.name+"/64", func(b *testing.B) {
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					call(b)
				}
			})
		})
		_ = c.Close()
		stop()
		<-done
	}
}
