// Package proto is the codec of protobuf messages in their binary form (protobuf.dev/programming-guides/encoding).
//
// A message that has the methods which vtprotobuf generates (github.com/planetscale/vtprotobuf: its features size, marshal and
// unmarshal) is written and read by these, without reflection. That changes nothing for a peer: strings of proto3 must be
// UTF-8 and messages may stand at most [MaxDepth] inside each other, which is looked at beforehand. Types that vtprotobuf
// treats otherwise than package proto, those with extensions or with enums of proto2, are left to the latter.
//
// A message that has ResetVT too, which vtprotobuf generates where its feature pool was asked for, is emptied by that before
// it is read: the storage of its bytes and lists is used again. Who reads into such a message twice must have let go of what
// the first time gave.
package proto

import (
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/cb02dfca/micro/pkg/codec"
)

const (
	// ContentType is the media type that go-micro's versions use. It is not registered with IANA.
	ContentType = "application/protobuf"
	// MaxDepth is how many messages may stand inside each other in what is read, as in other implementations.
	MaxDepth = 100
)

// Codec encodes protobuf messages. The zero value is ready. A Codec is not copied after its first use.
type Codec struct {
	shapes sync.Map // protoreflect.MessageDescriptor to *shape: those of the types that it met
	types  types    // some of them
}

var _ codec.Codec = (*Codec)(nil)

// New returns the codec.
func New() *Codec { return &Codec{} }

// ContentType is "application/protobuf".
func (*Codec) ContentType() string { return ContentType }

// Append appends the message v to dst; a nil pointer is an empty message. The error of a value that is no message wraps
// [codec.ErrUnsupported].
func (c *Codec) Append(dst []byte, v any) ([]byte, error) {
	if out, ok := c.appendGenerated(dst, v); ok {
		return out, nil
	}
	m, ok := v.(proto.Message)
	if !ok {
		return dst, codec.Unsupported("codec/proto: encode %T: want a protobuf message", v)
	}
	out, err := proto.MarshalOptions{}.MarshalAppend(dst, m)
	if err != nil {
		return dst, fmt.Errorf("codec/proto: encode %T: %w", v, clean(err))
	}
	return out, nil
}

// Unmarshal decodes data into the message v, whose former content is lost unless data is empty. Fields that the
// message's type does not know are kept in it.
func (c *Codec) Unmarshal(data []byte, v any) error {
	if len(data) > 0 && c.unmarshalGenerated(data, v) {
		return nil
	}
	m, ok := v.(proto.Message)
	if !ok || !m.ProtoReflect().IsValid() {
		return codec.Unsupported("codec/proto: decode into %T: want a pointer to a protobuf message", v)
	}
	if len(data) == 0 {
		return nil
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: MaxDepth}).Unmarshal(data, m); err != nil {
		return fmt.Errorf("codec/proto: decode %T: %w", v, clean(err))
	}
	return nil
}

// clean takes the no-break space out that package proto puts into its errors at random.
func clean(err error) error { return &wireError{err} }

type wireError struct{ error }

func (e *wireError) Error() string {
	return strings.TrimPrefix(strings.ReplaceAll(e.error.Error(), "\u00a0", " "), "proto: ")
}

func (e *wireError) Unwrap() error { return e.error }
