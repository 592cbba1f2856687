// Package schema describes the JSON form of messages, and checks bodies against the description before they are sent.
//
// The form is a subset of JSON Schema, draft 2020-12 (json-schema.org/draft/2020-12): what [Of] and [OfMessage] write,
// for Go types as encoding/json sees them and for protobuf messages as protojson does. Keywords beyond the subset are
// kept when a foreign schema is read, and play no part in a check.
package schema

import (
	"encoding/json"
	"slices"
	"strings"
)

// Schema describes one JSON value. The zero Schema describes any value. A Schema is not changed after it was made; it
// may be shared between goroutines.
type Schema struct {
	// Ref points to the schema that this one stands for, within the same document: "#", or "#/$defs/Name".
	Ref string
	// Title is the name of the type: "HelloRequest".
	Title string
	// Description says in a sentence what the value means.
	Description string
	// Type lists the kinds of JSON that the value may be: "object", "array", "string", "integer", "number",
	// "boolean", "null". None means any.
	Type []string
	// Format narrows Type: the width of an integer ("int8" to "uint64"), "float", "double", "date-time", "boolean".
	// On a string, a numeric format says that the string holds the number.
	Format string
	// ContentEncoding is "base64" for a string that carries bytes.
	ContentEncoding string
	// Enum lists the values that are meant.
	Enum []json.RawMessage
	// Default is what a missing value means.
	Default json.RawMessage
	// Examples are values to start from.
	Examples []json.RawMessage
	// Minimum and Maximum bound a number; empty is no bound.
	Minimum, Maximum json.Number
	// Properties are an object's fields, in the order of their declaration.
	Properties []Property
	// Required names the fields that must be there.
	Required []string
	// AdditionalProperties describes fields beyond Properties: the values of a map; none where it is Never; any where
	// it is nil.
	AdditionalProperties *Schema
	// PropertyNames describes the keys of a map.
	PropertyNames *Schema
	// Items describes the elements of an array.
	Items *Schema
	// MaxItems is the length of a Go array; what follows is not read. Zero is no bound.
	MaxItems int
	// Defs are schemas that others refer to.
	Defs []Property

	// Message is the full name of the protobuf message that this is ("x-protobuf"). It and its fields then follow
	// protojson's rules rather than encoding/json's.
	Message string
	// Alias is a protobuf field's name in the .proto where that is not its JSON name ("x-alias"). Both are read.
	Alias string
	// Oneof names the oneof that a protobuf field belongs to ("x-oneof"): at most one of them may be set.
	Oneof string

	// Never is the schema false, which no value fits.
	Never bool

	unknown []keyword // foreign keywords, to be written again
	root    *Schema   // the document that Ref points into; nil where s is the document
}

// Property is a named schema.
type Property struct {
	Name   string
	Schema *Schema
}

// maxHops bounds a chain of references: a foreign document may refer in a circle.
const maxHops = 16

// Resolve follows s's references to the schema that it stands for: nil where a reference leads nowhere, or in a
// circle. What stands beside a reference (the description of a field) is s's own.
func (s *Schema) Resolve() *Schema {
	root := s.document()
	for range maxHops {
		if s == nil || s.Ref == "" {
			return s
		}
		s = root.lookup(s.Ref).within(root)
	}
	return nil
}

// child gives a schema inside s, resolved.
func (s *Schema) child(c *Schema) *Schema { return c.within(s.document()).Resolve() }

// within gives s as a part of the document root. A schema that was put together by hand has not been told of it.
func (s *Schema) within(root *Schema) *Schema {
	if s == nil || s.root != nil || s == root {
		return s
	}
	c := *s
	c.root = root
	return &c
}

func (s *Schema) document() *Schema {
	if s == nil || s.root == nil {
		return s
	}
	return s.root
}

const defsPrefix = "#/$defs/"

func (s *Schema) lookup(ref string) *Schema {
	if ref == "#" {
		return s
	}
	name, ok := strings.CutPrefix(ref, defsPrefix)
	if !ok || s == nil {
		return nil
	}
	name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
	if i := slices.IndexFunc(s.Defs, func(p Property) bool { return p.Name == name }); i >= 0 {
		return s.Defs[i].Schema
	}
	return nil
}

// At gives the schema of the value that path leads to, with references resolved, or nil where nothing is known of it.
// A field is found by its exact name, by its name in the .proto, or by encoding/json's rule without regard to letter
// case; any element of an array, or value of a map, by any step. At with no path resolves s itself.
func (s *Schema) At(path ...string) *Schema {
	s = s.Resolve()
	for _, step := range path {
		if s == nil {
			return nil
		}
		switch p := s.field(step); {
		case p != nil:
			s = s.child(p.Schema)
		case s.is("array"):
			s = s.child(s.Items)
		case s.AdditionalProperties != nil && !s.AdditionalProperties.Never:
			s = s.child(s.AdditionalProperties)
		default:
			return nil
		}
	}
	return s
}

// field gives the property that a decoder takes name for: the exact one, else the .proto's name, else, outside of
// protobuf, the first that differs in letter case only (encoding/json, Unmarshal).
func (s *Schema) field(name string) *Property {
	for i := range s.Properties {
		if s.Properties[i].Name == name {
			return &s.Properties[i]
		}
	}
	for i := range s.Properties {
		p := &s.Properties[i]
		if p.Schema != nil && p.Schema.Alias == name && name != "" || s.Message == "" && strings.EqualFold(p.Name, name) {
			return p
		}
	}
	return nil
}

func (s *Schema) is(kind string) bool { return slices.Contains(s.Type, kind) }

// Fields gives the names of an object's fields, in the order of their declaration.
func (s *Schema) Fields() []string {
	s = s.Resolve()
	if s == nil {
		return nil
	}
	names := make([]string, len(s.Properties))
	for i, p := range s.Properties {
		names[i] = p.Name
	}
	return names
}

// TypeName names the type for a person: "string", "int32", "[]string", "map[string]int64", "HelloRequest", "bytes",
// "time", "any".
func (s *Schema) TypeName() string { return s.typeName(0) }

func (s *Schema) typeName(depth int) string {
	s = s.Resolve()
	switch {
	case s == nil || depth > maxHops:
		return "any"
	case s.is("array"):
		return "[]" + s.child(s.Items).typeName(depth+1)
	case s.is("object") && s.Title == "" && s.AdditionalProperties != nil && !s.AdditionalProperties.Never:
		return "map[" + s.keyName() + "]" + s.child(s.AdditionalProperties).typeName(depth+1)
	case s.Title != "":
		return s.Title
	case s.ContentEncoding == "base64":
		return "bytes"
	case s.Format == "date-time":
		return "time"
	case integerBits(s.Format) != 0:
		return s.Format
	case s.is("number"):
		return "number"
	case s.Format == "boolean", s.is("boolean"):
		return "bool"
	case len(s.Type) == 0:
		return "any"
	}
	return strings.Join(s.Type, " or ")
}

func (s *Schema) keyName() string {
	if s.PropertyNames != nil && s.PropertyNames.Format != "" {
		return s.PropertyNames.Format
	}
	return "string"
}
