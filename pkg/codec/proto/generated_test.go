package proto_test

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	pb "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/codec/codectest"
	"github.com/cb02dfca/micro/pkg/codec/proto"
)

// generated is a message with vtprotobuf's methods, which count how often they are used. They do what vtprotobuf's do: merge,
// and look at neither strings nor nesting.
type generated struct {
	pb.Message
	used *atomic.Int64
	fail bool
}

func of(m pb.Message) *generated { return &generated{Message: m, used: new(atomic.Int64)} }

var errGenerated = errors.New("the generated code's own")

func (g *generated) Reset()      { pb.Reset(g.Message) }
func (g *generated) SizeVT() int { return pb.Size(g.Message) }

func (g *generated) MarshalToSizedBufferVT(data []byte) (int, error) {
	g.used.Add(1)
	if g.fail {
		return 0, errGenerated
	}
	if s, ok := g.Message.(*wrapperspb.StringValue); ok {
		return copy(data, protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), s.Value)), nil
	}
	out, err := pb.MarshalOptions{}.MarshalAppend(data[:0], g.Message)
	if len(out) > len(data) {
		panic("the buffer is too small")
	}
	return len(out), err
}

func (g *generated) UnmarshalVT(data []byte) error {
	g.used.Add(1)
	if g.fail {
		return errGenerated
	}
	return pb.UnmarshalOptions{Merge: true}.Unmarshal(data, g.Message)
}

// pooled is one with ResetVT, which keeps the storage of its bytes.
type pooled struct{ *generated }

func (p *pooled) ResetVT() {
	m := p.Message.(*wrapperspb.BytesValue)
	kept := m.Value[:0]
	m.Reset()
	m.Value = kept
}

func (p *pooled) UnmarshalVT(data []byte) error {
	m := p.Message.(*wrapperspb.BytesValue)
	value, _ := protowire.ConsumeBytes(data[1:])
	m.Value = append(m.Value[:0], value...)
	return nil
}

func TestGeneratedCodec(t *testing.T) {
	t.Parallel()
	h := harness()
	tree := h.Values[1].In.(*structpb.Struct)
	newTree := func() any { return of(new(structpb.Struct)) }
	h.Values = []codectest.Value{
		{Name: "message", In: of(tree), New: newTree, Want: tree},
		{Name: "string", In: of(wrapperspb.String("é")), New: func() any { return of(new(wrapperspb.StringValue)) }, Want: wrapperspb.String("é")},
		{Name: "nothing", In: of(new(structpb.Struct)), New: newTree, Want: new(structpb.Struct)},
	}
	for i := range h.Garbage {
		h.Garbage[i].New = newTree
	}
	h.Garbage[3].New = func() any { return of(new(wrapperspb.StringValue)) }
	h.Huge = h.Huge[:1]
	h.Huge[0].New = newTree
	h.Nested = &codectest.Nested{Make: nestedLists, New: func() any { return of(new(structpb.ListValue)) }, Max: proto.MaxDepth}
	codectest.Run(t, h)
}

// nestedLists gives a list in a value in a list, depth messages in all: each is field 1 of a ListValue and field 6 of a Value.
func nestedLists(depth int) []byte {
	lengths := make([]int, depth)
	for i := 1; i < depth; i++ {
		lengths[i] = 1 + protowire.SizeBytes(lengths[i-1])
	}
	var data []byte
	for i := depth - 2; i >= 0; i-- {
		field := protowire.Number(1)
		if (depth-2-i)%2 == 1 {
			field = 6
		}
		data = protowire.AppendTag(data, field, protowire.BytesType)
		data = protowire.AppendVarint(data, uint64(lengths[i]))
	}
	return data
}

