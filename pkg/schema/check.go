package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cb02dfca/micro/internal/suggest"
)

// Problem is a place where a value does not fit.
type Problem struct {
	// Path leads to the place: "user.name", "tags[2]"; it is empty for the value as a whole.
	Path string
	// Message says what is wrong: `want int32, got "abc"`, "unknown field".
	Message string
	// Hint may say what to do: `did you mean "name"?`
	Hint string
}

// String puts the parts in a line.
func (p Problem) String() string {
	line := p.Message
	if p.Path != "" {
		line = p.Path + ": " + line
	}
	if p.Hint != "" {
		line += ", " + p.Hint
	}
	return line
}

const (
	// maxProblems ends a check that finds fault with everything.
	maxProblems = 100
	// maxNesting is how deep arrays and objects may stand inside each other; the server's JSON codec takes no more.
	maxNesting = 64
)

// Check tells why a server would refuse data, a JSON value, as one that s describes; nothing where it would not. It
// takes what the server's decoder takes, also where the schema's letter is stricter: encoding/json knows fields by
// names in any letter case, leaves a field alone for null, and requires none; protojson has the rules that [OfMessage]
// tells of. So [Schema.Enum], bounds and required fields of Go types play no part: see [Schema.Warnings]. Empty data
// decodes to the zero value and fits. Problems come in the data's order, at most 100.
func (s *Schema) Check(data []byte) []Problem {
	return s.examine(data).problems
}

// Warnings tells where data, which may well pass Check, is not what the endpoint's author meant: a required field is
// missing, or a value is none of the enum or out of its bounds. What becomes of it is the handler's to decide.
func (s *Schema) Warnings(data []byte) []Problem {
	return s.examine(data).warnings
}

func (s *Schema) examine(data []byte) *checker {
	c := &checker{}
	if len(data) == 0 {
		return c
	}
	if err := json.Unmarshal(data, new(json.RawMessage)); err != nil {
		c.fail("", "not JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
		return c
	}
	c.dec = json.NewDecoder(bytes.NewReader(data))
	c.dec.UseNumber()
	c.value(s, position{whole: true})
	return c
}

// checker walks through valid JSON and its schema together.
type checker struct {
	dec                *json.Decoder
	path               []step
	depth              int
	problems, warnings []Problem
	stopped            bool
}

type step struct {
	name  string
	index int // where the name is empty
}

// position is what a value's surroundings say of it.
type position struct {
	proto bool // inside a protobuf message
	whole bool // not a field: null does not mean that it is absent
}

func (c *checker) fail(hint, format string, args ...any) {
	c.problems = append(c.problems, Problem{Path: c.at(), Message: fmt.Sprintf(format, args...), Hint: hint})
	c.stopped = c.stopped || len(c.problems) >= maxProblems
}

func (c *checker) warn(hint, format string, args ...any) {
	if len(c.warnings) < maxProblems {
		c.warnings = append(c.warnings, Problem{Path: c.at(), Message: fmt.Sprintf(format, args...), Hint: hint})
	}
}

// at writes the path.
func (c *checker) at() string {
	var b strings.Builder
	for i, s := range c.path {
		switch {
		case s.index >= 0:
			fmt.Fprintf(&b, "[%d]", s.index)
		case s.name == "" || strings.ContainsFunc(s.name, awkward):
			fmt.Fprintf(&b, "[%s]", strconv.QuoteToGraphic(clip(s.name)))
		default:
			if i > 0 {
				b.WriteByte('.')
			}
			b.WriteString(clip(s.name))
		}
	}
	return b.String()
}

func awkward(r rune) bool {
	return strings.ContainsRune(`.[]" `, r) || !strconv.IsGraphic(r)
}

// value checks the next value of the data against s, and reports whether it is null.
func (c *checker) value(s *Schema, p position) (null bool) {
	if c.stopped {
		return false
	}
	token, err := c.dec.Token()
	if err != nil {
		c.stopped = true // cannot be: the data is valid
		return false
	}
	full := s.Resolve()
	if full == nil {
		full = &Schema{}
	}
	p.proto = p.proto || full.Message != ""
	switch token := token.(type) {
	case json.Delim:
		c.depth++
		defer func() { c.depth-- }()
		switch {
		case c.depth > maxNesting:
			c.fail("", "more than %d arrays and objects inside each other", maxNesting)
			c.stopped = true
		case token == '{':
			c.object(full, p)
		default:
			c.array(full, p)
		}
		return false
	case nil:
		if p.proto && p.whole && !full.allows("null") {
			c.fail("", "want %s, got null", full.TypeName())
		}
		return true
	}
	if message := unfit(full, token, p.proto); message != "" {
		c.fail(enumHint(full, token), "%s", message)
		return false
	}
	if !p.proto { // whose enums are the decoder's affair, as unfit has it
		c.meant(s, full, token)
	}
	return false
}

// allows reports whether a value of that JSON kind may stand for s.
func (s *Schema) allows(kind string) bool { return len(s.Type) == 0 && !s.Never || s.is(kind) }

func (c *checker) array(s *Schema, p position) {
	items, limit := s.Items, s.MaxItems
	switch {
	case !p.proto && s.ContentEncoding == "base64":
		items = &Schema{Type: []string{"integer"}, Format: "uint8"} // encoding/json reads bytes one by one as well
	case !s.allows("array"):
		c.fail("", "want %s, got an array", s.TypeName())
		items, limit = nil, 0
	}
	items = items.within(s.document())
	for i := 0; c.dec.More() && !c.stopped; i++ {
		if limit > 0 && i >= limit {
			items = nil
		}
		c.path = append(c.path, step{index: i})
		c.value(items, position{proto: p.proto, whole: true})
		c.path = c.path[:len(c.path)-1]
	}
	c.leave()
}

// leave reads the closing bracket.
func (c *checker) leave() {
	if !c.stopped {
		_, err := c.dec.Token()
		c.stopped = err != nil
	}
}

// members is what an object has had so far.
type members struct {
	fields map[string]bool // by the name in the schema; for maps by key
	given  map[string]bool // those that were not null
	oneofs map[string]string
}

func (c *checker) object(s *Schema, p position) {
	if !s.allows("object") {
		c.fail("", "want %s, got an object", s.TypeName())
		s = &Schema{}
	}
	seen := members{fields: map[string]bool{}, given: map[string]bool{}, oneofs: map[string]string{}}
	for c.dec.More() && !c.stopped {
		token, err := c.dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			c.stopped = true // cannot be: the data is valid
			return
		}
		c.path = append(c.path, step{name: name, index: -1})
		c.member(s, name, p, &seen)
		c.path = c.path[:len(c.path)-1]
	}
	c.leave()
	if c.stopped {
		return
	}
	for _, name := range s.Required {
		c.path = append(c.path, step{name: name, index: -1})
		switch {
		case seen.given[name]:
		case s.Message != "":
			c.fail("", "required, and missing")
		default:
			c.warn("", "required, and missing")
		}
		c.path = c.path[:len(c.path)-1]
	}
}

