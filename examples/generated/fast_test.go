package generated_test

import (
	"context"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	codecproto "github.com/cb02dfca/micro/pkg/codec/proto"

	"example.com/generated/greeterpb"
)

// fast is a message with the methods of vtprotobuf by which the codec knows that it needs no reflection.
type fast interface {
	proto.Message
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
	UnmarshalVT([]byte) error
}

var _ = []fast{(*greeterpb.HelloRequest)(nil), (*greeterpb.RepeatRequest)(nil), (*greeterpb.HelloReply)(nil)}

// counted is a generated message that counts how often its methods are used; package proto, by reflection, would use none.
type counted struct {
	fast
	written, read *atomic.Int64
}

func (c counted) MarshalToSizedBufferVT(b []byte) (int, error) {
	c.written.Add(1)
	return c.fast.MarshalToSizedBufferVT(b)
}

func (c counted) UnmarshalVT(b []byte) error {
	c.read.Add(1)
	return c.fast.UnmarshalVT(b)
}

// TestNoReflection: the generated messages are encoded and decoded by their generated methods.
func TestNoReflection(t *testing.T) {
	t.Parallel()
	var written, read atomic.Int64
	cd := codecproto.New()
	data, err := cd.Append(nil, counted{&greeterpb.RepeatRequest{Name: "Ada", Times: 3}, &written, &read})
	if err != nil {
		t.Fatal(err)
	}
	got := new(greeterpb.RepeatRequest)
	if err := cd.Unmarshal(data, counted{got, &written, &read}); err != nil {
		t.Fatal(err)
	}
	want(t, got.Name, "Ada")
	want(t, got.Times, 3)
	want(t, written.Load(), 1)
	want(t, read.Load(), 1)
}

// TestAllocations: a call allocates what its messages are made of, and nothing for the generated code. On the server's side these are
// the request, its name, the answer and the text in it, on the client's the answer and its text. A context that can end, unlike this
// one, costs three more.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes some of its own")
	}
	_, c := serve(t, &say{})
	req := &greeterpb.HelloRequest{Name: "Ada"}
	call := func() {
		if _, err := c.Hello(context.Background(), req); err != nil {
			t.Error(err)
		}
	}
	for range 100 { // connections, pools
		call()
	}
	if n := testing.AllocsPerRun(500, call); n > 6.5 {
		t.Errorf("%.1f allocations a call, want 6", n)
	}
}

// BenchmarkCodec compares the generated methods with reflection: the second is the same message without them.
func BenchmarkCodec(b *testing.B) {
	type plain struct{ proto.Message }
	req := &greeterpb.RepeatRequest{Name: "Ada Lovelace", Times: 3}
	for name, m := range map[string]proto.Message{"generated": req, "reflection": plain{req}} {
		b.Run(name, func(b *testing.B) {
			cd, buf := codecproto.New(), make([]byte, 0, 64)
			for b.Loop() {
				data, err := cd.Append(buf, m)
				if err == nil {
					err = cd.Unmarshal(data, m)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHello(b *testing.B) {
	_, c := serve(b, &say{})
	req := &greeterpb.HelloRequest{Name: "Ada"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Hello(context.Background(), req); err != nil {
			b.Fatal(err)
		}
	}
}
