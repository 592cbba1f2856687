package mapping

import (
	"encoding/json"
	"reflect"
	"unicode"
	"unicode/utf8"

	"github.com/cb02dfca/micro/internal/jsonfield"
)

// structDecoder is how a struct is read.
type structDecoder struct {
	typ    reflect.Type
	fields []decodeField
	byName map[string]int
	folded map[string]int // by the name without its case; the first of several
}

type decodeField struct {
	name   string
	index  []int
	decode decodeFunc
}

func (ts *Types) structDecoder(t reflect.Type) decodeFunc {
	s := structDecoder{typ: t, byName: map[string]int{}, folded: map[string]int{}}
	for i, f := range jsonfield.Of(t) {
		field := decodeField{name: f.Name, index: f.Index, decode: ts.decoder(f.Type)}
		if f.Quoted && !ownForm(pointedTo(f.Type)) {
			field.decode = quotedDecoder(field.decode)
		}
		s.fields = append(s.fields, field)
		s.byName[f.Name] = i
		if fold := string(appendFolded(nil, []byte(f.Name))); !has(s.folded, fold) {
			s.folded[fold] = i
		}
	}
	return s.decode
}

func has(m map[string]int, key string) bool {
	_, ok := m[key]
	return ok
}

func (s *structDecoder) decode(d *Decoder, v reflect.Value) error {
	k, done, err := d.next()
	if done {
		return err
	}
	if k != Map {
		return mismatch(s.typ, k)
	}
	if err := d.enter(); err != nil {
		return err
	}
	if _, err := d.src.Map(); err != nil {
		return err
	}
	for {
		key, more, err := d.src.Key()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if err := s.entry(d, v, key); err != nil {
			return err
		}
	}
	d.depth--
	return nil
}

// entry reads the value of a key.
func (s *structDecoder) entry(d *Decoder, v reflect.Value, key []byte) error {
	f := s.find(key)
	switch {
	case f != nil:
	case d.strict:
		return Errorf("unknown field %.64q", key)
	default:
		return d.skip()
	}
	target, err := settable(v, f.index)
	if err != nil {
		return err
	}
	if err := f.decode(d, target); err != nil {
		return within(err, f.name)
	}
	return nil
}

// find gives the field of a name, or of one that differs from it in its case; nil for none.
func (s *structDecoder) find(key []byte) *decodeField {
	i, ok := s.byName[string(key)]
	if !ok {
		var room [64]byte
		i, ok = s.folded[string(appendFolded(room[:0], key))]
	}
	if !ok {
		return nil
	}
	return &s.fields[i]
}

// settable gives a field, and makes the embedded structs on the way to it.
func settable(v reflect.Value, index []int) (reflect.Value, error) {
	for n, i := range index {
		if n > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				if !v.CanSet() {
					return v, errUnexported
				}
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v, nil
}

// quotedDecoder reads a field with the option "string": a text that holds its JSON, or the value as it is.
func quotedDecoder(own decodeFunc) decodeFunc {
	return func(d *Decoder, v reflect.Value) error {
		if k, err := d.src.Next(); err != nil || k != Text {
			return own(d, v)
		}
		s, err := d.src.Text()
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(s), v.Addr().Interface()); err != nil {
			return Errorf("want the JSON of %s in a string, got %.40q", v.Type(), s)
		}
		return nil
	}
}

// appendFolded appends a name to dst as it compares without regard to case.
func appendFolded(dst, name []byte) []byte {
	for i := 0; i < len(name); {
		if c := name[i]; c < utf8.RuneSelf {
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(name[i:])
		dst = utf8.AppendRune(dst, smallest(r))
		i += n
	}
	return dst
}

// smallest gives the first of the runes that differ in their case only.
func smallest(r rune) rune {
	for {
		next := unicode.SimpleFold(r)
		if next <= r {
			return next
		}
		r = next
	}
}
