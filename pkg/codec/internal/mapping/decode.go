package mapping

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/cb02dfca/micro/pkg/codec"
)

// maxExpected is how much room is made for elements that have not come yet.
const maxExpected = 16

// Decoder reads values from a Source, one after the other. It is for one goroutine at a time.
type Decoder struct {
	types  *Types
	src    Source
	strict bool
	depth  int // of lists and maps
	hops   int // of pointers
}

type decodeFunc func(d *Decoder, v reflect.Value) error

// NewDecoder gives a decoder. A strict one refuses fields that a struct does not have, and nesting deeper than
// MaxStrictDepth.
func NewDecoder(t *Types, s Source, strict bool) *Decoder {
	return &Decoder{types: t, src: s, strict: strict}
}

// Decode reads into v, a pointer. The error of another, and of a type that cannot be read into, wraps codec.ErrUnsupported; that
// of data that does not fit is an *Error, or the Source's.
func (d *Decoder) Decode(v any) error {
	d.depth, d.hops = 0, 0
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return codec.Unsupported("want a pointer")
	}
	if m, ok := v.(proto.Message); ok {
		return d.message(m)
	}
	return d.types.decoder(rv.Type().Elem())(d, rv.Elem())
}

func (d *Decoder) enter() error {
	limit := MaxDepth
	if d.strict {
		limit = MaxStrictDepth
	}
	if d.depth++; d.depth > limit {
		return Errorf("more than %d lists and maps inside each other", limit)
	}
	return nil
}

func (ts *Types) decoder(t reflect.Type) decodeFunc {
	if f, ok := ts.decoders.Load(t); ok {
		return f.(decodeFunc)
	}
	return once(&ts.decoders, t, func() decodeFunc { return ts.newDecoder(t) }, func(wait func() decodeFunc) decodeFunc {
		return func(d *Decoder, v reflect.Value) error { return wait()(d, v) }
	})
}

func (ts *Types) newDecoder(t reflect.Type) decodeFunc {
	switch p := reflect.PointerTo(t); {
	case t.Kind() == reflect.Pointer:
		return ts.pointerDecoder(t)
	case t == timeType:
		return decodeTime
	case t == numberType:
		return decodeNumber
	case p.Implements(unmarshaler):
		return decodeUnmarshaler
	case p.Implements(textUnmarshaler):
		return decodeText
	}
	switch t.Kind() {
	case reflect.Bool:
		return decodeBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return decodeInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return decodeUint
	case reflect.Float32, reflect.Float64:
		return decodeFloat
	case reflect.String:
		return decodeString
	case reflect.Struct:
		return ts.structDecoder(t)
	case reflect.Map:
		return ts.mapDecoder(t)
	case reflect.Slice:
		return ts.sliceDecoder(t)
	case reflect.Array:
		return ts.arrayDecoder(t)
	case reflect.Interface:
		return decodeInterface
	}
	return noDecoder(t)
}

func noDecoder(t reflect.Type) decodeFunc {
	return func(*Decoder, reflect.Value) error { return codec.Unsupported("nothing can be read into a %s", t) }
}

func mismatch(t reflect.Type, k Kind) error { return Errorf("want %s, got %s", t, k) }

// next gives the kind of the next token. A null, which leaves most values as they are, is taken: done is true then.
func (d *Decoder) next() (k Kind, done bool, err error) {
	k, err = d.src.Next()
	if err == nil && k == Nil {
		return k, true, d.src.Nil()
	}
	return k, err != nil, err
}

func decodeBool(d *Decoder, v reflect.Value) error {
	k, done, err := d.next()
	if done {
		return err
	}
	if k != Bool {
		return mismatch(v.Type(), k)
	}
	b, err := d.src.Bool()
	if err == nil {
		v.SetBool(b)
	}
	return err
}

func decodeInt(d *Decoder, v reflect.Value) error {
	k, done, err := d.next()
	if done {
		return err
	}
	n, f := int64(0), 0.0
	switch k {
	case Int:
		n, err = d.src.Int()
	case Float: // what languages with one kind of number write
		if f, err = d.src.Float(); err == nil {
			if !(f >= -1<<63 && f < 1<<63) || f != math.Trunc(f) {
				return Errorf("want %s, got %v", v.Type(), f)
			}
			n = int64(f)
		}
	case Uint:
		return Errorf("want %s, got an integer above %d", v.Type(), math.MaxInt64)
	default:
		return mismatch(v.Type(), k)
	}
	if err == nil && v.OverflowInt(n) {
		return Errorf("want %s, got %d", v.Type(), n)
	}
	v.SetInt(n)
	return err
}

