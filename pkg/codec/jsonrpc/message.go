package jsonrpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cb02dfca/micro/pkg/codec"
)

// goMicro is a codec of JSON but for protobuf messages, which it writes as New says.
type goMicro struct{ codec.Codec }

// Append appends v's JSON.
func (c goMicro) Append(dst []byte, v any) ([]byte, error) {
	if m, ok := v.(proto.Message); ok {
		return appendMessage(dst, m)
	}
	return c.Codec.Append(dst, v)
}

// appendMessage appends a protobuf message. protojson has options for names and enums, and none for integers.
func appendMessage(dst []byte, m proto.Message) ([]byte, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true, UseEnumNumbers: true}.Marshal(m)
	if err != nil {
		return dst, fmt.Errorf("codec/jsonrpc: encode %T: %w", m, err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return dst, fmt.Errorf("codec/jsonrpc: encode %T: %w", m, err)
	}
	numbers(tree, m.ProtoReflect().Descriptor())
	out := bytes.NewBuffer(dst)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(tree); err != nil {
		return dst, fmt.Errorf("codec/jsonrpc: encode %T: %w", m, err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// numbers makes numbers of the texts that protojson writes for 64-bit integers in a message's fields. The messages of protobuf's own
// packages have JSON of their own, which is left alone.
func numbers(tree any, d protoreflect.MessageDescriptor) {
	object, ok := tree.(map[string]any)
	if !ok || strings.HasPrefix(string(d.FullName()), "google.protobuf.") {
		return
	}
	for name, value := range object {
		f := d.Fields().ByName(protoreflect.Name(name))
		if f == nil { // an extension
			continue
		}
		switch value := value.(type) {
		case map[string]any:
			if f.IsMap() {
				for key, one := range value {
					value[key] = number(one, f.MapValue())
				}
				continue
			}
			numbers(value, f.Message())
		case []any:
			for i, one := range value {
				value[i] = number(one, f)
			}
		default:
			object[name] = number(value, f)
		}
	}
}

// number gives one value of a field.
func number(value any, f protoreflect.FieldDescriptor) any {
	switch f.Kind() {
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		if text, ok := value.(string); ok {
			return json.Number(text)
		}
	case protoreflect.MessageKind, protoreflect.GroupKind:
		numbers(value, f.Message())
	}
	return value
}
