// Package codec encodes the bodies of messages.
//
// The codecs stand in the folders below. All pass the suite of package codectest. Those of RPC formats are Envelopes of others.
package codec

import (
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"
)

// ErrUnsupported is wrapped by the error of a value that a codec cannot carry, and of a content type that a Set lacks.
var ErrUnsupported = errors.New("codec: unsupported value or content type")

// Unsupported gives an error with the text of [fmt.Errorf] that wraps ErrUnsupported, and what %w in format wraps. Backends
// use it for values that they cannot carry: a text that began with ErrUnsupported's would name package codec twice.
func Unsupported(format string, args ...any) error {
	return &unsupported{fmt.Errorf(format, args...)}
}

type unsupported struct{ error }

func (e *unsupported) Is(target error) bool { return target == ErrUnsupported }
func (e *unsupported) Unwrap() error        { return e.error }

// Codec encodes values of one content type. Its methods may be called concurrently.
type Codec interface {
	// ContentType is the media type in its canonical form: "application/json".
	ContentType() string
	// Append appends v's encoding to dst and gives the extended slice. On an error dst is given as it was.
	Append(dst []byte, v any) ([]byte, error)
	// Unmarshal decodes data into v, a pointer. It does not retain data. Empty data leaves v as it is.
	Unmarshal(data []byte, v any) error
}

// Set is the codecs that a side speaks, first the one it prefers. It is not changed after it was made.
type Set []Codec

// For gives the codec of a content type. Parameters ("; charset=utf-8") and case do not matter; nor does an RPC
// prefix such as "application/grpc+proto" match "application/proto". The error wraps ErrUnsupported and names what the
// set has.
func (s Set) For(contentType string) (Codec, error) {
	for _, c := range s {
		if c.ContentType() == contentType {
			return c, nil
		}
	}
	if media, _, err := mime.ParseMediaType(contentType); err == nil {
		if i := slices.IndexFunc(s, func(c Codec) bool { return c.ContentType() == media }); i >= 0 {
			return s[i], nil
		}
	}
	if contentType == "" {
		return nil, Unsupported("codec: no content type, want one of %s", strings.Join(s.ContentTypes(), ", "))
	}
	return nil, Unsupported("codec: content type %q, want one of %s", contentType, strings.Join(s.ContentTypes(), ", "))
}

// ContentTypes gives the content types of the set, in its order.
func (s Set) ContentTypes() []string {
	types := make([]string, len(s))
	for i, c := range s {
		types[i] = c.ContentType()
	}
	return types
}

// Alias gives c under another content type: a Set that has both speaks both, and answers in the one that was asked in. Of an
// Envelope it gives an Envelope.
func Alias(c Codec, contentType string) Codec {
	if e, ok := c.(Envelope); ok {
		return envelopeAlias{e, contentType}
	}
	return alias{c, contentType}
}

type alias struct {
	Codec
	contentType string
}

func (a alias) ContentType() string { return a.contentType }

// Widener is what a server offers to a listener whose callers need more of a codec than it can: gRPC's know no form but protobuf, and
// handlers may be on plain structs.
type Widener interface {
	// Widen is called before anything is served. f gives the codec to speak in place of one that the server speaks, of the same
	// content type: mostly the same.
	Widen(f func(Codec) Codec)
}
