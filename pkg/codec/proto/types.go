package proto

import (
	"reflect"
	"sync/atomic"
	"unsafe"

	"google.golang.org/protobuf/proto"
)

// types has the shapes of some types, found sooner than by their descriptors: to ask a message for its descriptor, and a map for that,
// takes as long as to encode it.
type types [1 << typeBits]atomic.Pointer[typed]

// typed is the shape of a type in Go.
type typed struct {
	word  unsafe.Pointer
	shape *shape
}

// typeBits is how many bits of the hash choose a type's place.
const typeBits = 6

// golden spreads addresses (Knuth's multiplicative hashing).
const golden = 0x9E3779B97F4A7C15

// at gives the place of a type.
func (t *types) at(word unsafe.Pointer) *atomic.Pointer[typed] {
	return &t[uint64(uintptr(word))*golden>>(64-typeBits)]
}

// eface is how an empty interface lies in memory: the address of its type's description, which is never moved or used again, and its
// value, which is a pointer where the type is one.
type eface struct{ word, data unsafe.Pointer }

func words(v *any) *eface { return (*eface)(unsafe.Pointer(v)) }

// isNil reports whether v is a nil pointer, or nothing. v is a pointer.
func isNil(v any) bool { return words(&v).data == nil }

// shape gives the shape of the message v; nil where it is none.
func (c *Codec) shape(v any) *shape {
	word := words(&v).word
	if e := c.types.at(word).Load(); e != nil && e.word == word {
		return e.shape
	}
	return c.findShape(v)
}

// findShape is shape for a type that has no place.
func (c *Codec) findShape(v any) *shape {
	m, ok := v.(proto.Message)
	if !ok || v == nil {
		return nil
	}
	r := m.ProtoReflect()
	d := r.Descriptor()
	known, ok := c.shapes.Load(d)
	if !ok {
		known, _ = c.shapes.LoadOrStore(d, newShape(d))
	}
	s := known.(*shape)
	// A type that wraps messages of others has one descriptor now and another one then.
	if own := reflect.TypeOf(v); own.Kind() == reflect.Pointer && reflect.TypeOf(r.Interface()) == own {
		word := words(&v).word
		c.types.at(word).CompareAndSwap(nil, &typed{word, s}) // who comes later stays with the map: two would take it from each other for ever
	}
	return s
}
