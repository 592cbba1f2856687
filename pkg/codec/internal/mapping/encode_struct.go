package mapping

import (
	"encoding/json"
	"reflect"

	"github.com/cb02dfca/micro/internal/jsonfield"
)

// structEncoder is how a struct is written.
type structEncoder struct {
	fields []encodeField
	whole  bool // no field is ever left out
}

type encodeField struct {
	name   string
	index  []int
	encode encodeFunc
	omit   func(reflect.Value) bool // nil: never
}

func (ts *Types) structEncoder(t reflect.Type) encodeFunc {
	s := structEncoder{whole: true}
	for _, f := range jsonfield.Of(t) {
		field := encodeField{name: f.Name, index: f.Index, encode: ts.encoder(f.Type), omit: omission(f)}
		if f.Quoted && !ownForm(pointedTo(f.Type)) {
			field.encode = encodeQuoted
		}
		s.whole = s.whole && field.omit == nil && !throughPointer(t, f.Index)
		s.fields = append(s.fields, field)
	}
	return s.encode
}

// pointedTo is what a pointer type of no name points to; t itself where it is no such one.
func pointedTo(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer && t.Name() == "" {
		return t.Elem()
	}
	return t
}

// throughPointer reports whether a field is reached through an embedded pointer, which may be nil.
func throughPointer(t reflect.Type, index []int) bool {
	for _, i := range index[:len(index)-1] {
		if t = t.Field(i).Type; t.Kind() == reflect.Pointer {
			return true
		}
	}
	return false
}

func (s *structEncoder) encode(e *Encoder, v reflect.Value) error {
	if err := e.enter(); err != nil {
		return err
	}
	if err := s.entries(e, v); err != nil {
		return err
	}
	e.depth--
	return e.sink.EndMap()
}

func (s *structEncoder) entries(e *Encoder, v reflect.Value) error {
	if s.whole {
		if err := e.sink.Map(len(s.fields)); err != nil {
			return err
		}
		for i := range s.fields {
			f := &s.fields[i]
			if err := f.write(e, v.FieldByIndex(f.index)); err != nil {
				return err
			}
		}
		return nil
	}
	// Which fields are written is asked once: a method IsZero might change its mind.
	var few [64]bool
	kept, n := few[:0], 0
	for i := range s.fields {
		f := &s.fields[i]
		value, ok := reach(v, f.index)
		ok = ok && (f.omit == nil || !f.omit(value))
		if kept = append(kept, ok); ok {
			n++
		}
	}
	if err := e.sink.Map(n); err != nil {
		return err
	}
	for i, ok := range kept {
		if !ok {
			continue
		}
		value, _ := reach(v, s.fields[i].index)
		if err := s.fields[i].write(e, value); err != nil {
			return err
		}
	}
	return nil
}

func (f *encodeField) write(e *Encoder, v reflect.Value) error {
	if err := e.sink.Key(f.name); err != nil {
		return err
	}
	return f.encode(e, v)
}

// reach gives a field, unless an embedded pointer on the way is nil.
func reach(v reflect.Value, index []int) (reflect.Value, bool) {
	for n, i := range index {
		if n > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return reflect.Value{}, false
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v, true
}

// encodeQuoted writes a field with the option "string": the JSON of its value, as a text.
func encodeQuoted(e *Encoder, v reflect.Value) error {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return e.sink.Nil()
		}
		v = v.Elem()
	}
	text, err := json.Marshal(v.Interface())
	if err != nil {
		return err
	}
	return e.sink.Text(string(text))
}

// omission gives when a field is left out by its options; nil for never.
func omission(f jsonfield.Field) func(reflect.Value) bool {
	zero := func(reflect.Value) bool { return false }
	if f.OmitZero {
		zero = zeroTest(f.Type)
	}
	switch {
	case f.OmitEmpty:
		return func(v reflect.Value) bool { return isEmpty(v) || zero(v) }
	case f.OmitZero:
		return zero
	}
	return nil
}

// isEmpty is what omitempty goes by.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct, reflect.Chan, reflect.Func, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128:
		return false
	}
	return v.IsZero()
}

// zeroer is a type that says itself what its zero is.
type zeroer interface{ IsZero() bool }

// zeroTest gives what omitzero goes by: the type's own method, or whether it is the zero value.
func zeroTest(t reflect.Type) func(reflect.Value) bool {
	method := reflect.TypeFor[zeroer]()
	ask := func(v reflect.Value) bool {
		if v.CanAddr() && v.Kind() != reflect.Interface && v.Kind() != reflect.Pointer {
			v = v.Addr() // which costs no copy
		}
		z, ok := v.Interface().(zeroer)
		return ok && z.IsZero()
	}
	switch {
	case t.Kind() == reflect.Interface && t.Implements(method):
		return func(v reflect.Value) bool {
			return v.IsNil() || v.Elem().Kind() == reflect.Pointer && v.Elem().IsNil() || ask(v)
		}
	case t.Kind() == reflect.Pointer && t.Implements(method):
		return func(v reflect.Value) bool { return v.IsNil() || ask(v) }
	case t.Implements(method):
		return ask
	case reflect.PointerTo(t).Implements(method):
		return func(v reflect.Value) bool {
			if !v.CanAddr() {
				held := reflect.New(t).Elem()
				held.Set(v)
				v = held
			}
			return ask(v)
		}
	}
	return reflect.Value.IsZero
}
