package vom

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Error is what is wrong with data that does not decode.
type Error struct {
	// Offset counts the bytes of the data up to the fault.
	Offset int
	// Type is the VDL type that was being read, or "" outside of values: "[]int64", "example.com/shop.Item".
	Type string
	// Field leads to the field that does not fit the Go type, "User.Name", where the fault is in one.
	Field string

	reason string
}

// Error says where, and what.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "codec/vom: at offset %d: ", e.Offset)
	if e.Type != "" {
		b.WriteString(e.Type + ": ")
	}
	if e.Field != "" {
		fmt.Fprintf(&b, "field %s: ", e.Field)
	}
	return b.String() + e.reason
}

// reader reads a body. It is for one.
type reader struct {
	codec *Codec
	data  []byte // up to the end of the message
	pos   int

	section *section
	table   []*wireType // the types of the anys
	anys    uint64      // the number of anys that have a length
	depth   int
	memory  int64 // how much may still be taken
	raw     bool  // the next number is a raw byte
}

// failAt is an error at an offset. t may be nil.
func failAt(offset int, t *wireType, format string, args ...any) error {
	e := &Error{Offset: offset, reason: fmt.Sprintf(format, args...)}
	if t != nil {
		e.Type = t.String()
	}
	return e
}

func (r *reader) fail(t *wireType, format string, args ...any) error {
	return failAt(r.pos, t, format, args...)
}

// left is how many bytes have not been read.
func (r *reader) left() int { return len(r.data) - r.pos }

// peek gives the next byte.
func (r *reader) peek(t *wireType) (byte, error) {
	if r.pos >= len(r.data) {
		return 0, r.fail(t, "the data end here")
	}
	return r.data[r.pos], nil
}

// uint reads a number; of a value of type t, or nil.
func (r *reader) uint(t *wireType) (uint64, error) {
	if r.pos < len(r.data) && r.data[r.pos] < 0x80 {
		r.pos++
		return uint64(r.data[r.pos-1]), nil
	}
	return r.longUint(t)
}

func (r *reader) longUint(t *wireType) (uint64, error) {
	b, err := r.peek(t)
	if err != nil {
		return 0, err
	}
	size := 256 - int(b)
	switch {
	case b == ctrlNil:
		return 0, r.fail(t, "nil where a value belongs")
	case b == ctrlEnd:
		return 0, r.fail(t, "the end of a struct where a value belongs")
	case b < 0xf0:
		return 0, r.fail(t, "control byte %#x where a value belongs", b)
	case size > 8:
		return 0, r.fail(t, "a number of %d bytes", size)
	case size >= r.left():
		return 0, r.fail(t, "a number of %d bytes, of which %d follow", size, r.left()-1)
	}
	var n uint64
	for _, b := range r.data[r.pos+1 : r.pos+1+size] {
		n = n<<8 | uint64(b)
	}
	r.pos += 1 + size
	return n, nil
}

func unzigzag(n uint64) int64 { return int64(n>>1) ^ -int64(n&1) }

// length reads the length of a text or message in bytes, or the count of what takes a byte each at least. All of it is there.
func (r *reader) length(t *wireType, what string) (int, error) {
	start := r.pos
	n, err := r.uint(t)
	switch {
	case err != nil:
		return 0, err
	case n > maxLength:
		return 0, failAt(start, t, "%s of %d, the limit is %d", what, n, maxLength)
	case n > uint64(r.left()):
		return 0, failAt(start, t, "%s of %d, and only %d bytes follow", what, n, r.left())
	}
	return int(n), nil
}

// take reads n bytes, which are there. They are the data's own.
func (r *reader) take(n int) []byte {
	b := r.data[r.pos : r.pos+n]
	r.pos += n
	return b
}

// text reads a string's bytes. They are the data's own.
func (r *reader) text(t *wireType) ([]byte, error) {
	n, err := r.length(t, "length")
	if err != nil {
		return nil, err
	}
	return r.take(n), nil
}

// skipNil reads a nil if there is one.
func (r *reader) skipNil() bool {
	if r.pos < len(r.data) && r.data[r.pos] == ctrlNil {
		r.pos++
		return true
	}
	return false
}

// end reads the end of a struct, if it is there.
func (r *reader) end(t *wireType) (bool, error) {
	b, err := r.peek(t)
	if err != nil || b != ctrlEnd {
		return false, err
	}
	r.pos++
	return true, nil
}

// spend accounts for memory that is about to be taken for n parts of a size.
func (r *reader) spend(t *wireType, n int, size uintptr) error {
	if s := int64(size); s > 0 && int64(n) > r.memory/s {
		return r.fail(t, "it takes more memory than %d bytes and %d for each byte of the data", BaseMemory, MaxMemory)
	}
	r.memory -= int64(n) * int64(size)
	return nil
}

// enter begins a value inside others. Whoever calls it takes one off depth again.
func (r *reader) enter(t *wireType) error {
	if r.depth++; r.depth > MaxDepth {
		return r.fail(t, "more than %d values inside each other", MaxDepth)
	}
	return nil
}

// begin reads how a list, array, set or map begins, and enters it. It gives the number of its elements, each of which takes
// bytes that are there.
func (r *reader) begin(t *wireType) (int, error) {
	if err := r.enter(t); err != nil {
		return 0, err
	}
	if t.kind != kindArray {
		n, err := r.length(t, "count")
		if err == nil && t.kind == kindMap && n > r.left()/2 {
			return 0, r.fail(t, "count of %d, and only %d bytes follow", n, r.left())
		}
		return n, err
	}
	b, err := r.peek(t)
	switch {
	case err != nil:
		return 0, err
	case b != 0:
		return 0, r.fail(t, "an array begins with %#x, and not with 0", b)
	case t.size >= r.left():
		return 0, r.fail(t, "array of %d, and only %d bytes follow", t.size, r.left()-1)
	}
	r.pos++
	return t.size, nil
}