// member checks one member of an object: its name, which was read, and its value.
func (c *checker) member(s *Schema, name string, p position, seen *members) {
	if field := s.field(name); field != nil {
		if s.Message != "" && seen.fields[field.Name] {
			c.fail("", "given twice")
		}
		seen.fields[field.Name] = true
		if c.value(field.Schema.within(s.document()), position{proto: p.proto}) {
			return
		}
		seen.given[field.Name] = true
		if oneof := field.Schema.Oneof; oneof != "" {
			if other := seen.oneofs[oneof]; other != "" && other != field.Name {
				c.fail("", "cannot stand beside %q: both are of the oneof %q", other, oneof)
			}
			seen.oneofs[oneof] = field.Name
		}
		return
	}
	rest := s.AdditionalProperties
	switch {
	case rest == nil, s.Message != "" && strings.HasPrefix(name, "["): // an extension of a protobuf message
		c.value(nil, position{})
		return
	case rest.Never:
		c.fail(didYouMean(name, s.Fields()), "unknown field")
		c.value(nil, position{})
		return
	}
	if p.proto && seen.fields[name] {
		c.fail("", "given twice")
	}
	seen.fields[name] = true
	if key := s.PropertyNames; key != nil && !keyFits(key.Format, name) {
		c.fail("", "want %s as the key", key.TypeName())
	}
	c.value(rest.within(s.document()), position{proto: p.proto, whole: true})
}

func didYouMean(word string, among []string) string {
	if near := suggest.Closest(word, among); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}

// enumHint is for a string that is no value of a protobuf enum.
func enumHint(s *Schema, token json.Token) string {
	word, ok := token.(string)
	if !ok || len(s.Enum) == 0 {
		return ""
	}
	return didYouMean(word, s.words())
}

// words gives the strings of an enum.
func (s *Schema) words() []string {
	var words []string
	for _, v := range s.Enum {
		var word string
		if json.Unmarshal(v, &word) == nil {
			words = append(words, word)
		}
	}
	return words
}

// meant warns of a scalar that is none of the enum, or out of bounds, by the field's schema or its type's.
func (c *checker) meant(field, full *Schema, token json.Token) {
	if field == nil {
		return
	}
	for _, s := range slices.Compact([]*Schema{field, full}) {
		if len(s.Enum) > 0 && !slices.ContainsFunc(s.Enum, func(v json.RawMessage) bool { return same(v, token) }) {
			c.warn(enumHint(s, token), "want one of %s, got %s", list(s.Enum), got(token))
		}
		if number, ok := token.(json.Number); ok {
			if s.Minimum != "" && less(number, s.Minimum) {
				c.warn("", "want %s or more, got %s", s.Minimum, got(token))
			}
			if s.Maximum != "" && less(s.Maximum, number) {
				c.warn("", "want %s or less, got %s", s.Maximum, got(token))
			}
		}
	}
}
