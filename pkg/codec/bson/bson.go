// Package bson is the codec of BSON (bsonspec.org, version 1.1), over the library go.mongodb.org/mongo-driver/v2/bson.
//
// A Go value is written and read by the rules of encoding/json, tags included, so that fields have the same names in every codec;
// tags named bson do not count. What differs from JSON:
//
//   - []byte is binary, and time.Time a datetime: milliseconds, in UTC. What is finer is cut off. What they are in JSON, a
//     string of base64 or of RFC 3339, is read as well.
//   - An integer is an int32 where it fits one, or else an int64. There is no larger one: a uint64 above that is refused.
//   - A float may be NaN or infinite.
//   - A key must not have a zero byte in it.
//   - An empty interface gets int64 for integers, and float64 for floats, bytes and times as they are, []any and
//     map[string]any.
//   - An ObjectId is read as its 24 hexadecimal digits, a symbol as a string, undefined as null. The other types that only
//     a database has (decimal128, regular expressions, code, timestamps, DBPointers, min and max key) are refused.
//   - A type with MarshalJSON or UnmarshalJSON, json.RawMessage among them, and a protobuf message, take the form that their JSON
//     has.
//
// BSON's outermost value is always a document. A struct or a map is that document; any other body (a number, a string, a list,
// bytes, a time, null) stands in a document as its only element, whose key is empty: 5 is {"": 5}. So a document with the
// empty key alone always holds the body; and a map that has that key and no other is put into one: {"": 5} becomes {"": {"": 5}}.
//
// A string must be UTF-8. Documents and arrays may stand at most [MaxDepth] inside each other, not counting one that only
// holds the body; a [Strict] codec reads [MaxStrictDepth]. No memory is taken for a declared length that the data does not
// have.
//
// The content type is not registered with IANA. go-micro's plug-in bsonrpc puts a document of its own before each body of a
// call, which this codec does not; the bodies of its events are the same.
package bson

import (
	"errors"
	"fmt"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/internal/mapping"
)

const (
	// ContentType is the media type in use.
	ContentType = "application/bson"
	// MaxDepth is how many documents and arrays may stand inside each other.
	MaxDepth = mapping.MaxDepth
	// MaxStrictDepth is MaxDepth for what a Strict codec reads, as in that of JSON.
	MaxStrictDepth = mapping.MaxStrictDepth
)

// Codec encodes BSON. Make it with [New] or [Strict].
type Codec struct {
	strict   bool
	registry *bson.Registry
	types    mapping.Types
	writers  sync.Pool // of *writer
	readers  sync.Pool // of *reader
}

var _ codec.Codec = (*Codec)(nil)

// New returns a codec that ignores fields it does not know: for readers of replies, whose servers may be newer.
func New() *Codec { return &Codec{registry: newRegistry()} }

// Strict returns a codec that refuses fields it does not know, and nesting deeper than [MaxStrictDepth]: for servers, whose
// callers shall learn of their mistakes.
func Strict() *Codec { return &Codec{strict: true, registry: newRegistry()} }

// ContentType is "application/bson".
func (*Codec) ContentType() string { return ContentType }

// Append appends v's BSON to dst. The error of a value that has none, such as a channel or a uint64 above the largest int64,
// wraps [codec.ErrUnsupported].
func (c *Codec) Append(dst []byte, v any) ([]byte, error) {
	w, ok := c.writers.Get().(*writer)
	if !ok {
		w = newWriter(&c.types)
	}
	w.dst = dst
	err := w.values.Encode(v)
	if err == nil {
		err = w.end()
	}
	if err != nil {
		return dst, fmt.Errorf("codec/bson: encode %T: %w", v, err) // the writer is not used again: it is within a document
	}
	out := w.dst
	w.dst = nil
	if len(out)-len(dst) <= keepBuffer {
		c.writers.Put(w)
	}
	return out, nil
}

// Unmarshal decodes data, one BSON document, into v. After an error, v may hold a part of it.
func (c *Codec) Unmarshal(data []byte, v any) error {
	if len(data) == 0 {
		return nil
	}
	r, ok := c.readers.Get().(*reader)
	if !ok {
		r = newReader(&c.types, c.strict)
	}
	err := r.read(c.registry, data, v)
	c.readers.Put(r)
	if err != nil {
		return unread(v, err)
	}
	return nil
}

// unread tells what was wrong with the data; or with what it was to be read into.
func unread(v any, err error) error {
	if fault := (*mapping.Error)(nil); errors.As(err, &fault) {
		return fmt.Errorf("codec/bson: %w", err)
	}
	return fmt.Errorf("codec/bson: decode into %T: %w", v, err)
}
