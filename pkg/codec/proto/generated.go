package proto

import (
	"reflect"
	"slices"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
)

// marshaler is a message with the methods of vtprotobuf's features size and marshal.
type marshaler interface {
	SizeVT() int
	MarshalToSizedBufferVT(data []byte) (int, error)
}

// unmarshaler is a message with the method of vtprotobuf's feature unmarshal, which merges data into the message. It bounds
// no nesting, and looks at no string.
type unmarshaler interface {
	UnmarshalVT(data []byte) error
}

// resetter is a message with the method of vtprotobuf's feature pool that empties it, and keeps its storage.
type resetter interface {
	ResetVT()
}

// appendGenerated appends m by its own methods. False, and dst to be used as it was, is a message that package proto is to
// encode, or to refuse.
func (c *Codec) appendGenerated(dst []byte, m proto.Message, g marshaler) ([]byte, bool) {
	s := c.shape(m)
	if s.foreign {
		return dst, false
	}
	size := g.SizeVT()
	out := slices.Grow(dst, size)[:len(dst)+size]
	if n, err := g.MarshalToSizedBufferVT(out[len(dst):]); err != nil || n != size {
		return dst, false
	}
	if s.texts && !s.message.sound(out[len(dst):], MaxDepth) {
		return dst, false
	}
	return out, true
}

// unmarshalGenerated decodes data into m by its own method. False is data that package proto is to decode, or to refuse: it
// knows more of what a newer or an older version of a type may send, and tells better what is wrong.
func (c *Codec) unmarshalGenerated(data []byte, m proto.Message, g unmarshaler) bool {
	s := c.shape(m)
	if s.foreign || s.message.matters && !s.message.sound(data, MaxDepth) {
		return false
	}
	if r, ok := g.(resetter); ok && s.resettable {
		r.ResetVT()
	} else {
		proto.Reset(m)
	}
	return g.UnmarshalVT(data) == nil
}

// shape gives the shape of m's type.
func (c *Codec) shape(m proto.Message) *shape {
	d := m.ProtoReflect().Descriptor()
	// Generated messages have a pointer for a descriptor: a better key than an interface, which a map has to hash.
	var place *atomic.Pointer[described]
	if v := reflect.ValueOf(d); v.Kind() == reflect.Pointer {
		place = &c.first[uint64(v.Pointer())*golden>>(64-firstBits)]
		if e := place.Load(); e != nil && e.descriptor == d {
			return e.shape
		}
	}
	known, ok := c.shapes.Load(d)
	if !ok {
		known, _ = c.shapes.LoadOrStore(d, newShape(d))
	}
	s := known.(*shape)
	if place != nil {
		place.CompareAndSwap(nil, &described{d, s}) // who comes later stays with the map: two would take it from each other for ever
	}
	return s
}
