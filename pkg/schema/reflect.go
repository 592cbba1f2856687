package schema

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cb02dfca/micro/internal/jsonfield"
)

// Of gives the schema of t's JSON form: protojson's where t (or *t) is a protobuf message, encoding/json's else. What
// reflection cannot know - a type that writes or reads its own JSON, an interface - is the empty schema.
//
// Tags of a struct's fields add to it: `doc:"..."` describes the field; `enum:"a,b"` lists the values meant;
// `default:"1"`, `example:"..."`, `min:"1"` and `max:"10"` say what they say; `required:"true"` says that the caller
// must give it. Objects take no further fields, as the server's JSON is read strictly. Values in tags are JSON where that
// fits the field's type, and text else.
func Of(t reflect.Type) *Schema {
	if t == nil {
		return &Schema{}
	}
	for t.Kind() == reflect.Pointer && t.Name() == "" && !isMessage(t) {
		t = t.Elem()
	}
	if md := descriptor(t); md != nil {
		return OfMessage(md)
	}
	b := builder{root: t, names: map[reflect.Type]string{}}
	s := b.describe(t)
	s.Defs = b.defs
	s.relink(s)
	return s
}

// builder describes Go types. Each named struct, map and slice below the root has its definition, which is also what
// ends a recursion.
type builder struct {
	root  reflect.Type
	names map[reflect.Type]string
	defs  []Property
}

var (
	marshaler       = reflect.TypeFor[json.Marshaler]()
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	timeType        = reflect.TypeFor[time.Time]()
	durationType    = reflect.TypeFor[time.Duration]()
	numberType      = reflect.TypeFor[json.Number]()
	protoMessage    = reflect.TypeFor[protoreflect.ProtoMessage]()
)

// of gives the schema of a type in its place: a reference where it has a definition.
func (b *builder) of(t reflect.Type) *Schema {
	// A pointer type may point to itself (type P *P): no value of it has a JSON form.
	for range maxHops {
		if t.Kind() != reflect.Pointer {
			break
		}
		t = t.Elem()
	}
	switch {
	case t == b.root && t.Name() != "" && composed(t):
		return &Schema{Ref: "#"}
	case t.Name() == "" || !composed(t) || opaque(t) || t == timeType:
		return b.describe(t)
	}
	name, ok := b.names[t]
	if !ok {
		name = b.name(t)
		b.names[t] = name
		i := len(b.defs)
		b.defs = append(b.defs, Property{Name: name})
		b.defs[i].Schema = b.describe(t)
	}
	return &Schema{Ref: defsPrefix + name}
}

func composed(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Array:
		return true
	}
	return false
}

// opaque reports whether t writes or reads its own JSON in a way that reflection cannot see through.
func opaque(t reflect.Type) bool {
	return has(t, marshaler) || has(t, unmarshaler) || has(t, textMarshaler) || has(t, textUnmarshaler)
}

func has(t, method reflect.Type) bool {
	return t.Kind() != reflect.Interface && (t.Implements(method) || reflect.PointerTo(t).Implements(method))
}

// describe gives t's own schema.
func (b *builder) describe(t reflect.Type) *Schema {
	switch {
	case t == timeType:
		return &Schema{Type: []string{"string"}, Format: "date-time"}
	case t == durationType:
		return &Schema{Type: []string{"integer"}, Format: "int64", Description: "nanoseconds"}
	case t == numberType:
		return &Schema{Type: []string{"number", "string"}}
	case has(t, marshaler) || has(t, unmarshaler):
		return &Schema{}
	case has(t, textUnmarshaler):
		return &Schema{Type: []string{"string"}}
	case has(t, textMarshaler) && t.Kind() != reflect.String:
		return &Schema{} // written as a string, but read as what it is
	}
	switch t.Kind() {
	case reflect.Struct:
		return b.object(t)
	case reflect.Map:
		return b.mapping(t)
	case reflect.Slice, reflect.Array:
		return b.list(t)
	}
	return scalar(t)
}

// scalar describes the kinds that encoding/json writes as one token; the empty schema is for the rest.
func scalar(t reflect.Type) *Schema {
	switch kind := t.Kind(); kind {
	case reflect.Bool:
		return &Schema{Type: []string{"boolean"}}
	case reflect.String:
		return &Schema{Type: []string{"string"}}
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &Schema{Type: []string{"integer"}, Format: kind.String()}
	case reflect.Int:
		return &Schema{Type: []string{"integer"}, Format: "int64"}
	case reflect.Uint, reflect.Uintptr:
		return &Schema{Type: []string{"integer"}, Format: "uint64"}
	case reflect.Float32:
		return &Schema{Type: []string{"number"}, Format: "float"}
	case reflect.Float64:
		return &Schema{Type: []string{"number"}, Format: "double"}
	}
	return &Schema{}
}