// TestWhoDecodes: vtprotobuf's methods are used for what they treat as package proto does, and for nothing else.
func TestWhoDecodes(t *testing.T) {
	t.Parallel()
	group := protowire.AppendTag(protowire.AppendTag(nil, 9, protowire.StartGroupType), 9, protowire.EndGroupType)
	for _, tc := range []struct {
		name string
		data []byte
		into *generated
		used int64
		ok   bool
	}{
		{"plain", []byte{0x0a, 1, 'a'}, of(new(wrapperspb.StringValue)), 1, true},
		{"no UTF-8", []byte{0x0a, 1, 0xff}, of(new(wrapperspb.StringValue)), 0, false},
		{"bytes are no text", []byte{0x0a, 1, 0xff}, of(new(wrapperspb.BytesValue)), 1, true},
		{"no UTF-8 within a message", []byte{0x0a, 3, 0x1a, 1, 0xff}, of(new(structpb.ListValue)), 0, false},
		{"cut off", []byte{0x0a, 2, 'a'}, of(new(wrapperspb.StringValue)), 0, false},
		{"cut off, nothing to look at", []byte{0x08}, of(new(wrapperspb.Int64Value)), 1, false},
		{"an unknown field", []byte{0x12, 1, 0xff}, of(new(wrapperspb.StringValue)), 1, true},
		{"an unknown group", group, of(new(wrapperspb.StringValue)), 0, true},
		{"at the limit", nestedLists(proto.MaxDepth), of(new(structpb.ListValue)), 1, true},
		{"beyond the limit", nestedLists(proto.MaxDepth + 1), of(new(structpb.ListValue)), 0, false},
		{"extensions", []byte{0x08, 1}, of(new(descriptorpb.FieldOptions)), 0, true},
		{"the generated code refuses", []byte{0x08, 1}, &generated{Message: new(wrapperspb.Int64Value), used: new(atomic.Int64), fail: true}, 1, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := proto.New().Unmarshal(tc.data, tc.into)
			if (err == nil) != tc.ok || tc.into.used.Load() != tc.used {
				t.Fatalf("%v, used %d times, want taken %t, and used %d times", err, tc.into.used.Load(), tc.ok, tc.used)
			}
			if err != nil {
				if !strings.HasPrefix(err.Error(), "codec/proto: ") || errors.Is(err, errGenerated) {
					t.Errorf("error %q", err)
				}
				return
			}
			want := tc.into.ProtoReflect().New().Interface()
			if err := pb.Unmarshal(tc.data, want); err != nil || !pb.Equal(tc.into, want) {
				t.Errorf("got %v, want %v, %v", tc.into, want, err)
			}
		})
	}
}

func TestWhoEncodes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		m    *generated
		used int64
		ok   bool
	}{
		{"plain", of(wrapperspb.String("a")), 1, true},
		{"no UTF-8", of(wrapperspb.String("\xff")), 1, false},
		{"extensions", of(&descriptorpb.FieldOptions{Packed: pb.Bool(true)}), 0, true},
		{"the generated code refuses", &generated{Message: wrapperspb.Int64(1), used: new(atomic.Int64), fail: true}, 1, true},
	} {
		dst := append(make([]byte, 0, 64), "prefix"...)
		out, err := proto.New().Append(dst, tc.m)
		if (err == nil) != tc.ok || tc.m.used.Load() != tc.used {
			t.Errorf("%s: %v, used %d times", tc.name, err, tc.m.used.Load())
			continue
		}
		want, _ := pb.Marshal(tc.m.Message)
		if !tc.ok {
			want = nil
		}
		if string(out) != "prefix"+string(want) || &out[0] != &dst[0] {
			t.Errorf("%s: got %q, want %q in the storage of dst", tc.name, out, want)
		}
	}
}

func TestFormerContentOfGeneratedIsLost(t *testing.T) {
	t.Parallel()
	v := of(&structpb.Struct{Fields: map[string]*structpb.Value{"old": structpb.NewBoolValue(true)}})
	data, err := proto.New().Append(nil, &structpb.Struct{Fields: map[string]*structpb.Value{"new": structpb.NewBoolValue(true)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.New().Unmarshal(data, v); err != nil || len(v.Message.(*structpb.Struct).Fields) != 1 {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestPooledKeepsItsStorage(t *testing.T) {
	t.Parallel()
	v := &pooled{of(wrapperspb.Bytes([]byte("former")))}
	storage := v.Message.(*wrapperspb.BytesValue).Value
	if err := proto.New().Unmarshal([]byte{0x0a, 3, 'n', 'e', 'w'}, v); err != nil {
		t.Fatal(err)
	}
	if got := v.Message.(*wrapperspb.BytesValue).Value; string(got) != "new" || &got[0] != &storage[0] {
		t.Errorf("got %q, in storage of its own", got)
	}
}

func TestGeneratedAllocatesNothing(t *testing.T) {
	c, v, dst := proto.New(), &pooled{of(wrapperspb.Bytes(bytes.Repeat([]byte("x"), 100)))}, make([]byte, 0, 200)
	data, err := c.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(1000, func() {
		if _, err := c.Append(dst, v); err != nil {
			t.Error(err)
		}
		if err := c.Unmarshal(data, v); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func benchmark(b *testing.B, v any) {
	c, dst := proto.New(), make([]byte, 0, 2<<10)
	data, err := c.Append(nil, v)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Append(dst, v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Unmarshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := c.Unmarshal(data, v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPlain(b *testing.B) { benchmark(b, wrapperspb.Bytes(make([]byte, 1<<10))) }

func BenchmarkGenerated(b *testing.B) {
	benchmark(b, &pooled{of(wrapperspb.Bytes(make([]byte, 1<<10)))})
}
