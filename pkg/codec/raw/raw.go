// Package raw is the codec of bytes that nobody looks into.
package raw

import (
	"bytes"

	"github.com/cb02dfca/micro/pkg/codec"
)

// ContentType is the media type of bytes without a known form, RFC 2046 section 4.5.1.
const ContentType = "application/octet-stream"

// Codec passes []byte and string values as they are. It has no state: the zero value is ready.
type Codec struct{}

var _ codec.Codec = (*Codec)(nil)

// New returns the codec.
func New() *Codec { return &Codec{} }

// ContentType is "application/octet-stream".
func (*Codec) ContentType() string { return ContentType }

// Append appends the bytes of v: a []byte, a string, or a pointer to one. The error of another value wraps
// [codec.ErrUnsupported].
func (*Codec) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return append(dst, v...), nil
	case string:
		return append(dst, v...), nil
	case *[]byte:
		if v != nil {
			return append(dst, *v...), nil
		}
	case *string:
		if v != nil {
			return append(dst, *v...), nil
		}
	}
	return dst, codec.Unsupported("codec/raw: encode %T: want []byte, string, or a pointer to one", v)
}

// Unmarshal copies data to v, a *[]byte or a *string. A slice gets storage of its own, so that what was decoded before into
// the same variable stays as it was; but one that is empty and has room, as b[:0] has, is filled.
func (*Codec) Unmarshal(data []byte, v any) error {
	switch v := v.(type) {
	case *[]byte:
		if v == nil {
			break
		}
		switch {
		case len(data) == 0:
		case len(*v) == 0 && cap(*v) >= len(data):
			*v = append(*v, data...)
		default:
			*v = bytes.Clone(data)
		}
		return nil
	case *string:
		if v == nil {
			break
		}
		if len(data) > 0 {
			*v = string(data)
		}
		return nil
	}
	return codec.Unsupported("codec/raw: decode into %T: want a *[]byte or *string", v)
}
