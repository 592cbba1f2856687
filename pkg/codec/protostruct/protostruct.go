// Package protostruct is the codec of protobuf for handlers on plain Go structs: they have a message for each struct, by the rules
// below, so that callers who speak protobuf alone, as those of gRPC do, need no JSON. Protobuf messages are left to the codec
// of package proto.
//
// A struct's fields are those that encoding/json sees, numbered from 1 in the order of their declaration: a field is added at the
// end. bool, string, []byte and the kinds of floats are what they are called in protobuf; int8 to int32 are int32, int and int64
// are int64, and the unsigned ones likewise; slices are repeated, maps are maps, structs are messages, pointers to scalars are
// optional. time.Time is google.protobuf.Timestamp and time.Duration google.protobuf.Duration; what writes itself as text is a
// string; an interface, and what has a JSON of its own, is google.protobuf.Value. A list in a list, a map of lists, and a
// request that is no struct, have a message with the field "value" around them.
//
// The .proto of it is served by gRPC's reflection: transport/grpc.
package protostruct

import (
	"fmt"
	"reflect"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/cb02dfca/micro/internal/protoform"
	"github.com/cb02dfca/micro/pkg/codec"
)

// Codec encodes structs, and leaves messages to another codec. Make it with [New].
type Codec struct {
	codec.Codec // of messages
	forms       protoform.Forms
}

var _ codec.Codec = (*Codec)(nil)

// New returns the codec, which has the content type of messages, package proto's, and gives those to it. It takes that one's place in
// a server's or a client's codecs.
func New(messages codec.Codec) *Codec { return &Codec{Codec: messages} }

// Append appends v to dst; a nil pointer is an empty message. The error of what has no form in protobuf, a channel say, wraps
// [codec.ErrUnsupported].
func (c *Codec) Append(dst []byte, v any) ([]byte, error) {
	if _, ok := v.(proto.Message); ok {
		return c.Codec.Append(dst, v)
	}
	form, err := c.form(v, "encode")
	if err != nil {
		return dst, err
	}
	out, err := form.Append(dst, v)
	if err != nil {
		return dst, fmt.Errorf("codec/protostruct: encode %T: %w", v, plain(err))
	}
	return out, nil
}

// Unmarshal decodes data into what v points to, whose former content is lost unless data is empty. Fields that its type does not
// have are passed over.
func (c *Codec) Unmarshal(data []byte, v any) error {
	if _, ok := v.(proto.Message); ok {
		return c.Codec.Unmarshal(data, v)
	}
	form, err := c.form(v, "decode into")
	if err != nil {
		return err
	}
	if rv := reflect.ValueOf(v); rv.Kind() != reflect.Pointer || rv.IsNil() {
		return codec.Unsupported("codec/protostruct: decode into %T: want a pointer", v)
	}
	if len(data) == 0 {
		return nil
	}
	if err := form.Unmarshal(data, v); err != nil {
		return fmt.Errorf("codec/protostruct: decode %T: %w", v, plain(err))
	}
	return nil
}

func (c *Codec) form(v any, what string) (*protoform.Form, error) {
	if v == nil {
		return nil, codec.Unsupported("codec/protostruct: %s nil", what)
	}
	form := c.forms.Of(reflect.TypeOf(v))
	if !form.Representable() {
		return nil, codec.Unsupported("codec/protostruct: %s %T: protobuf has no such values", what, v)
	}
	return form, nil
}

// plain takes the no-break space out that package proto puts into its errors at random.
func plain(err error) error { return &wireError{err} }

type wireError struct{ error }

func (e *wireError) Error() string {
	return strings.ReplaceAll(strings.ReplaceAll(e.error.Error(), "\u00a0", " "), "proto: ", "")
}

func (e *wireError) Unwrap() error { return e.error }
