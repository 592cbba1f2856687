// Package msgpack is the codec of MessagePack (github.com/msgpack/msgpack/blob/master/spec.md), over the library
// github.com/vmihailenco/msgpack.
//
// A Go value is written and read by the rules of encoding/json, tags included, so that fields have the same names in every codec;
// tags named msgpack do not count. What differs from JSON:
//
//   - []byte is bin, and time.Time the timestamp extension, which keeps nanoseconds, but no time zone: it is read as UTC. What
//     they are in JSON, a str of base64 or of RFC 3339, is read as well.
//   - A float may be NaN or infinite.
//   - An empty interface gets int64 or uint64 for integers, and float64 for floats, bytes and times as they are, []any
//     and map[string]any.
//   - Integers as keys of a map are read as their decimal text. Other keys than these and str, and extensions other than the
//     timestamp, are refused.
//   - A type with MarshalJSON or UnmarshalJSON, json.RawMessage among them, and a protobuf message, take the form that their JSON
//     has.
//
// A str must be UTF-8. Lists and maps may stand at most [MaxDepth] inside each other; a [Strict] codec reads [MaxStrictDepth].
// A declared length is held against the data that is there before memory is taken for it.
//
// The content type is the one that go-micro's plug-in msgpackrpc has. That puts bodies into an array of MessagePack-RPC, which
// this codec does not. The type that is registered with IANA, [Registered], is spoken by codec.Alias(msgpack.New(),
// msgpack.Registered).
package msgpack

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/internal/mapping"
)

const (
	// ContentType is the media type in use, go-micro's too.
	ContentType = "application/msgpack"
	// Registered is the media type that is registered with IANA.
	Registered = "application/vnd.msgpack"
	// MaxDepth is how many lists and maps may stand inside each other.
	MaxDepth = mapping.MaxDepth
	// MaxStrictDepth is MaxDepth for what a Strict codec reads, as in that of JSON.
	MaxStrictDepth = mapping.MaxStrictDepth
)

// Codec encodes MessagePack.
type Codec struct {
	strict  bool
	types   mapping.Types
	writers sync.Pool // of *writer
	readers sync.Pool // of *reader
}

var _ codec.Codec = (*Codec)(nil)

// New returns a codec that ignores fields it does not know: for readers of replies, whose servers may be newer.
func New() *Codec { return &Codec{} }

// Strict returns a codec that refuses fields it does not know, and nesting deeper than [MaxStrictDepth]: for servers, whose
// callers shall learn of their mistakes.
func Strict() *Codec { return &Codec{strict: true} }

// ContentType is "application/msgpack".
func (*Codec) ContentType() string { return ContentType }

// Append appends v's MessagePack to dst, each integer and length in its shortest form. The error of a value that has none,
// such as a channel, wraps [codec.ErrUnsupported].
func (c *Codec) Append(dst []byte, v any) ([]byte, error) {
	w, ok := c.writers.Get().(*writer)
	if !ok {
		w = newWriter(&c.types)
	}
	w.dst = dst
	err := w.values.Encode(v)
	out := w.dst
	w.dst = nil
	c.writers.Put(w)
	if err != nil {
		return dst, fmt.Errorf("codec/msgpack: encode %T: %w", v, err)
	}
	return out, nil
}

// Unmarshal decodes data, one MessagePack value, into v. After an error, v may hold a part of it.
func (c *Codec) Unmarshal(data []byte, v any) error {
	if len(data) == 0 {
		return nil
	}
	r, ok := c.readers.Get().(*reader)
	if !ok {
		r = newReader(&c.types, c.strict)
	}
	r.data, r.off, r.open = data, 0, r.open[:0]
	err := r.values.Decode(v)
	if err == nil && r.off < len(data) {
		err = mapping.Errorf("%d bytes more after the value", len(data)-r.off)
	}
	at := r.off
	r.data = nil
	c.readers.Put(r)
	if err != nil {
		return unread(v, at, err)
	}
	return nil
}

// unread tells what was wrong with the data, and where; or with what it was to be read into.
func unread(v any, at int, err error) error {
	if fault := (*mapping.Error)(nil); errors.As(err, &fault) {
		return fmt.Errorf("codec/msgpack: at offset %d: %w", at, err)
	}
	return fmt.Errorf("codec/msgpack: decode into %T: %w", v, err)
}
