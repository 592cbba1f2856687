// Package json is the codec of JSON, RFC 8259: Go values by encoding/json, protobuf messages by protojson.
//
// Protobuf messages are written in protojson's default form: lowerCamelCase names, 64-bit integers as strings, enums by
// name, zero values left out. They are read in every form in use: 64-bit integers as numbers or strings, enums by name
// or number, names as in the .proto or in lowerCamelCase. A [encoding/json.RawMessage] passes as it is, once it was
// found to be JSON.
package json

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cb02dfca/micro/pkg/codec"
)

const (
	// ContentType is the media type of JSON.
	ContentType = "application/json"
	// MaxDepth is how many arrays and objects may stand inside each other in what a [Strict] codec reads.
	MaxDepth = 64
	// maxMessageDepth is how deep protobuf messages may stand inside each other in what a lenient codec reads.
	maxMessageDepth = 100
)

// Codec encodes JSON.
type Codec struct {
	strict   bool
	encoders sync.Pool // of *encoder
	decoders sync.Pool // of *decoder
}

var _ codec.Codec = (*Codec)(nil)

// New returns a codec that ignores fields it does not know: for readers of replies, whose servers may be newer.
func New() *Codec { return &Codec{} }

// Strict returns a codec that refuses fields it does not know, and nesting deeper than [MaxDepth]: for servers, whose
// callers shall learn of their mistakes.
func Strict() *Codec { return &Codec{strict: true} }

// ContentType is "application/json".
func (*Codec) ContentType() string { return ContentType }

// Append appends v's JSON to dst, without a newline, and without encoding/json's escapes for HTML. The error of a value
// that has no JSON form, such as a channel or NaN, wraps [codec.ErrUnsupported].
func (c *Codec) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case json.RawMessage:
		return appendRaw(dst, v)
	case *json.RawMessage:
		if v != nil {
			return appendRaw(dst, *v)
		}
	case proto.Message:
		out, err := protojson.MarshalOptions{}.MarshalAppend(dst, v)
		if err != nil {
			return dst, fmt.Errorf("codec/json: encode %T: %w", v, &plain{err})
		}
		return out, nil
	}
	return c.appendValue(dst, v)
}

func appendRaw(dst []byte, raw json.RawMessage) ([]byte, error) {
	if len(raw) == 0 {
		return append(dst, "null"...), nil
	}
	if !json.Valid(raw) {
		return dst, fault(raw)
	}
	return append(dst, raw...), nil
}

// fault tells what is wrong with data that is no JSON.
func fault(data []byte) error { return describe(json.Unmarshal(data, new(skip))) }

// skip is a value that takes any JSON and keeps nothing.
type skip struct{}

func (*skip) UnmarshalJSON([]byte) error { return nil }

// encoder is an encoding/json encoder that appends to a slice. One is used again and again, as it costs two
// allocations to make.
type encoder struct {
	*json.Encoder
	dst []byte
}

func (e *encoder) Write(p []byte) (int, error) {
	e.dst = append(e.dst, p...)
	return len(p), nil
}

func (c *Codec) appendValue(dst []byte, v any) ([]byte, error) {
	e, ok := c.encoders.Get().(*encoder)
	if !ok {
		e = new(encoder)
		e.Encoder = json.NewEncoder(e)
		e.SetEscapeHTML(false)
	}
	e.dst = dst
	err := e.Encode(v)
	out := e.dst
	e.dst = nil
	c.encoders.Put(e)
	if err != nil {
		return dst, unsupported(v, err)
	}
	return bytes.TrimSuffix(out, []byte("\n")), nil
}

// unsupported tells a value that has no JSON form from a marshaler's own failure.
func unsupported(v any, err error) error {
	var badType *json.UnsupportedTypeError
	var badValue *json.UnsupportedValueError
	if errors.As(err, &badType) || errors.As(err, &badValue) {
		return codec.Unsupported("codec/json: encode %T: %w", v, &plain{err})
	}
	return fmt.Errorf("codec/json: encode %T: %w", v, &plain{err})
}

// plain is an error of encoding/json or protojson without their prefix, and without the no-break space that protojson puts
// into its errors at random, lest programs compare them.
type plain struct{ error }

func (e *plain) Error() string {
	text := strings.ReplaceAll(e.error.Error(), "\u00a0", " ")
	return strings.TrimPrefix(strings.TrimPrefix(text, "json: "), "proto: ")
}

func (e *plain) Unwrap() error { return e.error }

// Unmarshal decodes data, one JSON value, into v. After an error, v may hold a part of it.
func (c *Codec) Unmarshal(data []byte, v any) error {
	if len(data) == 0 {
		return nil
	}
	if c.strict {
		if at := tooDeep(data); at >= 0 {
			return &Error{Offset: int64(at), reason: fmt.Sprintf("more than %d arrays and objects inside each other", MaxDepth)}
		}
	}
	switch v := v.(type) {
	case *json.RawMessage:
		if v != nil {
			return readRaw(data, v)
		}
	case proto.Message:
		if !v.ProtoReflect().IsValid() {
			break
		}
		o := protojson.UnmarshalOptions{DiscardUnknown: !c.strict, RecursionLimit: maxMessageDepth}
		if err := o.Unmarshal(data, v); err != nil {
			return describe(err)
		}
		return nil
	}
	if rv := reflect.ValueOf(v); rv.Kind() != reflect.Pointer || rv.IsNil() {
		return codec.Unsupported("codec/json: decode into %T: want a pointer", v)
	}
	return c.unmarshalValue(data, v)
}

func readRaw(data []byte, v *json.RawMessage) error {
	if !json.Valid(data) {
		return fault(data)
	}
	*v = bytes.Clone(data)
	return nil
}

// tooDeep gives the offset of the bracket that opens one level too many, or -1. It need not know whether data is JSON:
// the decoder finds that out.
func tooDeep(data []byte) int {
	if bytes.Count(data, []byte("{"))+bytes.Count(data, []byte("[")) <= MaxDepth {
		return -1 // whatever stands in between
	}
	depth, text := 0, false
	for i := 0; i < len(data); i++ {
		switch b := data[i]; {
		case b == '"':
			text = !text
		case text && b == '\\':
			i++
		case text:
		case b == '{' || b == '[':
			if depth++; depth > MaxDepth {
				return i
			}
		case b == '}' || b == ']':
			depth--
		}
	}
	return -1
}

// Error is what is wrong with data that does not decode.
type Error struct {
	// Offset counts the bytes of the data up to the fault; -1 where that is not known.
	Offset int64
	// Field leads to the field that does not fit, "user.name", where the fault is in one.
	Field string

	reason string
	cause  error
}

// Error says where, and what.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("codec/json: ")
	if e.Offset >= 0 {
		fmt.Fprintf(&b, "at offset %d: ", e.Offset)
	}
	if e.Field != "" {
		fmt.Fprintf(&b, "field %q: ", e.Field)
	}
	b.WriteString(e.reason)
	return b.String()
}

// Unwrap gives the decoder's own error.
func (e *Error) Unwrap() error { return e.cause }

// describe turns a decoder's error into an Error.
func describe(err error) *Error {
	e := &Error{Offset: -1, cause: err}
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		e.Offset, e.reason = syntax.Offset, syntax.Error()
	case errors.As(err, &mismatch):
		e.Offset, e.Field = mismatch.Offset, mismatch.Field
		e.reason = fmt.Sprintf("want %v, got %s", mismatch.Type, mismatch.Value)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.reason = "unexpected end of the data"
	default:
		e.reason = (&plain{err}).Error()
	}
	return e
}