func decodeUint(d *Decoder, v reflect.Value) error {
	k, done, err := d.next()
	if done {
		return err
	}
	n, signed, f := uint64(0), int64(0), 0.0
	switch k {
	case Int:
		if signed, err = d.src.Int(); signed < 0 {
			return Errorf("want %s, got %d", v.Type(), signed)
		}
		n = uint64(signed)
	case Uint:
		n, err = d.src.Uint()
	case Float:
		if f, err = d.src.Float(); err == nil {
			if !(f >= 0 && f < 1<<64) || f != math.Trunc(f) {
				return Errorf("want %s, got %v", v.Type(), f)
			}
			n = uint64(f)
		}
	default:
		return mismatch(v.Type(), k)
	}
	if err == nil && v.OverflowUint(n) {
		return Errorf("want %s, got %d", v.Type(), n)
	}
	v.SetUint(n)
	return err
}

func decodeFloat(d *Decoder, v reflect.Value) error {
	k, done, err := d.next()
	if done {
		return err
	}
	f, n, u := 0.0, int64(0), uint64(0)
	switch k {
	case Float:
		f, err = d.src.Float()
	case Int:
		n, err = d.src.Int()
		f = float64(n)
	case Uint:
		u, err = d.src.Uint()
		f = float64(u)
	default:
		return mismatch(v.Type(), k)
	}
	if err == nil && v.OverflowFloat(f) {
		return Errorf("want %s, got %v", v.Type(), f)
	}
	v.SetFloat(f)
	return err
}

func decodeString(d *Decoder, v reflect.Value) error {
	k, done, err := d.next()
	if done {
		return err
	}
	switch k {
	case Text:
		s, err := d.src.Text()
		if err == nil {
			v.SetString(s)
		}
		return err
	case Bytes: // there are encoders that write strings so
		data, err := d.src.Bytes()
		if err == nil && !utf8.Valid(data) {
			return Errorf("want %s, got bytes that are not UTF-8", v.Type())
		}
		if err == nil {
			v.SetString(string(data))
		}
		return err
	default:
		return mismatch(v.Type(), k)
	}
}

func decodeTime(d *Decoder, v reflect.Value) error {
	k, done, err := d.next()
	if done {
		return err
	}
	t, s := time.Time{}, ""
	switch k {
	case Time:
		t, err = d.src.Time()
	case Text: // its JSON form
		if s, err = d.src.Text(); err == nil {
			if perr := t.UnmarshalText([]byte(s)); perr != nil {
				return Errorf("want a time as of RFC 3339, got %.40q", s)
			}
		}
	default:
		return mismatch(v.Type(), k)
	}
	if err == nil {
		v.Set(reflect.ValueOf(t))
	}
	return err
}

// decodeNumber reads a number that is kept as its text.
func decodeNumber(d *Decoder, v reflect.Value) error {
	k, done, err := d.next()
	if done {
		return err
	}
	text := ""
	switch k {
	case Int, Uint, Float:
		var n any
		if n, err = d.scalar(k); err == nil {
			text, err = jsonText(n)
		}
	case Text:
		if text, err = d.src.Text(); err == nil {
			if _, perr := strconv.ParseFloat(text, 64); !json.Valid([]byte(text)) || perr != nil {
				return Errorf("want a number, got %.40q", text)
			}
		}
	default:
		return mismatch(v.Type(), k)
	}
	if err == nil {
		v.SetString(text)
	}
	return err
}

// decodeUnmarshaler gives a type that reads its own JSON what it would get from a JSON codec.
func decodeUnmarshaler(d *Decoder, v reflect.Value) error {
	u, ok := v.Addr().Interface().(json.Unmarshaler)
	if !ok {
		return codec.Unsupported("nothing can be read into a %s", v.Type())
	}
	text, err := d.jsonForm()
	if err != nil {
		return err
	}
	if err := u.UnmarshalJSON([]byte(text)); err != nil {
		return &Error{reason: fmt.Sprintf("%s: %v", v.Type(), err), cause: err}
	}
	return nil
}

