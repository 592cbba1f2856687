package server_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/server"
)

// plainCodec carries Sums without an allocation: two numbers.
type plainCodec struct{}

type Sum struct{ A, B uint64 }

func (plainCodec) ContentType() string { return "application/x-sum" }

func (plainCodec) Append(dst []byte, v any) ([]byte, error) {
	s, ok := v.(*Sum)
	if !ok {
		return dst, codec.ErrUnsupported
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, s.A), s.B), nil
}

func (plainCodec) Unmarshal(data []byte, v any) error {
	s, ok := v.(*Sum)
	if !ok {
		return codec.ErrUnsupported
	}
	if len(data) >= 16 {
		s.A, s.B = binary.BigEndian.Uint64(data), binary.BigEndian.Uint64(data[8:])
	}
	return nil
}

// summing gives a server of Sum.Add, which fills its answer, with one middleware.
func summing(t testing.TB, opts ...server.EndpointOption) *server.Server {
	t.Helper()
	s, err := server.New("greeter", server.Codecs(codec.Set{plainCodec{}}), server.WithMiddleware(func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) error {
			if c.Header().Len() != 4 {
				t.Error("metadata is missing")
			}
			return next(ctx, c)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	err = server.HandleInto(s, "Sum.Add", func(ctx context.Context, in, out *Sum) error {
		if _, ok := ctx.Deadline(); !ok || out.A != 0 || out.B != 0 {
			t.Error("no deadline, or an answer that is not empty")
		}
		out.A = in.A + in.B
		return nil
	}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fourPairs() metadata.MD {
	return metadata.Of("trace", "0af7651916cd43dd8448eb211c80319c", "tenant", "blue", "user", "ann", "locale", "en")
}

// Sums has the forms that reflection calls.
type Sums struct{}

func (Sums) Into(_ context.Context, in, out *Sum) error { out.A = in.A + in.B; return nil }

func (Sums) Of(_ context.Context, in *Sum) (*Sum, error) { return &Sum{A: in.A + in.B}, nil }

// BenchmarkServe is the way of a call through this package: route, limits, a middleware, statistics, and a codec that does next
// to nothing. It includes making the context, and a look at the clock for that.
func BenchmarkServe(b *testing.B) {
	for _, bench := range []struct {
		name, endpoint string
		opts           []server.EndpointOption
	}{
		{"into pooled", "Sum.Add", []server.EndpointOption{server.Pooled()}},
		{"into new", "Sum.Add", nil},
		{"register into pooled", "Sums.Into", []server.EndpointOption{server.Pooled()}},
		{"register into new", "Sums.Into", nil},
		{"register returning new", "Sums.Of", nil},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := summing(b, bench.opts...)
			if err := s.Register(&Sums{}, server.Method("Into", bench.opts...)); err != nil {
				b.Fatal(err)
			}
			d := direct(b, s).to(bench.endpoint, "application/x-sum", fourPairs())
			d.req.Body, _ = plainCodec{}.Append(nil, &Sum{A: 1, B: 2})
			b.ReportAllocs()
			for b.Loop() {
				d.call(time.Second)
			}
		})
	}
}

// eventful gives a subscription whose handler reads its message, and a message.
func eventful(b *testing.B) (*server.Subscription, *broker.Message) {
	s, err := server.New("greeter")
	if err != nil {
		b.Fatal(err)
	}
	_ = s.Subscribe("events", func(_ context.Context, c *server.Call) error {
		_, err := c.RecvRaw()
		return err
	})
	return s.Subscriptions()[0], &broker.Message{Topic: "events", Header: fourPairs(), Body: make([]byte, 128)}
}

func BenchmarkEvent(b *testing.B) {
	sub, m := eventful(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := sub.Handle(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRoute is what a connection pays for a header that it does not remember.
func BenchmarkRoute(b *testing.B) {
	c := direct(b, summing(b))
	header := c.to("Sum.Add", "application/x-sum", nil).req.Header
	b.ReportAllocs()
	for b.Loop() {
		_ = c.router(header)
	}
}

// BenchmarkEvents is BenchmarkEvent for messages that one goroutine handles one after the other.
func BenchmarkEvents(b *testing.B) {
	sub, m := eventful(b)
	w := sub.Worker()
	defer w.Done()
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Handle(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}
