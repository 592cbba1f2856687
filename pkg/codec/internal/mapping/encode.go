package mapping

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/cb02dfca/micro/pkg/codec"
)

// Encoder writes values to a Sink, one after the other. It is for one goroutine at a time.
type Encoder struct {
	types *Types
	sink  Sink
	depth int // of lists and maps
	hops  int // of pointers
}

type encodeFunc func(e *Encoder, v reflect.Value) error

// NewEncoder gives an encoder.
func NewEncoder(t *Types, s Sink) *Encoder { return &Encoder{types: t, sink: s} }

// Encode writes v. The error of what has no form in the format wraps codec.ErrUnsupported.
func (e *Encoder) Encode(v any) error {
	e.depth, e.hops = 0, 0
	if m, ok := v.(proto.Message); ok {
		return e.message(m)
	}
	if v == nil {
		return e.sink.Nil()
	}
	rv := reflect.ValueOf(v)
	return e.types.encoder(rv.Type())(e, rv)
}

func (e *Encoder) enter() error {
	if e.depth++; e.depth > MaxDepth {
		return codec.Unsupported("more than %d lists and maps inside each other, or a circle", MaxDepth)
	}
	return nil
}

func (ts *Types) encoder(t reflect.Type) encodeFunc {
	if f, ok := ts.encoders.Load(t); ok {
		return f.(encodeFunc)
	}
	return once(&ts.encoders, t, func() encodeFunc { return ts.newEncoder(t) }, func(wait func() encodeFunc) encodeFunc {
		return func(e *Encoder, v reflect.Value) error { return wait()(e, v) }
	})
}

// newEncoder finds a type's own methods in the order of encoding/json. One of the pointer is called where v has an address.
func (ts *Types) newEncoder(t reflect.Type) encodeFunc {
	switch {
	case t.Kind() == reflect.Pointer:
		return ts.pointerEncoder(t)
	case t.Kind() == reflect.Interface:
		return encodeInterface
	case t == timeType:
		return encodeTime
	case t == numberType:
		return encodeNumber
	case t.Implements(marshaler):
		return encodeMarshaler
	}
	own := ts.kindEncoder(t)
	if t.Implements(textMarshaler) {
		own = encodeText
	}
	switch p := reflect.PointerTo(t); {
	case p.Implements(marshaler):
		return byAddress(encodeMarshaler, own)
	case p.Implements(textMarshaler) && !t.Implements(textMarshaler):
		return byAddress(encodeText, own)
	}
	return own
}

func byAddress(method, own encodeFunc) encodeFunc {
	return func(e *Encoder, v reflect.Value) error {
		if v.CanAddr() {
			return method(e, v.Addr())
		}
		return own(e, v)
	}
}

func (ts *Types) kindEncoder(t reflect.Type) encodeFunc {
	switch t.Kind() {
	case reflect.Bool:
		return func(e *Encoder, v reflect.Value) error { return e.sink.Bool(v.Bool()) }
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(e *Encoder, v reflect.Value) error { return e.sink.Int(v.Int()) }
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return func(e *Encoder, v reflect.Value) error { return e.sink.Uint(v.Uint()) }
	case reflect.Float32:
		return func(e *Encoder, v reflect.Value) error { return e.sink.Float32(float32(v.Float())) }
	case reflect.Float64:
		return func(e *Encoder, v reflect.Value) error { return e.sink.Float(v.Float()) }
	case reflect.String:
		return func(e *Encoder, v reflect.Value) error { return e.sink.Text(valid(v.String())) }
	case reflect.Struct:
		return ts.structEncoder(t)
	case reflect.Map:
		return ts.mapEncoder(t)
	case reflect.Slice:
		return ts.sliceEncoder(t)
	case reflect.Array:
		return ts.listEncoder(t)
	}
	return noEncoder(t)
}

func noEncoder(t reflect.Type) encodeFunc {
	return func(*Encoder, reflect.Value) error { return codec.Unsupported("a %s has no form", t) }
}

// valid puts U+FFFD in the place of what is not UTF-8, as encoding/json does.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

func (ts *Types) pointerEncoder(t reflect.Type) encodeFunc {
	elem := ts.encoder(t.Elem())
	return func(e *Encoder, v reflect.Value) error {
		if v.IsNil() {
			return e.sink.Nil()
		}
		if e.hops++; e.hops > maxHops {
			return codec.Unsupported("more than %d pointers one after the other, or a circle", maxHops)
		}
		err := elem(e, v.Elem())
		e.hops--
		return err
	}
}

func encodeInterface(e *Encoder, v reflect.Value) error {
	if v.IsNil() {
		return e.sink.Nil()
	}
	v = v.Elem()
	return e.types.encoder(v.Type())(e, v)
}

func encodeTime(e *Encoder, v reflect.Value) error {
	if v.CanAddr() { // which costs no copy
		if t, ok := v.Addr().Interface().(*time.Time); ok {
			return e.sink.Time(*t)
		}
	}
	t, ok := v.Interface().(time.Time)
	if !ok {
		return codec.Unsupported("a %s has no form", v.Type())
	}
	return e.sink.Time(t)
}

