package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// maxDepth is how deep schemas may stand inside each other in a document that is read.
const maxDepth = 64

// errDepth is the error of a document deeper than that.
var errDepth = errors.New("more than " + strconv.Itoa(maxDepth) + " schemas inside each other")

type keyword struct {
	name  string
	value json.RawMessage
}

// Parse reads a JSON Schema document. What it does not know it keeps, and does not check. The error says what is wrong
// with a keyword that it does know.
func Parse(data []byte) (*Schema, error) {
	s := new(Schema)
	if err := s.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	return s, nil
}

// MarshalJSON writes the schema, its properties in their order.
func (s *Schema) MarshalJSON() ([]byte, error) {
	w := writer{}
	w.schema(s)
	return w.Bytes(), w.err
}

// writer writes JSON; after an error the rest is of no use.
type writer struct {
	bytes.Buffer
	err error
}

func (w *writer) schema(s *Schema) {
	switch {
	case s == nil:
		w.WriteString("true")
		return
	case s.Never:
		w.WriteString("false")
		return
	}
	w.WriteByte('{')
	start := w.Len()
	key := func(name string) {
		if w.Len() > start {
			w.WriteByte(',')
		}
		w.value(name)
		w.WriteByte(':')
	}
	text := func(name, v string) {
		if v != "" {
			key(name)
			w.value(v)
		}
	}
	sub := func(name string, v *Schema) {
		if v != nil {
			key(name)
			w.schema(v)
		}
	}
	text("$ref", s.Ref)
	text("title", s.Title)
	text("description", s.Description)
	if len(s.Type) == 1 {
		text("type", s.Type[0])
	} else if len(s.Type) > 1 {
		key("type")
		w.value(s.Type)
	}
	text("format", s.Format)
	text("contentEncoding", s.ContentEncoding)
	w.limits(s, key)
	text("x-protobuf", s.Message)
	text("x-alias", s.Alias)
	text("x-oneof", s.Oneof)
	w.properties("properties", s.Properties, key)
	if len(s.Required) > 0 {
		key("required")
		w.value(s.Required)
	}
	sub("propertyNames", s.PropertyNames)
	sub("additionalProperties", s.AdditionalProperties)
	sub("items", s.Items)
	for _, k := range s.unknown {
		key(k.name)
		w.value(k.value)
	}
	w.properties("$defs", s.Defs, key)
	w.WriteByte('}')
}

// limits writes the keywords that narrow, or suggest, values.
func (w *writer) limits(s *Schema, key func(string)) {
	if len(s.Enum) > 0 {
		key("enum")
		w.value(s.Enum)
	}
	if len(s.Default) > 0 {
		key("default")
		w.value(s.Default)
	}
	if len(s.Examples) > 0 {
		key("examples")
		w.value(s.Examples)
	}
	if s.Minimum != "" {
		key("minimum")
		w.value(s.Minimum)
	}
	if s.Maximum != "" {
		key("maximum")
		w.value(s.Maximum)
	}
	if s.MaxItems > 0 {
		key("maxItems")
		w.value(s.MaxItems)
	}
}

func (w *writer) properties(name string, properties []Property, key func(string)) {
	if len(properties) == 0 {
		return
	}
	key(name)
	w.WriteByte('{')
	for i, p := range properties {
		if i > 0 {
			w.WriteByte(',')
		}
		w.value(p.Name)
		w.WriteByte(':')
		w.schema(p.Schema)
	}
	w.WriteByte('}')
}

func (w *writer) value(v any) {
	data, err := json.Marshal(v)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("schema: %w", err)
	}
	w.Write(data)
}

// UnmarshalJSON reads a document as [Parse] does. References resolve within it.
func (s *Schema) UnmarshalJSON(data []byte) error {
	if !json.Valid(data) {
		return fmt.Errorf("schema: %w", json.Unmarshal(data, new(json.RawMessage)))
	}
	read := new(Schema)
	if err := read.read(data, 0); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	*s = *read
	// The parts were told of read, which s has taken the place of.
	s.relink(s)
	return nil
}