func decodeText(d *Decoder, v reflect.Value) error {
	k, done, err := d.next()
	if done {
		return err
	}
	if k != Text {
		return mismatch(v.Type(), k)
	}
	s, err := d.src.Text()
	if err != nil {
		return err
	}
	return readText(v, s)
}

func readText(v reflect.Value, s string) error {
	u, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	if !ok {
		return codec.Unsupported("nothing can be read into a %s", v.Type())
	}
	if err := u.UnmarshalText([]byte(s)); err != nil {
		return &Error{reason: fmt.Sprintf("%s: %v", v.Type(), err), cause: err}
	}
	return nil
}

func (ts *Types) pointerDecoder(t reflect.Type) decodeFunc {
	elem := ts.decoder(t.Elem())
	return func(d *Decoder, v reflect.Value) error {
		k, err := d.src.Next()
		if err != nil {
			return err
		}
		if k == Nil {
			v.SetZero()
			return d.src.Nil()
		}
		if v.IsNil() {
			v.Set(reflect.New(t.Elem()))
		}
		return d.follow(elem, v)
	}
}

// follow reads into what a pointer points to. Types and values may lead round in a circle.
func (d *Decoder) follow(elem decodeFunc, pointer reflect.Value) error {
	if d.hops++; d.hops > maxHops {
		return codec.Unsupported("more than %d pointers one after the other, or a circle", maxHops)
	}
	err := elem(d, pointer.Elem())
	d.hops--
	return err
}

// decodeInterface reads into the pointer that an interface holds, or puts into an empty one what the data says.
func decodeInterface(d *Decoder, v reflect.Value) error {
	k, err := d.src.Next()
	if err != nil {
		return err
	}
	if held := v.Elem(); held.Kind() == reflect.Pointer && !held.IsNil() && (k != Nil || held.Elem().Kind() == reflect.Pointer) {
		return d.follow(d.types.decoder(held.Type().Elem()), held)
	}
	if k == Nil {
		v.SetZero()
		return d.src.Nil()
	}
	if v.NumMethod() > 0 {
		return mismatch(v.Type(), k)
	}
	value, err := d.any()
	if err == nil {
		v.Set(reflect.ValueOf(&value).Elem())
	}
	return err
}

// any reads what comes next: nil, bool, int64, uint64 (above the largest int64), float64, string, []byte, time.Time, []any or
// map[string]any.
func (d *Decoder) any() (any, error) {
	k, err := d.src.Next()
	if err != nil {
		return nil, err
	}
	switch k {
	case List:
		return d.anyList()
	case Map:
		return d.anyMap()
	}
	return d.scalar(k)
}

func (d *Decoder) scalar(k Kind) (any, error) {
	switch k {
	case Bool:
		return d.src.Bool()
	case Int:
		return d.src.Int()
	case Uint:
		return d.src.Uint()
	case Float:
		return d.src.Float()
	case Text:
		return d.src.Text()
	case Bytes:
		return d.src.Bytes()
	case Time:
		return d.src.Time()
	}
	return nil, d.src.Nil()
}

func (d *Decoder) anyList() (any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	n, err := d.src.List()
	if err != nil {
		return nil, err
	}
	list := make([]any, 0, min(n, maxExpected))
	for {
		more, err := d.src.Element()
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		value, err := d.any()
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	d.depth--
	return list, nil
}

func (d *Decoder) anyMap() (any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	n, err := d.src.Map()
	if err != nil {
		return nil, err
	}
	m := make(map[string]any, min(n, maxExpected))
	for {
		key, more, err := d.src.Key()
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		name := string(key)
		if m[name], err = d.any(); err != nil {
			return nil, err
		}
	}
	d.depth--
	return m, nil
}

// skip reads what comes next, and drops it.
func (d *Decoder) skip() error {
	k, err := d.src.Next()
	if err != nil {
		return err
	}
	if k != List && k != Map {
		_, err := d.scalar(k)
		return err
	}
	if err := d.enter(); err != nil {
		return err
	}
	if k == Map {
		_, err = d.src.Map()
	} else {
		_, err = d.src.List()
	}
	for more := err == nil; more; {
		if k == Map {
			_, more, err = d.src.Key()
		} else {
			more, err = d.src.Element()
		}
		if more && err == nil {
			err = d.skip()
		}
		more = more && err == nil
	}
	d.depth--
	return err
}

func fromBase64(s string) ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, Errorf("want bytes, or a string of base64, got %.40q", s)
	}
	return data, nil
}