func (b *builder) list(t reflect.Type) *Schema {
	elem := t.Elem()
	if t.Kind() == reflect.Slice && elem.Kind() == reflect.Uint8 {
		if opaque(elem) {
			return &Schema{} // its elements may be written in any form, and be read as base64 as well
		}
		return &Schema{Type: []string{"string"}, ContentEncoding: "base64"}
	}
	s := &Schema{Type: []string{"array"}, Items: b.of(elem)}
	if t.Kind() == reflect.Array {
		s.MaxItems = t.Len()
		if s.MaxItems == 0 {
			s.Items = &Schema{} // every element is left unread
		}
	}
	return s
}

func (b *builder) mapping(t reflect.Type) *Schema {
	s := &Schema{Type: []string{"object"}}
	key := t.Key()
	switch {
	case reflect.PointerTo(key).Implements(textUnmarshaler):
	case key.Kind() == reflect.String:
	default:
		if k := scalar(key); k.is("integer") {
			s.PropertyNames = &Schema{Type: []string{"string"}, Format: k.Format}
			break
		}
		return &Schema{} // encoding/json writes no such map
	}
	s.AdditionalProperties = b.of(t.Elem())
	return s
}

func (b *builder) object(t reflect.Type) *Schema {
	s := &Schema{Title: title(t), Type: []string{"object"}, AdditionalProperties: &Schema{Never: true}}
	for _, f := range jsonfield.Of(t) {
		p := b.of(f.Type)
		if f.Quoted {
			p = quoted(f.Type)
		}
		annotate(p, b.target(p), f.Tag)
		if f.Tag.Get("required") == "true" {
			s.Required = append(s.Required, f.Name)
		}
		s.Properties = append(s.Properties, Property{Name: f.Name, Schema: p})
	}
	return s
}

// target gives the schema that p refers to, while the document is still being built: nil for what is not yet known.
func (b *builder) target(p *Schema) *Schema {
	if p.Ref == "" {
		return p
	}
	return (&Schema{Defs: b.defs}).lookup(p.Ref)
}

// quoted is the schema of a field with the option "string": a string that holds the value's JSON.
func quoted(t reflect.Type) *Schema {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if opaque(t) || t == numberType {
		return &Schema{}
	}
	s := scalar(t)
	switch {
	case s.is("boolean"):
		s.Format = "boolean"
	case s.is("string"):
		s.Format = "json"
	}
	s.Type = []string{"string"}
	return s
}

// annotate adds what a field's tags say.
func annotate(p, target *Schema, tag reflect.StructTag) {
	if doc := tag.Get("doc"); doc != "" {
		p.Description = doc
	}
	if v, ok := tag.Lookup("default"); ok {
		p.Default = tagValue(target, v)
	}
	if v, ok := tag.Lookup("example"); ok {
		p.Examples = []json.RawMessage{tagValue(target, v)}
	}
	if v := tag.Get("enum"); v != "" {
		for one := range strings.SplitSeq(v, ",") {
			p.Enum = append(p.Enum, tagValue(target, strings.TrimSpace(one)))
		}
	}
	p.Minimum, p.Maximum = tagNumber(tag.Get("min")), tagNumber(tag.Get("max"))
}

func tagNumber(v string) json.Number {
	if _, err := strconv.ParseFloat(v, 64); err != nil || !json.Valid([]byte(v)) {
		return ""
	}
	return json.Number(v)
}

// tagValue reads a value in a tag: JSON where that fits the field, text else.
func tagValue(target *Schema, v string) json.RawMessage {
	if json.Valid([]byte(v)) && v != "null" && (target == nil || len(target.Check([]byte(v))) == 0) {
		return json.RawMessage(v)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return text
}

// title is a type's name as people write it, without the import paths in a generic type's arguments.
func title(t reflect.Type) string {
	var b strings.Builder
	part := ""
	for _, r := range t.Name() {
		switch {
		case strings.ContainsRune("[]*, ", r):
			b.WriteString(part)
			b.WriteRune(r)
			part = ""
		case r == '.' || r == '/':
			part = ""
		default:
			part += string(r)
		}
	}
	return b.String() + part
}

// name finds a free name for a definition that needs no escape in a reference.
func (b *builder) name(t reflect.Type) string {
	base := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, title(t))
	name := base
	for i := 2; slices.ContainsFunc(b.defs, func(p Property) bool { return p.Name == name }); i++ {
		name = base + strconv.Itoa(i)
	}
	return name
}

func isMessage(t reflect.Type) bool { return t.Implements(protoMessage) }

// descriptor gives the protobuf descriptor of a message type, or nil. A generated type's nil pointer knows it; a
// dynamic one knows it only with a value.
func descriptor(t reflect.Type) protoreflect.MessageDescriptor {
	if t.Kind() != reflect.Pointer {
		t = reflect.PointerTo(t)
	}
	if t.Elem().Kind() != reflect.Struct || !isMessage(t) {
		return nil
	}
	m, ok := reflect.Zero(t).Interface().(protoreflect.ProtoMessage)
	if !ok || t.Elem().PkgPath() == "google.golang.org/protobuf/types/dynamicpb" {
		return nil
	}
	return m.ProtoReflect().Descriptor()
}
