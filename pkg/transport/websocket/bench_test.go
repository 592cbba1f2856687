package websocket_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// BenchmarkBesideLarge makes small calls, one after another, while four callers on the same connection send 4 MiB each and get it
// back: the percentiles of what a small call takes, and what goes through beside.
func BenchmarkBesideLarge(b *testing.B) {
	ws, err := websocket.New(websocket.Options{})
	if err != nil {
		b.Fatal(err)
	}
	port, err := transporthttp.New(transporthttp.Options{})
	if err != nil {
		b.Fatal(err)
	}
	for name, tr := range map[string]transport.Transport{"websocket": ws, "frames": port} {
		b.Run(name, func(b *testing.B) { besideLarge(b, tr) })
	}
}

func besideLarge(b *testing.B, tr transport.Transport) {
	s, err := server.New("echo")
	if err != nil {
		b.Fatal(err)
	}
	_ = server.Handle(s, "Echo.Call", func(_ context.Context, in *[]byte) (*[]byte, error) { return in, nil })
	l, err := tr.Listen(b.Context(), "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	c, err := client.New(client.WithTransport(tr))
	if err != nil {
		b.Fatal(err)
	}
	call := func(ctx context.Context, body []byte) error {
		out := []byte{}
		return c.Call(ctx, "echo", "Echo.Call", &body, &out, client.Address(l.Addr()))
	}
	var large atomic.Int64
	var senders sync.WaitGroup
	sending, enough := context.WithCancel(b.Context())
	for range 4 {
		senders.Go(func() {
			body := make([]byte, 4<<20-64)
			for sending.Err() == nil {
				if err := call(sending, body); err != nil && sending.Err() == nil {
					b.Error(err)
				}
				large.Add(1)
			}
		})
	}
	for large.Load() == 0 && !b.Failed() {
		time.Sleep(time.Millisecond)
	}
	large.Store(0)
	var took []time.Duration
	begun := time.Now()
	for b.Loop() {
		at := time.Now()
		if err := call(b.Context(), make([]byte, 16)); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	for name, at := range map[string]float64{"p50-ms": 0.5, "p99-ms": 0.99, "max-ms": 1} {
		b.ReportMetric(float64(took[int(at*float64(len(took)-1))])/1e6, name)
	}
	b.ReportMetric(float64(large.Load()*8)/time.Since(begun).Seconds(), "MiB/s")
	enough()
	senders.Wait()
	_ = c.Close()
	stop()
	<-done
}
