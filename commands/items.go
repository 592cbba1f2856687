package commands

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cb02dfca/micro/pkg/schema"
)

// item is one field of a body, as name=x, times:=3, tags[]=a, user.name=x or photo@file write it.
type item struct {
	word  string
	path  []string
	list  bool   // name[]=x: one more element
	op    string // "=", ":=" or "@"
	value string
}

// parseItem reads an item. What comes first of "=", ":=" and "@" ends the name.
func parseItem(word string) (item, error) {
	it := item{word: word}
	i := strings.IndexAny(word, "=@")
	if i > 0 && word[i] == '=' && word[i-1] == ':' {
		it.op, it.value = ":=", word[i+1:]
		i--
	} else if i > 0 {
		it.op, it.value = word[i:i+1], word[i+1:]
	}
	if i <= 0 {
		return it, usage("%q is neither JSON nor an item: want {...} or name=x", clipText(word)).hint("more", "micro help items")
	}
	if !utf8.ValidString(word) {
		return it, usage("item %q is not UTF-8", clipText(word))
	}
	name, list := strings.CutSuffix(word[:i], "[]")
	it.list = list
	it.path = strings.Split(name, ".")
	if slices.Contains(it.path, "") || strings.ContainsAny(name, "[]") {
		return it, usage("item %q: %q is not a field: want name, user.name or tags[]", clipText(word), clipText(word[:i])).
			hint("more", "micro help items")
	}
	return it, nil
}

// buildBody makes the JSON object of items. s gives the fields their types; nil knows none.
func buildBody(items []item, s *schema.Schema) ([]byte, error) {
	body := &object{}
	for _, it := range items {
		raw, err := it.json(it.schema(s))
		if err != nil {
			return nil, err
		}
		if err := body.set(it, it.path, raw); err != nil {
			return nil, err
		}
	}
	out := body.append(nil)
	if len(out) > maxBody {
		return nil, usage("request body is larger than 4 MiB, the most that a message carries; nothing was sent")
	}
	return out, nil
}

// schema gives what is known of the item's value, nil where that is nothing.
func (it item) schema(s *schema.Schema) *schema.Schema {
	if s == nil {
		return nil
	}
	if it.list {
		return s.At(append(slices.Clone(it.path), "0")...)
	}
	return s.At(it.path...)
}

// json gives the value's JSON.
func (it item) json(s *schema.Schema) (json.RawMessage, error) {
	switch it.op {
	case "@":
		return it.file(s)
	case ":=":
		text := []byte(it.value)
		if name, file := strings.CutPrefix(it.value, "@"); file {
			var err error
			if text, err = readFile("item "+it.word, name); err != nil {
				return nil, err
			}
		}
		if !json.Valid(text) {
			return nil, usage("item %s: what follows := is not JSON: %s", clipText(it.word), jsonReason(text)).
				hint("as text", shellQuote(strings.Replace(it.word, ":=", "=", 1)))
		}
		return text, nil
	}
	if typed(s, it.value) {
		return json.RawMessage(it.value), nil
	}
	return encodeJSON(it.value, "")
}

// typed reports whether text stands for itself where s is expected: a number for a number. What does not fit stays text,
// for the check to name.
func typed(s *schema.Schema, text string) bool {
	if s == nil || len(s.Type) == 0 || slices.Contains(s.Type, "string") || !json.Valid([]byte(text)) {
		return false
	}
	kind, other := map[byte]string{'{': "object", '[': "array", 't': "boolean", 'f': "boolean", 'n': "null", '"': "string"}[text[0]]
	switch {
	case kind == "null":
		return true
	case !other: // a number
		return slices.Contains(s.Type, "integer") || slices.Contains(s.Type, "number")
	}
	return slices.Contains(s.Type, kind)
}

// file gives a file's content: base64 where the schema says so or the bytes are no text, a string else.
func (it item) file(s *schema.Schema) (json.RawMessage, error) {
	data, err := readFile("item "+it.word, it.value)
	if err != nil {
		return nil, err
	}
	if s != nil && s.ContentEncoding == "base64" || !utf8.Valid(data) && (s == nil || len(s.Type) == 0) {
		return json.RawMessage(strconv.Quote(base64.StdEncoding.EncodeToString(data))), nil
	}
	if !utf8.Valid(data) {
		return nil, usage("item %s: %s is not text, and the field takes %s", clipText(it.word), it.value, s.TypeName())
	}
	return encodeJSON(string(data), "")
}

// object is a JSON object in the order of its making.
type object struct {
	keys   []string
	fields map[string]*field
}

// field is a value, a list or an object.
type field struct {
	raw    json.RawMessage
	list   []json.RawMessage
	object *object
}

// set puts a value where path leads.
func (o *object) set(it item, path []string, raw json.RawMessage) error {
	f := o.fields[path[0]]
	if f == nil {
		f = &field{}
		if o.fields == nil {
			o.fields = map[string]*field{}
		}
		o.fields[path[0]] = f
		o.keys = append(o.keys, path[0])
	}
	name := strings.Join(it.path[:len(it.path)-len(path)+1], ".")
	switch fresh := f.raw == nil && f.list == nil && f.object == nil; {
	case len(path) > 1 && (fresh || f.object != nil):
		if f.object == nil {
			f.object = &object{}
		}
		return f.object.set(it, path[1:], raw)
	case len(path) == 1 && it.list && (fresh || f.list != nil):
		f.list = append(f.list, raw)
		return nil
	case len(path) == 1 && !it.list && fresh:
		f.raw = raw
		return nil
	case f.raw != nil && len(path) == 1 && !it.list:
		return usage("item %s: %s is given twice", clipText(it.word), name).hint("a list", name+"[]=a "+name+"[]=b")
	}
	return usage("item %s: %s is given as something else already", clipText(it.word), name)
}

func (o *object) append(dst []byte) []byte {
	dst = append(dst, '{')
	for i, key := range o.keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		quoted, _ := encodeJSON(key, "") // a string
		dst = append(append(dst, quoted...), ':')
		switch f := o.fields[key]; {
		case f.object != nil:
			dst = f.object.append(dst)
		case f.list != nil:
			dst = append(dst, '[')
			for j, element := range f.list {
				if j > 0 {
					dst = append(dst, ',')
				}
				dst = append(dst, element...)
			}
			dst = append(dst, ']')
		default:
			dst = append(dst, f.raw...)
		}
	}
	return append(dst, '}')
}
