package proto_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	pb "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/codectest"
	"github.com/cb02dfca/micro/pkg/codec/proto"
)

// nested gives a message inside messages, depth of them in all: DescriptorProto.nested_type is field 3.
func nested(depth int) []byte {
	// Built from the inside out, each level would copy all below it: so the lengths first, then the bytes.
	lengths := make([]int, depth)
	for i := 1; i < depth; i++ {
		lengths[i] = 1 + protowire.SizeBytes(lengths[i-1])
	}
	var data []byte
	for i := depth - 2; i >= 0; i-- {
		data = protowire.AppendTag(data, 3, protowire.BytesType)
		data = protowire.AppendVarint(data, uint64(lengths[i]))
	}
	return data
}

func harness() codectest.Harness {
	file := &descriptorpb.FileDescriptorProto{
		Name:        pb.String("a.proto"),
		Dependency:  []string{"b.proto", ""},
		MessageType: []*descriptorpb.DescriptorProto{{Name: pb.String("A"), NestedType: []*descriptorpb.DescriptorProto{{}}}},
	}
	tree, err := structpb.NewStruct(map[string]any{"a": 1.5, "b": []any{nil, "x", true}})
	if err != nil {
		panic(err)
	}
	newFile := func() any { return new(descriptorpb.FileDescriptorProto) }
	newMessage := func() any { return new(descriptorpb.DescriptorProto) }
	huge := append([]byte{0x0a}, binary.AppendUvarint(nil, 1<<31-1)...)
	return codectest.Harness{
		Codec: proto.New(),
		Values: []codectest.Value{
			{Name: "message", In: file, New: newFile, Want: file},
			{Name: "map and oneof", In: tree, New: func() any { return new(structpb.Struct) }, Want: tree},
			{Name: "number", In: wrapperspb.Int64(-1), New: func() any { return new(wrapperspb.Int64Value) }, Want: wrapperspb.Int64(-1)},
			{Name: "nothing", In: &wrapperspb.Int64Value{}, New: func() any { return new(wrapperspb.Int64Value) }, Want: &wrapperspb.Int64Value{}},
		},
		Foreign: []any{nil, 1, "text", struct{ A int }{}, &struct{ A int }{}},
		Garbage: []codectest.Data{
			{Name: "JSON", Data: []byte(`{"name":"x"}`), New: newFile},
			{Name: "field 0", Data: []byte{0x00, 0x00}, New: newFile},
			{Name: "cut off", Data: []byte{0x0a, 0x05, 'a'}, New: newFile},
			{Name: "no UTF-8", Data: []byte{0x0a, 0x01, 0xff}, New: func() any { return new(wrapperspb.StringValue) }},
			{Name: "a varint without end", Data: bytes.Repeat([]byte{0xff}, 20), New: newFile},
		},
		Nested: &codectest.Nested{Make: nested, New: newMessage, Max: proto.MaxDepth},
		Huge: []codectest.Data{
			{Name: "a string of 2 GiB", Data: huge, New: newFile},
			{Name: "a list of 2 GiB", Data: append([]byte{0x52}, huge[1:]...), New: newFile}, // public_dependency, packed
		},
		Equal: func(got, want any) bool { return pb.Equal(got.(pb.Message), want.(pb.Message)) },
	}
}

func TestCodec(t *testing.T) {
	t.Parallel()
	codectest.Run(t, harness())
}

func FuzzUnmarshal(f *testing.F) {
	h := harness()
	// A NaN is not equal to itself, so the encodings are compared.
	h.Equal = func(got, want any) bool {
		o := pb.MarshalOptions{Deterministic: true}
		a, errA := o.Marshal(got.(pb.Message))
		b, errB := o.Marshal(want.(pb.Message))
		return errA == nil && errB == nil && bytes.Equal(a, b)
	}
	codectest.Fuzz(f, h)
}

func TestFormerContentIsLost(t *testing.T) {
	t.Parallel()
	v := &descriptorpb.FileDescriptorProto{Package: pb.String("old")}
	data, err := proto.New().Append(nil, &descriptorpb.FileDescriptorProto{Name: pb.String("new")})
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.New().Unmarshal(data, v); err != nil || v.Package != nil || v.GetName() != "new" {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestNil(t *testing.T) {
	t.Parallel()
	var nothing *wrapperspb.Int64Value
	if data, err := proto.New().Append([]byte("p"), nothing); err != nil || string(data) != "p" {
		t.Errorf("encoded: got %q, %v, want an empty message", data, err)
	}
	if err := proto.New().Unmarshal([]byte{8, 1}, nothing); !errors.Is(err, codec.ErrUnsupported) {
		t.Errorf("decoded into nil: got %v", err)
	}
}
