package proto

import (
	"slices"

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

// resetter is a message with the method of vtprotobuf's feature pool that empties it, and keeps its storage, beside those of unmarshal.
type resetter interface {
	unmarshaler

	ResetVT()
}

// appendGenerated appends the message v by its own methods. False, and dst to be used as it was, is what package proto is to encode, or to
// refuse.
func (c *Codec) appendGenerated(dst []byte, v any) ([]byte, bool) {
	g, ok := v.(marshaler)
	if !ok {
		return dst, false
	}
	s := c.shape(v)
	if s == nil || s.foreign {
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

// unmarshalGenerated decodes data into the message v by its own method. False is what package proto is to decode, or to refuse: it
// knows more of what a newer or an older version of a type may send, and tells better what is wrong.
func (c *Codec) unmarshalGenerated(data []byte, v any) bool {
	g, ok := v.(unmarshaler)
	if !ok || isNil(v) {
		return false
	}
	s := c.shape(v)
	if s == nil || s.foreign || s.message.matters && !s.message.sound(data, MaxDepth) {
		return false
	}
	if r, ok := v.(resetter); ok && s.resettable {
		r.ResetVT()
	} else {
		proto.Reset(v.(proto.Message)) // it has a shape
	}
	return g.UnmarshalVT(data) == nil
}