// relink tells each schema inside s that its document is root.
func (s *Schema) relink(root *Schema) {
	if s == nil {
		return
	}
	if s != root {
		s.root = root
	}
	for _, p := range s.Properties {
		p.Schema.relink(root)
	}
	for _, p := range s.Defs {
		p.Schema.relink(root)
	}
	s.AdditionalProperties.relink(root)
	s.PropertyNames.relink(root)
	s.Items.relink(root)
}

func (s *Schema) read(data []byte, depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	switch data = bytes.TrimSpace(data); {
	case string(data) == "true" || string(data) == "null":
		return nil
	case string(data) == "false":
		s.Never = true
		return nil
	case len(data) == 0 || data[0] != '{':
		return fmt.Errorf("want an object, true or false, got %s", clip(string(data)))
	}
	return eachMember(data, func(name string, value json.RawMessage) error {
		err := s.keyword(name, value, depth)
		if err == nil || errors.Is(err, errDepth) {
			return err
		}
		return fmt.Errorf("%s: %w", name, err)
	})
}

// keyword reads one keyword. A known one of another form than this package's (an array of items, as older drafts have)
// is kept like an unknown one.
func (s *Schema) keyword(name string, value json.RawMessage, depth int) error {
	var err error
	switch name {
	case "$ref":
		err = json.Unmarshal(value, &s.Ref)
	case "title":
		err = json.Unmarshal(value, &s.Title)
	case "description":
		err = json.Unmarshal(value, &s.Description)
	case "type":
		err = s.readTypes(value)
	case "format":
		err = json.Unmarshal(value, &s.Format)
	case "contentEncoding":
		err = json.Unmarshal(value, &s.ContentEncoding)
	case "enum":
		err = json.Unmarshal(value, &s.Enum)
	case "default":
		s.Default = value
	case "examples":
		err = json.Unmarshal(value, &s.Examples)
	case "minimum":
		err = json.Unmarshal(value, &s.Minimum)
	case "maximum":
		err = json.Unmarshal(value, &s.Maximum)
	case "maxItems":
		err = json.Unmarshal(value, &s.MaxItems)
	case "required":
		err = json.Unmarshal(value, &s.Required)
	case "x-protobuf":
		err = json.Unmarshal(value, &s.Message)
	case "x-alias":
		err = json.Unmarshal(value, &s.Alias)
	case "x-oneof":
		err = json.Unmarshal(value, &s.Oneof)
	default:
		return s.schemas(name, value, depth)
	}
	return err
}

// schemas reads the keywords that hold schemas, and keeps the unknown ones.
func (s *Schema) schemas(name string, value json.RawMessage, depth int) (err error) {
	one := func(into **Schema) error {
		*into = new(Schema)
		return (*into).read(value, depth+1)
	}
	switch name {
	case "properties":
		s.Properties, err = readProperties(value, depth)
	case "$defs":
		s.Defs, err = readProperties(value, depth)
	case "additionalProperties":
		err = one(&s.AdditionalProperties)
	case "propertyNames":
		err = one(&s.PropertyNames)
	case "items":
		if value[0] == '[' {
			s.unknown = append(s.unknown, keyword{name, value})
			return nil
		}
		err = one(&s.Items)
	default:
		s.unknown = append(s.unknown, keyword{name, value})
	}
	return err
}

func (s *Schema) readTypes(value json.RawMessage) error {
	if len(value) > 0 && value[0] == '[' {
		return json.Unmarshal(value, &s.Type)
	}
	s.Type = make([]string, 1)
	return json.Unmarshal(value, &s.Type[0])
}

func readProperties(data json.RawMessage, depth int) ([]Property, error) {
	if len(data) == 0 || data[0] != '{' {
		return nil, fmt.Errorf("want an object, got %s", clip(string(data)))
	}
	var all []Property
	err := eachMember(data, func(name string, value json.RawMessage) error {
		p := Property{Name: name, Schema: new(Schema)}
		all = append(all, p)
		return p.Schema.read(value, depth+1)
	})
	return all, err
}

// eachMember calls f for each member of a JSON object, in order.
func eachMember(data []byte, f func(name string, value json.RawMessage) error) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return err
		}
		if err := f(name.(string), value); err != nil {
			return err
		}
	}
	return nil
}

// clip cuts a text that is shown to a person, between two runes.
func clip(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	end := most
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}