// encodeNumber writes a number that is kept as its text.
func encodeNumber(e *Encoder, v reflect.Value) error {
	text := v.String()
	if text == "" {
		return e.sink.Int(0) // as encoding/json has it
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return e.sink.Int(n)
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		err = e.sink.Uint(n)
		if f := float64(n); errors.Is(err, codec.ErrUnsupported) && strconv.FormatFloat(f, 'f', -1, 64) == text {
			return e.sink.Float(f) // what JSON makes of a float of that size
		}
		return err
	}
	f, err := strconv.ParseFloat(text, 64)
	switch {
	case !json.Valid([]byte(text)):
		return codec.Unsupported("%.40q is not a number", text)
	case err != nil, !strings.ContainsAny(text, ".eE") && !isWhole(f, text):
		return codec.Unsupported("the number %.40s is too large", text)
	}
	return e.sink.Float(f)
}

// isWhole reports whether an integer above 64 bits is the float that it is nearest to: in full, or as that is written in JSON.
func isWhole(f float64, text string) bool {
	return strconv.FormatFloat(f, 'f', 0, 64) == text || strconv.FormatFloat(f, 'f', -1, 64) == text
}

func encodeMarshaler(e *Encoder, v reflect.Value) error {
	m, ok := v.Interface().(json.Marshaler)
	if !ok || v.Kind() == reflect.Pointer && v.IsNil() {
		return e.sink.Nil()
	}
	text, err := m.MarshalJSON()
	if err != nil {
		return fmt.Errorf("%s: %w", v.Type(), err)
	}
	if len(text) == 0 {
		return e.sink.Nil() // a json.RawMessage
	}
	return e.json(text)
}

func encodeText(e *Encoder, v reflect.Value) error {
	text, err := textOf(v)
	if err != nil {
		return err
	}
	return e.sink.Text(valid(text))
}

func textOf(v reflect.Value) (string, error) {
	m, ok := v.Interface().(encoding.TextMarshaler)
	if !ok {
		return "", codec.Unsupported("a %s has no form", v.Type())
	}
	text, err := m.MarshalText()
	if err != nil {
		return "", fmt.Errorf("%s: %w", v.Type(), err)
	}
	return string(text), nil
}

// ownForm reports whether the elements of a slice say themselves what they are. Bytes that do are no bytes.
func ownForm(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(marshaler) || p.Implements(textMarshaler)
}

func (ts *Types) sliceEncoder(t reflect.Type) encodeFunc {
	list := ts.listEncoder(t)
	if t.Elem().Kind() == reflect.Uint8 && !ownForm(t.Elem()) {
		list = func(e *Encoder, v reflect.Value) error { return e.sink.Bytes(v.Bytes()) }
	}
	return func(e *Encoder, v reflect.Value) error {
		if v.IsNil() {
			return e.sink.Nil()
		}
		return list(e, v)
	}
}

func (ts *Types) listEncoder(t reflect.Type) encodeFunc {
	elem := ts.encoder(t.Elem())
	return func(e *Encoder, v reflect.Value) error {
		if err := e.enter(); err != nil {
			return err
		}
		n := v.Len()
		if err := e.sink.List(n); err != nil {
			return err
		}
		for i := range n {
			if err := elem(e, v.Index(i)); err != nil {
				return err
			}
		}
		e.depth--
		return e.sink.EndList()
	}
}

// entry is a map's.
type entry struct {
	key   string
	value reflect.Value
}

// mapEncoder writes a map's entries in the order of their keys, so that equal maps have one encoding.
func (ts *Types) mapEncoder(t reflect.Type) encodeFunc {
	keyText := keyEncoder(t.Key())
	if keyText == nil {
		return noEncoder(t)
	}
	elem := ts.encoder(t.Elem())
	return func(e *Encoder, v reflect.Value) error {
		if v.IsNil() {
			return e.sink.Nil()
		}
		if err := e.enter(); err != nil {
			return err
		}
		entries := make([]entry, 0, v.Len())
		for iter := v.MapRange(); iter.Next(); {
			key, err := keyText(iter.Key())
			if err != nil {
				return err
			}
			entries = append(entries, entry{valid(key), iter.Value()})
		}
		slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
		if err := e.sink.Map(len(entries)); err != nil {
			return err
		}
		for i := range entries {
			if err := e.sink.Key(entries[i].key); err != nil {
				return err
			}
			if err := elem(e, entries[i].value); err != nil {
				return err
			}
		}
		e.depth--
		return e.sink.EndMap()
	}
}

// keyEncoder gives the text of a map's keys; nil for a type that has none.
func keyEncoder(t reflect.Type) func(reflect.Value) (string, error) {
	switch {
	case t.Kind() == reflect.String:
		return func(v reflect.Value) (string, error) { return v.String(), nil }
	case t.Implements(textMarshaler):
		return func(v reflect.Value) (string, error) {
			if v.Kind() == reflect.Pointer && v.IsNil() {
				return "", nil
			}
			return textOf(v)
		}
	case reflect.Int <= t.Kind() && t.Kind() <= reflect.Int64:
		return func(v reflect.Value) (string, error) { return strconv.FormatInt(v.Int(), 10), nil }
	case reflect.Uint <= t.Kind() && t.Kind() <= reflect.Uintptr:
		return func(v reflect.Value) (string, error) { return strconv.FormatUint(v.Uint(), 10), nil }
	}
	return nil
}

// json writes what a JSON text says.
func (e *Encoder) json(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	if dec.More() {
		return fmt.Errorf("it is not JSON: more data after the value, at offset %d", dec.InputOffset())
	}
	if tree == nil {
		return e.sink.Nil()
	}
	v := reflect.ValueOf(tree)
	return e.types.encoder(v.Type())(e, v)
}
