// Package mapping takes Go values to the tokens of a binary format and back, by the rules of encoding/json: the same types,
// the same names of fields, the same options in the tag json, so that a value is alike in every codec.
//
// What binary formats have and JSON lacks goes as it is: bytes and times. What these are in JSON, base64 and RFC 3339 in a
// text, is read as well, since a body may have begun as JSON. A type that writes its own JSON (json.Marshaler), and a protobuf
// message, go as what that JSON says; a type that writes its own text, as that text.
package mapping

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
)

// maxHops bounds the pointers that lead from one to the next, lists and maps between them included.
const maxHops = 8 * MaxDepth

// The limits of how many lists and maps may stand inside each other.
const (
	MaxDepth       = 1000 // in what is written, and read by a lenient codec
	MaxStrictDepth = 64   // in what a strict codec reads, as in that of JSON
)

// Kind is a token's.
type Kind uint8

// The kinds of tokens.
const (
	Nil Kind = iota
	Bool
	Int  // it fits an int64
	Uint // only a uint64 can hold it
	Float
	Text
	Bytes
	Time
	List
	Map
)

// String is what an error calls it.
func (k Kind) String() string {
	return [...]string{"null", "bool", "integer", "integer", "float", "string", "bytes", "time", "list", "map"}[k]
}

// Sink writes a format. A value is one token; or List, so many values, and EndList; or Map, so many times Key and a value, and
// EndMap. Texts are UTF-8. The error of what the format cannot carry wraps codec.ErrUnsupported.
type Sink interface {
	Nil() error
	Bool(v bool) error
	Int(v int64) error
	Uint(v uint64) error
	Float32(v float32) error
	Float(v float64) error
	Text(v string) error
	Bytes(v []byte) error
	Time(v time.Time) error
	List(n int) error
	EndList() error
	Map(n int) error
	Key(k string) error
	EndMap() error
}

// Source reads a format. Next tells what stands next without taking it; the method of that kind takes it. Allocations of a
// Source are in proportion to the data that is there, whatever the data declares.
type Source interface {
	Next() (Kind, error)
	Nil() error
	Bool() (bool, error)
	Int() (int64, error)
	Uint() (uint64, error)
	Float() (float64, error)
	Text() (string, error)
	// Bytes gives a copy.
	Bytes() ([]byte, error)
	Time() (time.Time, error)
	// List begins a list, and gives how many elements are to be expected: 0 where that is not known.
	List() (int, error)
	// Element goes to the next element of the innermost list; false, and the list is behind it, after the last.
	Element() (bool, error)
	// Map begins a map, and Key goes to its next value, as with lists. The key is valid until the next call.
	Map() (int, error)
	Key() (key []byte, ok bool, err error)
}

// Types knows how the Go types that it met are written and read. The zero value is ready; it may be used concurrently.
type Types struct {
	encoders sync.Map // reflect.Type to encodeFunc
	decoders sync.Map // reflect.Type to decodeFunc
}

// once makes what m lacks for t. A type that holds itself finds a function that waits until its own is there.
func once[F any](m *sync.Map, t reflect.Type, create func() F, waiting func(wait func() F) F) F {
	var made sync.WaitGroup
	var f F
	made.Add(1)
	if other, loaded := m.LoadOrStore(t, waiting(func() F { made.Wait(); return f })); loaded {
		return other.(F)
	}
	f = create()
	made.Done()
	m.Store(t, f)
	return f
}

var (
	marshaler       = reflect.TypeFor[json.Marshaler]()
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	timeType        = reflect.TypeFor[time.Time]()
	numberType      = reflect.TypeFor[json.Number]()
)

// Error is what is wrong with data that does not decode.
type Error struct {
	path   []string // the fields, from within
	reason string
	cause  error
}

// Error says in which field, and what.
func (e *Error) Error() string {
	if len(e.path) == 0 {
		return e.reason
	}
	var b strings.Builder
	for i := len(e.path) - 1; i >= 0; i-- {
		b.WriteString(e.path[i])
		if i > 0 {
			b.WriteByte('.')
		}
	}
	return fmt.Sprintf("field %q: %s", b.String(), e.reason)
}

// Unwrap gives the error of a type's own method.
func (e *Error) Unwrap() error { return e.cause }

// Errorf gives an Error with a text.
func Errorf(format string, args ...any) error { return &Error{reason: fmt.Sprintf(format, args...)} }

// within says in which field an error was met. One that is no *Error passes as it is: it is about the type, not the data.
func within(err error, field string) error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // made by this package, and not wrapped
		e.path = append(e.path, field)
	}
	return err
}
