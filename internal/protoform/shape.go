package protoform

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var (
	errUTF8  = errors.New("a string is not UTF-8")
	errDepth = fmt.Errorf("more than %d messages inside each other", MaxDepth)
)

// shape is how one value of a Go type, which is no pointer, stands in protobuf.
type shape struct {
	kind    protoreflect.Kind
	wire    protowire.Type
	form    *Form                          // of a message that is a form of ours
	message protoreflect.MessageDescriptor // of another
	// append appends v, after its tag; a message and a string with their length. depth counts the messages around it.
	append func(dst []byte, v reflect.Value, depth int) ([]byte, error)
	// read reads one: n is a number's bits, data the rest's bytes, which are not retained.
	read func(v reflect.Value, n uint64, data []byte, depth int) error
}

func (s *shape) isMessage() bool { return s.kind == protoreflect.MessageKind }

// packs reports whether a list of such values stands in one piece.
func (s *shape) packs() bool { return s.wire != protowire.BytesType }

// shapeOf gives the shape of a type that is no list and no map.
func (fs *Forms) shapeOf(t reflect.Type, k kind) *shape {
	switch k {
	case ownStruct, ownList, ownMap:
		return formShape(fs.make(t))
	case message:
		return messageShape(descriptorOf(t), toGenerated, fromGenerated)
	case moment:
		return messageShape(timestampDescriptor, toTimestamp, fromTimestamp)
	case span:
		return messageShape(durationDescriptor, toDuration, fromDuration)
	case anything:
		return messageShape(valueDescriptor, toValue, fromValue)
	case text:
		return textShape()
	case bytesKind:
		return bytesShape()
	}
	return scalarShape(t.Kind())
}

// keyShape gives the shape of a map's keys; nil where protobuf has no such keys.
func keyShape(t reflect.Type) *shape {
	switch k := kindOf(t); {
	case t.Kind() == reflect.Pointer:
		return nil
	case k == text:
		return textShape()
	case k == scalar && t.Kind() != reflect.Float32 && t.Kind() != reflect.Float64:
		return scalarShape(t.Kind())
	}
	return nil
}

// scalarShape gives the shape of a number, a bool or a string.
func scalarShape(k reflect.Kind) *shape {
	switch k {
	case reflect.Bool:
		return varintShape(protoreflect.BoolKind, func(v reflect.Value) uint64 { return protowire.EncodeBool(v.Bool()) },
			func(v reflect.Value, n uint64) error { v.SetBool(n != 0); return nil })
	case reflect.Int8, reflect.Int16, reflect.Int32:
		return varintShape(protoreflect.Int32Kind, func(v reflect.Value) uint64 { return uint64(v.Int()) },
			func(v reflect.Value, n uint64) error { return setInt(v, int64(int32(n))) })
	case reflect.Int, reflect.Int64:
		return varintShape(protoreflect.Int64Kind, func(v reflect.Value) uint64 { return uint64(v.Int()) },
			func(v reflect.Value, n uint64) error { return setInt(v, int64(n)) })
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return varintShape(protoreflect.Uint32Kind, reflect.Value.Uint,
			func(v reflect.Value, n uint64) error { return setUint(v, uint64(uint32(n))) })
	case reflect.Uint, reflect.Uint64, reflect.Uintptr:
		return varintShape(protoreflect.Uint64Kind, reflect.Value.Uint, setUint)
	case reflect.Float32:
		return &shape{kind: protoreflect.FloatKind, wire: protowire.Fixed32Type,
			append: func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
				return protowire.AppendFixed32(dst, math.Float32bits(float32(v.Float()))), nil
			},
			read: func(v reflect.Value, n uint64, _ []byte, _ int) error {
				v.SetFloat(float64(math.Float32frombits(uint32(n))))
				return nil
			}}
	case reflect.Float64:
		return &shape{kind: protoreflect.DoubleKind, wire: protowire.Fixed64Type,
			append: func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
				return protowire.AppendFixed64(dst, math.Float64bits(v.Float())), nil
			},
			read: func(v reflect.Value, n uint64, _ []byte, _ int) error {
				v.SetFloat(math.Float64frombits(n))
				return nil
			}}
	}
	return &shape{kind: protoreflect.StringKind, wire: protowire.BytesType, // the last of the scalars
		append: func(dst []byte, v reflect.Value, _ int) ([]byte, error) { return appendString(dst, v.String()) },
		read: func(v reflect.Value, _ uint64, data []byte, _ int) error {
			if !utf8.Valid(data) {
				return errUTF8
			}
			v.SetString(string(data))
			return nil
		}}
}

func varintShape(k protoreflect.Kind, get func(reflect.Value) uint64, set func(reflect.Value, uint64) error) *shape {
	return &shape{kind: k, wire: protowire.VarintType,
		append: func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
			return protowire.AppendVarint(dst, get(v)), nil
		},
		read: func(v reflect.Value, n uint64, _ []byte, _ int) error { return set(v, n) }}
}

func setInt(v reflect.Value, n int64) error {
	if v.OverflowInt(n) {
		return fmt.Errorf("%d does not fit %s", n, v.Kind())
	}
	v.SetInt(n)
	return nil
}

func setUint(v reflect.Value, n uint64) error {
	if v.OverflowUint(n) {
		return fmt.Errorf("%d does not fit %s", n, v.Kind())
	}
	v.SetUint(n)
	return nil
}

func appendString(dst []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return dst, errUTF8
	}
	return protowire.AppendString(dst, s), nil
}