// number is a number as it was read. Which of u, i and f holds it is told by class.
type number struct {
	class byte // 'u', 'i' or 'f'
	u     uint64
	i     int64
	f     float64
}

// number reads a value of a number's type, and holds it to that.
func (r *reader) number(t *wireType) (number, error) {
	start := r.pos
	if r.raw {
		r.raw = false
		return number{class: 'u', u: uint64(r.take(1)[0])}, nil
	}
	if t.kind == kindFloat32 || t.kind == kindFloat64 {
		f, err := r.float(t)
		return number{class: 'f', f: f}, err
	}
	n, err := r.uint(t)
	if err != nil {
		return number{}, err
	}
	size := t.kind.bits()
	if t.kind < kindInt8 {
		if n>>1>>(size-1) != 0 {
			return number{}, failAt(start, t, "%d is out of range", n)
		}
		return number{class: 'u', u: n}, nil
	}
	i := unzigzag(n)
	if i>>(size-1) != i>>63 {
		return number{}, failAt(start, t, "%d is out of range", i)
	}
	return number{class: 'i', i: i}, nil
}

// bits is the size of an integer.
func (k kind) bits() int {
	switch k {
	case kindByte, kindInt8:
		return 8
	case kindUint16, kindInt16:
		return 16
	case kindUint32, kindInt32:
		return 32
	}
	return 64
}

func (r *reader) float(t *wireType) (float64, error) {
	start := r.pos
	n, err := r.uint(t)
	if err != nil {
		return 0, err
	}
	f := math.Float64frombits(bits.ReverseBytes64(n))
	if t.kind == kindFloat32 {
		if tooLarge(f) {
			return 0, failAt(start, t, "%g is out of range", f)
		}
		f = float64(float32(f))
	}
	return f, nil
}

// tooLarge reports whether f would be infinite as a float32, and is not.
func tooLarge(f float64) bool {
	return math.IsInf(float64(float32(f)), 0) && !math.IsInf(f, 0)
}

func (r *reader) bool(t *wireType) (bool, error) {
	b, err := r.peek(t)
	switch {
	case err != nil:
		return false, err
	case b > 1:
		return false, r.fail(t, "%#x is neither 0 nor 1", b)
	}
	r.pos++
	return b == 1, nil
}

// index reads the index of a field, label or type, of which there are n.
func (r *reader) index(t *wireType, n int, what string) (int, error) {
	start := r.pos
	i, err := r.uint(t)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, failAt(start, t, "%s %d, there are none", what, i)
	}
	if i >= uint64(n) {
		return 0, failAt(start, t, "%s %d, they go up to %d", what, i, n-1)
	}
	return int(i), nil
}

// any reads how a value of type any begins, and gives its type; nil for nil. An any that an any holds is that.
func (r *reader) any() (*wireType, error) {
	for {
		if r.skipNil() {
			return nil, nil
		}
		i, err := r.index(anyType, len(r.table), "type")
		if err != nil {
			return nil, err
		}
		start := r.pos
		n, err := r.uint(anyType)
		switch {
		case err != nil:
			return nil, err
		case n >= r.anys:
			return nil, failAt(start, anyType, "any %d, there are %d", n, r.anys)
		case r.table[i].kind != kindAny:
			return r.table[i], nil
		}
	}
}

// skip reads a value that nobody wants.
func (r *reader) skip(t *wireType) error {
	switch t.kind {
	case kindBool:
		_, err := r.bool(t)
		return err
	case kindString:
		_, err := r.text(t)
		return err
	case kindEnum:
		_, err := r.index(t, len(t.labels), "label")
		return err
	case kindTypeObject:
		_, err := r.index(t, len(r.table), "type")
		return err
	case kindOptional:
		if r.skipNil() {
			return nil
		}
		return r.skip(t.elem)
	case kindArray, kindList, kindSet, kindMap:
		return r.skipParts(t)
	case kindAny:
		inner, err := r.any()
		if err != nil || inner == nil {
			return err
		}
		return r.skip(inner)
	case kindStruct, kindUnion:
		return r.skipFields(t)
	}
	_, err := r.number(t)
	return err
}

func (r *reader) skipParts(t *wireType) error {
	n, err := r.begin(t)
	if err != nil {
		return err
	}
	if t.bytes() {
		r.take(n)
		n = 0
	}
	for range n {
		if t.key != nil {
			if err := r.skip(t.key); err != nil {
				return err
			}
		}
		if t.elem != nil {
			if err := r.skip(t.elem); err != nil {
				return err
			}
		}
	}
	r.depth--
	return nil
}

func (r *reader) skipFields(t *wireType) error {
	if err := r.enter(t); err != nil {
		return err
	}
	for {
		if t.kind == kindStruct {
			if done, err := r.end(t); err != nil || done {
				r.depth--
				return err
			}
		}
		i, err := r.index(t, len(t.fields), "field")
		if err != nil {
			return err
		}
		if err := r.skip(t.fields[i].typ); err != nil {
			return err
		}
		if t.kind == kindUnion {
			r.depth--
			return nil
		}
	}
}
