package schema

import (
	"encoding/json"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// OfMessage gives the schema of a protobuf message's JSON form (protobuf.dev/programming-guides/json). Fields have
// their JSON names; what protojson reads besides - a field's name in the .proto, a number for an enum's value, a string
// for any number - a check takes as well. Comments of the .proto become descriptions where the descriptor has them;
// those in generated Go code do not.
func OfMessage(md protoreflect.MessageDescriptor) *Schema {
	if s := wellKnown(md); s != nil {
		s.Message = string(md.FullName()) // a part has this from the message that it is in
		return s
	}
	b := protoBuilder{root: md.FullName(), names: map[protoreflect.FullName]bool{}}
	s := b.message(md)
	s.Defs = b.defs
	s.relink(s)
	return s
}

// protoBuilder describes messages; each below the root has its definition, under its full name.
type protoBuilder struct {
	root  protoreflect.FullName
	names map[protoreflect.FullName]bool
	defs  []Property
}

func (b *protoBuilder) message(md protoreflect.MessageDescriptor) *Schema {
	s := &Schema{
		Title:                string(md.Name()),
		Description:          comment(md),
		Type:                 []string{"object"},
		Message:              string(md.FullName()),
		AdditionalProperties: &Schema{Never: true},
	}
	fields := md.Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		p := b.field(fd)
		p.Description = comment(fd)
		if name := string(fd.Name()); name != fd.JSONName() {
			p.Alias = name
		}
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
			p.Oneof = string(o.Name())
		}
		if fd.HasDefault() && fd.Enum() == nil {
			p.Default = protoDefault(fd)
		}
		if fd.Cardinality() == protoreflect.Required {
			s.Required = append(s.Required, fd.JSONName())
		}
		s.Properties = append(s.Properties, Property{Name: fd.JSONName(), Schema: p})
	}
	return s
}

func (b *protoBuilder) field(fd protoreflect.FieldDescriptor) *Schema {
	switch {
	case fd.IsMap():
		s := &Schema{Type: []string{"object"}, AdditionalProperties: b.value(fd.MapValue())}
		if key := b.value(fd.MapKey()); key.Format != "" || key.is("boolean") {
			s.PropertyNames = &Schema{Type: []string{"string"}, Format: key.Format}
			if key.is("boolean") {
				s.PropertyNames.Format = "boolean"
			}
		}
		return s
	case fd.IsList():
		return &Schema{Type: []string{"array"}, Items: b.value(fd)}
	}
	return b.value(fd)
}

// value describes one value of a field: an element of a list, a value of a map.
func (b *protoBuilder) value(fd protoreflect.FieldDescriptor) *Schema {
	switch fd.Kind() {
	case protoreflect.EnumKind:
		return enumeration(fd.Enum())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return b.reference(fd.Message())
	}
	return protoScalar(fd.Kind())
}

func (b *protoBuilder) reference(md protoreflect.MessageDescriptor) *Schema {
	if s := wellKnown(md); s != nil {
		return s
	}
	name := md.FullName()
	if name == b.root {
		return &Schema{Ref: "#"}
	}
	if !b.names[name] {
		b.names[name] = true
		i := len(b.defs)
		b.defs = append(b.defs, Property{Name: string(name)})
		b.defs[i].Schema = b.message(md)
	}
	return &Schema{Ref: defsPrefix + string(name)}
}

// protoScalar describes a scalar; the first of two types is the one that protojson writes.
func protoScalar(k protoreflect.Kind) *Schema {
	switch k {
	case protoreflect.BoolKind:
		return &Schema{Type: []string{"boolean"}}
	case protoreflect.StringKind:
		return &Schema{Type: []string{"string"}}
	case protoreflect.BytesKind:
		return &Schema{Type: []string{"string"}, ContentEncoding: "base64"}
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return &Schema{Type: []string{"integer", "string"}, Format: "int32"}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return &Schema{Type: []string{"integer", "string"}, Format: "uint32"}
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return &Schema{Type: []string{"string", "integer"}, Format: "int64"}
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return &Schema{Type: []string{"string", "integer"}, Format: "uint64"}
	case protoreflect.FloatKind:
		return &Schema{Type: []string{"number", "string"}, Format: "float"}
	case protoreflect.DoubleKind:
		return &Schema{Type: []string{"number", "string"}, Format: "double"}
	}
	return &Schema{}
}

func enumeration(ed protoreflect.EnumDescriptor) *Schema {
	if ed.FullName() == "google.protobuf.NullValue" {
		return &Schema{}
	}
	s := &Schema{Title: string(ed.Name()), Description: comment(ed), Type: []string{"string", "integer"}}
	for i := range ed.Values().Len() {
		s.Enum = append(s.Enum, quote(string(ed.Values().Get(i).Name())))
	}
	return s
}

// wellKnown describes the messages that protojson writes in a form of their own, or gives nil.
func wellKnown(md protoreflect.MessageDescriptor) *Schema {
	name, ok := strings.CutPrefix(string(md.FullName()), "google.protobuf.")
	if !ok {
		return nil
	}
	switch name {
	case "Any", "Struct":
		return &Schema{Type: []string{"object"}}
	case "Value":
		return &Schema{}
	case "ListValue":
		return &Schema{Type: []string{"array"}}
	case "Timestamp":
		return &Schema{Type: []string{"string"}, Format: "date-time"}
	case "Duration":
		return &Schema{Title: "Duration", Type: []string{"string"}, Examples: []json.RawMessage{quote("1.5s")}}
	case "FieldMask":
		return &Schema{Title: "FieldMask", Type: []string{"string"}}
	case "BoolValue", "StringValue", "BytesValue", "Int32Value", "UInt32Value", "Int64Value", "UInt64Value", "FloatValue", "DoubleValue":
		if fd := md.Fields().ByNumber(1); fd != nil {
			return protoScalar(fd.Kind())
		}
	}
	return nil
}

func protoDefault(fd protoreflect.FieldDescriptor) json.RawMessage {
	v := fd.Default().Interface()
	switch v.(type) {
	case bool, int32, uint32, int64, uint64, string, []byte:
		data, err := json.Marshal(v)
		if err != nil {
			return nil
		}
		return data
	}
	return nil
}

// comment gives a descriptor's comment. Messages of before 2020, which describe themselves by the tags of their fields, have no file.
func comment(d protoreflect.Descriptor) string {
	file := d.ParentFile()
	if file == nil {
		return ""
	}
	return strings.TrimSpace(file.SourceLocations().ByDescriptor(d).LeadingComments)
}

func quote(s string) json.RawMessage {
	data, err := json.Marshal(s)
	if err != nil {
		return nil
	}
	return data
}