// bytesShape is that of slices and arrays of bytes.
func bytesShape() *shape {
	return &shape{kind: protoreflect.BytesKind, wire: protowire.BytesType,
		append: func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
			if v.Kind() == reflect.Array && !v.CanAddr() { // in a map
				v = addressable(v)
			}
			return protowire.AppendBytes(dst, v.Bytes()), nil
		},
		read: func(v reflect.Value, _ uint64, data []byte, _ int) error {
			switch {
			case v.Kind() == reflect.Slice:
				v.SetBytes(append([]byte(nil), data...))
			case len(data) > v.Len():
				return fmt.Errorf("%d bytes do not fit %s", len(data), v.Type())
			default:
				v.SetZero()
				copy(v.Bytes(), data)
			}
			return nil
		}}
}

// addressable gives a copy of v that has an address.
func addressable(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	return c
}

// textShape is that of types that write and read themselves as text.
func textShape() *shape {
	return &shape{kind: protoreflect.StringKind, wire: protowire.BytesType,
		append: func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
			if !v.CanAddr() {
				v = addressable(v)
			}
			m, ok := v.Addr().Interface().(encoding.TextMarshaler)
			if !ok {
				return dst, fmt.Errorf("%s does not write itself as text", v.Type())
			}
			out, err := m.MarshalText()
			if err != nil {
				return dst, err
			}
			return appendString(dst, string(out))
		},
		read: func(v reflect.Value, _ uint64, data []byte, _ int) error {
			u, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
			switch {
			case !ok:
				return fmt.Errorf("%s does not read itself from text", v.Type())
			case !utf8.Valid(data):
				return errUTF8
			}
			return u.UnmarshalText(append([]byte{}, data...)) // it may keep what it gets
		}}
}

// formShape is that of a message whose form is ours.
func formShape(f *Form) *shape {
	return &shape{kind: protoreflect.MessageKind, wire: protowire.BytesType, form: f,
		append: func(dst []byte, v reflect.Value, depth int) ([]byte, error) {
			return appendLengthOf(dst, func(dst []byte) ([]byte, error) { return f.append(dst, v, depth+1) })
		},
		read: func(v reflect.Value, _ uint64, data []byte, depth int) error { return f.read(v, data, depth+1) }}
}

// messageShape is that of a Go type that stands as a message of protobuf's own.
func messageShape(md protoreflect.MessageDescriptor, to func(reflect.Value) (proto.Message, error), from func(reflect.Value, []byte) error) *shape {
	return &shape{kind: protoreflect.MessageKind, wire: protowire.BytesType, message: md,
		append: func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
			m, err := to(v)
			if err != nil {
				return dst, err
			}
			return appendLengthOf(dst, func(dst []byte) ([]byte, error) { return proto.MarshalOptions{}.MarshalAppend(dst, m) })
		},
		read: func(v reflect.Value, _ uint64, data []byte, _ int) error { return from(v, data) }}
}

// appendLengthOf appends what body appends, after its length: one byte is set free for that, and more where they are needed.
func appendLengthOf(dst []byte, body func([]byte) ([]byte, error)) ([]byte, error) {
	start := len(dst)
	out, err := body(append(dst, 0))
	if err != nil {
		return dst, err
	}
	n := len(out) - start - 1
	if n < 0x80 {
		out[start] = byte(n)
		return out, nil
	}
	more := protowire.SizeVarint(uint64(n)) - 1
	out = append(out, make([]byte, more)...)
	copy(out[start+1+more:], out[start+1:])
	protowire.AppendVarint(out[:start], uint64(n))
	return out, nil
}

func toGenerated(v reflect.Value) (proto.Message, error) {
	if !v.CanAddr() {
		v = addressable(v)
	}
	return v.Addr().Interface().(proto.Message), nil
}

func fromGenerated(v reflect.Value, data []byte) error {
	return unmarshal(data, v.Addr().Interface().(proto.Message))
}

// unmarshal merges, as a field that comes in parts asks for.
func unmarshal(data []byte, m proto.Message) error {
	return proto.UnmarshalOptions{Merge: true, RecursionLimit: MaxDepth}.Unmarshal(data, m)
}

func toTimestamp(v reflect.Value) (proto.Message, error) {
	ts := timestamppb.New(v.Interface().(time.Time))
	return ts, ts.CheckValid()
}

func fromTimestamp(v reflect.Value, data []byte) error {
	ts := new(timestamppb.Timestamp)
	if err := unmarshal(data, ts); err != nil {
		return err
	}
	if err := ts.CheckValid(); err != nil {
		return err
	}
	v.Set(reflect.ValueOf(ts.AsTime()))
	return nil
}

func toDuration(v reflect.Value) (proto.Message, error) {
	return durationpb.New(time.Duration(v.Int())), nil
}

func fromDuration(v reflect.Value, data []byte) error {
	d := new(durationpb.Duration)
	if err := unmarshal(data, d); err != nil {
		return err
	}
	if err := d.CheckValid(); err != nil {
		return err
	}
	span := d.AsDuration()
	if durationpb.New(span).GetSeconds() != d.GetSeconds() { // the most that it can be stands for more
		return fmt.Errorf("%ds does not fit a duration of Go", d.GetSeconds())
	}
	v.SetInt(int64(span))
	return nil
}

// toValue goes by v's JSON.
func toValue(v reflect.Value) (proto.Message, error) {
	if !v.CanAddr() {
		v = addressable(v)
	}
	data, err := json.Marshal(v.Addr().Interface())
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(data, &tree); err != nil {
		return nil, err
	}
	return structpb.NewValue(tree)
}

func fromValue(v reflect.Value, data []byte) error {
	value := new(structpb.Value)
	if err := unmarshal(data, value); err != nil {
		return err
	}
	text, err := json.Marshal(value.AsInterface())
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v.Addr().Interface())
}
