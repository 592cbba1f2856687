package client_test

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// bytesEcho serves Bytes.Echo over HTTP, and gives a client and the address.
func bytesEcho(b *testing.B) (*client.Client, client.CallOption) {
	b.Helper()
	tr, err := http.New(http.Options{})
	if err != nil {
		b.Fatal(err)
	}
	srv, err := server.New("bytes")
	if err != nil {
		b.Fatal(err)
	}
	_ = server.Handle(srv, "Bytes.Echo", func(_ context.Context, in *[]byte) (*[]byte, error) { return in, nil })
	l, err := tr.Listen(b.Context(), "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	c, err := client.New(client.WithTransport(tr))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = c.Close()
		cancel()
		<-done
	})
	return c, client.Address(l.Addr())
}

func echo(ctx context.Context, c *client.Client, body []byte, opts ...client.CallOption) error {
	var out []byte
	return c.Call(ctx, "bytes", "Bytes.Echo", body, &out, opts...)
}

// BenchmarkCall is a call of the whole framework, but for the registry.
func BenchmarkCall(b *testing.B) {
	for name, size := range map[string]int{"16B": 16, "1KiB": 1 << 10, "64KiB": 64 << 10, "4MiB": 4<<20 - 1} {
		b.Run(name, func(b *testing.B) {
			c, to := bytesEcho(b)
			body := bytes.Repeat([]byte("x"), size)
			b.SetBytes(int64(2 * size))
			b.ReportAllocs()
			for b.Loop() {
				if err := echo(b.Context(), c, body, to); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSmallBesideLarge tells how long calls of 16 bytes take on a connection that also carries calls of 4 MiB.
func BenchmarkSmallBesideLarge(b *testing.B) {
	for name, large := range map[string]int{"alone": 0, "beside one": 1, "beside four": 4} {
		b.Run(name, func(b *testing.B) {
			c, to := bytesEcho(b)
			ctx, stop := context.WithCancel(b.Context())
			var others sync.WaitGroup
			body := bytes.Repeat([]byte("x"), 4<<20-1)
			for range large {
				others.Go(func() {
					for ctx.Err() == nil {
						_ = echo(ctx, c, body, to)
					}
				})
			}
			var times []time.Duration
			for b.Loop() {
				start := time.Now()
				if err := echo(b.Context(), c, body[:16], to); err != nil {
					b.Error(err)
				}
				times = append(times, time.Since(start))
			}
			stop()
			others.Wait()
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
		})
	}
}
