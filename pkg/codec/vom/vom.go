// Package vom is the codec of VOM, Vanadium's self-describing binary encoding of the types of VDL.
//
// A body is what the reference's functions Encode and Decode (v.io/v23/vom) write and read: version 0x81, one value, and before
// it the definitions of the types that it needs. Sources: the VOM specification
// (https://vanadium.github.io/designdocs/vom-spec.html) for the kinds, numbers and definitions, the VDL specification
// (https://vanadium.github.io/designdocs/vdl-spec.html) for what is a type, and for version 0x81, which the specification
// lacks, what the reference of October 2024 writes and takes (github.com/vanadium/core, v23/vom).
//
// # Go values
//
//	bool, string, intN, uintN, floatN    the same; uint8 is byte; int, uint and uintptr have 64 bits
//	[]T, [N]T                            list, array; []byte is raw bytes
//	map[K]struct{}, map[K]V              set, map
//	struct                               struct: exported fields by their Go names; tags are not read
//	*S, where S is a named struct        optional
//	*T, where T is anything else         T; nil is its zero value
//	any, and other interfaces            any
//	error, and types with that method    Vanadium's error type; see [WireError]
//	time.Time, time.Duration             structs of seconds and nanoseconds; a time is read back in UTC
//	complex64, complex128                structs of two parts
//
// Fields with a zero value are not sent. A type that has IsZero() bool is asked, as by the reference. Channels, functions,
// arrays of length zero, structs that have fields but none exported, and keys that hold pointers, lists, maps or any have no
// form in VOM.
//
// A named type goes by its import path and name, "example.com/shop.Item". A method tells another name:
//
//	func (Item) VDLReflect(struct{ Name string `vdl:"v.io/x/shop.Item"` }) {}
//
// An integer type is an enum where that method says so, and an interface type that has the method is a union, in the form that
// Vanadium's generator writes; the structs of a union have one field, Value:
//
//	func (Color) VDLReflect(struct {
//		Name string `vdl:"v.io/x/shop.Color"`
//		Enum struct{ Red, Green string }
//	}) {}
//
//	func (ShapeCircle) VDLReflect(struct {
//		Name  string `vdl:"v.io/x/shop.Shape"`
//		Type  Shape
//		Union struct{ Circle ShapeCircle; Box ShapeBox }
//	}) {}
//
// # Reading
//
// Types need not be the same, only alike. Numbers convert where nothing is lost, though a float64 is rounded to a float32;
// structs go by the names of their fields, of which one must be known to both sides, if both have any; a list is read into an
// array of its length, a string into an enum and back, a struct or union into map[string]any. Empty lists and maps are read as nil,
// and so is a union that was not sent. An optional that is nil is read into pointers and interfaces only.
//
// A variable of type any gets bool, numbers and strings as they are, an enum as a string, a struct as map[string]any, a union
// as the same with one entry, lists and arrays as []T and maps as map[K]T, where T is any unless it is one of the former.
// Sets are map[K]struct{}. Sets and maps whose keys are arrays, structs or unions are []any: of keys, of []any{key, element}.
// Nothing in there is nil but an any or optional that is. A type of VDL is its text, "map[string]int32". Times, durations, complex
// numbers and errors are time.Time, time.Duration, complex64, complex128 and *WireError.
package vom

import (
	"reflect"
	"sync"

	"github.com/cb02dfca/micro/pkg/codec"
)

// ContentType is the media type of a VOM body. It is not registered with IANA, and Vanadium has none.
const ContentType = "application/vom"

// The limits of what is read. What is written keeps to MaxDepth and maxLength as well.
const (
	// MaxDepth is how many lists, arrays, sets, maps, structs and unions may stand inside each other.
	MaxDepth = 128
	// MaxTypes is how many types a body may define.
	MaxTypes = 4096
	// MaxTypeBytes is how many bytes their definitions may have together.
	MaxTypeBytes = 256 << 10
	// MaxMemory is how many bytes of memory a body may take for each byte that it has, above BaseMemory. It bounds what a few
	// bytes stand for: an empty struct is one byte, an absent field none. What is read into any counts fourfold.
	MaxMemory = 256
	// BaseMemory is how many bytes of memory any body may take.
	BaseMemory = 8 << 20

	// maxLength is the reference's limit of a length or count.
	maxLength = 1 << 30
)

// version is the first byte of a body.
const version = 0x81

// Codec encodes VOM. It keeps what it has learnt of Go types, and of the definitions that bodies begin with. The zero value is
// ready. A Codec is not copied after its first use.
type Codec struct {
	known    sync.Map // reflect.Type to *goType
	building sync.Mutex
	wires    map[string][]*wireType // by kind, name and number of parts; under building
	encoders sync.Pool              // of *encoder
	sections sections
}

var _ codec.Codec = (*Codec)(nil)

// New returns the codec.
func New() *Codec { return &Codec{} }

// ContentType is "application/vom".
func (*Codec) ContentType() string { return ContentType }

// Append appends v's body to dst. A nil v, or a nil pointer to anything but a named struct, is the nil of any. The error of a
// value that has no VOM form wraps [codec.ErrUnsupported].
func (c *Codec) Append(dst []byte, v any) ([]byte, error) {
	e, ok := c.encoders.Get().(*encoder)
	if !ok {
		e = &encoder{codec: c}
	}
	out, err := e.body(dst, reflect.ValueOf(v))
	e.reset()
	c.encoders.Put(e)
	if err != nil {
		return dst, codec.Unsupported("codec/vom: encode %T: %w", v, err)
	}
	return out, nil
}

// Unmarshal decodes data into v, a pointer; what v held before is lost, unexported fields excepted. Bytes after the value are
// not looked at, as by the reference. After an error, which is an [*Error] unless it wraps [codec.ErrUnsupported], v may hold a
// part.
func (c *Codec) Unmarshal(data []byte, v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return codec.Unsupported("codec/vom: decode into %T: want a pointer", v)
	}
	rv = rv.Elem()
	t, err := c.typeOf(rv.Type())
	if err != nil {
		return codec.Unsupported("codec/vom: decode into %T: %w", v, err)
	}
	if len(data) == 0 {
		return nil
	}
	r := reader{codec: c, data: data, memory: BaseMemory + MaxMemory*int64(len(data))}
	return r.body(t, rv)
}
