package schema

import (
	"bytes"
	"encoding/json"
)

// maxExample bounds the values of an example: a foreign schema may unfold without end.
const maxExample = 1000

// Example gives a body to fill in: each field with its example, its default, or its first enum value, else with an
// empty value of its type. Of a oneof it has the first field; where a type contains itself, it has it once.
func (s *Schema) Example() json.RawMessage {
	w := exampler{open: map[*Schema]bool{}}
	if !w.value(s) {
		return json.RawMessage("null")
	}
	return bytes.Clone(w.Bytes())
}

type exampler struct {
	bytes.Buffer
	open map[*Schema]bool // on the way from the root
	n    int
}

// value writes an example of s. It writes nothing, and reports false, where s is being written already.
func (w *exampler) value(s *Schema) bool {
	full := s.Resolve()
	if w.n++; full == nil || w.n > maxExample {
		w.WriteString("null")
		return true
	}
	for _, v := range []*Schema{s, full} {
		if given := v.given(); given != nil {
			w.Write(given)
			return true
		}
	}
	switch {
	case full.is("object"):
		return w.object(full)
	case full.is("array"):
		return w.array(full)
	case full.is("string") && !full.is("integer") && !full.is("number"):
		w.WriteString(emptyText(full))
	case full.is("integer"), full.is("number"):
		w.WriteByte('0')
	case full.is("boolean"):
		w.WriteString("false")
	default:
		w.WriteString("null")
	}
	return true
}

// given is a value that the schema itself suggests.
func (s *Schema) given() json.RawMessage {
	switch {
	case len(s.Examples) > 0:
		return s.Examples[0]
	case len(s.Default) > 0:
		return s.Default
	case len(s.Enum) > 0:
		return s.Enum[0]
	}
	return nil
}

func emptyText(s *Schema) string {
	switch {
	case s.Format == "date-time":
		return `"2026-01-01T00:00:00Z"`
	case s.Format == "boolean":
		return `"false"`
	case s.Format == "json":
		return `"\"\""`
	case s.Format == "float", s.Format == "double", integerBits(s.Format) != 0:
		return `"0"`
	}
	return `""`
}

func (w *exampler) object(s *Schema) bool {
	if w.open[s] {
		return false
	}
	w.open[s] = true
	defer delete(w.open, s)
	w.WriteByte('{')
	first := true
	chosen := map[string]bool{}
	for _, p := range s.Properties {
		if p.Schema != nil && p.Schema.Oneof != "" {
			if chosen[p.Schema.Oneof] {
				continue
			}
			chosen[p.Schema.Oneof] = true
		}
		before := w.Len()
		if !first {
			w.WriteByte(',')
		}
		w.Write(quote(p.Name))
		w.WriteByte(':')
		if !w.value(p.Schema.within(s.document())) {
			w.Truncate(before)
			continue
		}
		first = false
	}
	w.WriteByte('}')
	return true
}

// array has one element, to show its form.
func (w *exampler) array(s *Schema) bool {
	if w.open[s] {
		return false
	}
	w.open[s] = true
	defer delete(w.open, s)
	w.WriteByte('[')
	if s.Items != nil {
		w.value(s.Items.within(s.document()))
	}
	w.WriteByte(']')
	return true
}
