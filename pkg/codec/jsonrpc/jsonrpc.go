// Package jsonrpc is the RPC format JSON-RPC: version 1.0 as net/rpc/jsonrpc and go-micro have it, and version 2.0 of
// www.jsonrpc.org/specification.
//
// A server reads both versions, and answers in that of the request. What params is to a handler:
//
//   - An object is the request.
//   - An array with one element is that element. Where the request has fields and the element is neither an object nor null, the
//     element is the first field.
//   - An array with more elements holds the request's fields in the order of their declaration. Where it has none, or they are
//     not known, the array is the request.
//   - No params, or an empty array, is a call without a body.
//
// A batch, of version 2.0 alone, has [MaxBatch] calls at most, which run one after the other. A request without an id in 2.0, or
// with the id null in 1.0, is a notification: it runs, and is not answered. In 1.0 it must have an id. An id is a string, a number
// or null, and comes back as it stood; nobody minds that one comes twice.
//
// An error is in 2.0 an object. Its code is -32700 for what is no JSON, -32600 for what is no request, -32601 for an
// endpoint that is not there, -32602 for params that do not decode, and else that of the [status.Error]; message is the
// detail, and data the whole error as it travels elsewhere. In 1.0 it is a string: that whole error, as go-micro has it.
//
// Members that are not known are ignored; one that is known and comes twice is refused, as is a name in other letters: what stands
// before a service reads the same as the service.
package jsonrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/cb02dfca/micro/pkg/codec"
)

const (
	// ContentType is the media type in use. It is not registered with IANA.
	ContentType = "application/json-rpc"
	// MaxBatch is how many calls a batch may have.
	MaxBatch = 256

	plainJSON = "application/json"
)

// Codec is the format around a codec of JSON. Make it with [New], [New2] or [Plain].
type Codec struct {
	values codec.Codec
	second bool // a client speaks version 2.0
	plain  bool // to a server that is none of this project's
}

var _ codec.Recognizer = (*Codec)(nil)

// New returns the format around values, the codec of params and results: that of package codec/json, Strict for a server. A
// client sends version 1.0, with the request as the only element of params. A protobuf message is written so that go-micro reads it, which
// does by encoding/json on the generated struct: names as in the .proto file, enums and 64-bit integers as numbers. Whoever reads
// protobuf's own JSON reads these, too.
func New(values codec.Codec) *Codec { return &Codec{values: goMicro{values}} }

// New2 is New for a client that sends version 2.0: the request is params where it is an object, and else their only element.
func New2(values codec.Codec) *Codec { return &Codec{values: values, second: true} }

// Plain is New2 for a client of servers that others have written, many of which take the format as application/json alone: that is its
// content type, so it stands in the client's set in place of the codec of JSON. A list is params itself, which such a server takes for
// the arguments in their order.
func Plain(values codec.Codec) *Codec { return &Codec{values: values, second: true, plain: true} }

// ContentType is "application/json-rpc"; of Plain it is "application/json".
func (c *Codec) ContentType() string {
	if c.plain {
		return plainJSON
	}
	return ContentType
}

// Values is the codec of params and results.
func (c *Codec) Values() codec.Codec { return c.values }

// Append appends the JSON of v alone.
func (c *Codec) Append(dst []byte, v any) ([]byte, error) { return c.values.Append(dst, v) }

// Unmarshal decodes the JSON of a value alone.
func (c *Codec) Unmarshal(data []byte, v any) error { return c.values.Unmarshal(data, v) }

// Recognizes reports whether data is a request, or a batch with one, that came as application/json. One of version 2.0 says so. One of
// version 1.0, which go-micro's servers take so, has its three members and no other. What is no JSON, and has "jsonrpc" in it, was meant to be one.
func (*Codec) Recognizes(contentType string, data []byte) bool {
	if contentType != plainJSON {
		return false
	}
	if !json.Valid(data) {
		return bytes.Contains(data, []byte(`"jsonrpc"`))
	}
	if data[skipSpace(data, 0)] != '[' {
		return saysVersion2(data) || looksVersion1(data)
	}
	says := false
	_ = elements(data, func(value []byte) error {
		says = says || saysVersion2(value)
		return nil
	})
	return says
}

// saysVersion2 reports whether a value is an object that says so.
func saysVersion2(value []byte) (says bool) {
	_ = members(value, func(name string, v []byte) error { // a value that is no object has none
		says = says || name == "jsonrpc" && string(v) == `"2.0"`
		return nil
	})
	return says
}

var errOther = errors.New("another member")

// looksVersion1 reports whether a value is an object with the text method, the list params, id, and nothing else.
func looksVersion1(value []byte) bool {
	var seen [3]bool
	err := members(value, func(name string, v []byte) error {
		switch {
		case name == "method" && len(v) > 2 && v[0] == '"':
			seen[0] = true
		case name == "params" && v[0] == '[':
			seen[1] = true
		case name == "id":
			seen[2] = true
		default:
			return errOther
		}
		return nil
	})
	return err == nil && seen == [3]bool{true, true, true}
}

// AppendRequest appends {"method":"Say.Hello","params":[body],"id":"0"}; with version 2.0 before it the member jsonrpc, and an
// object as params itself.
func (c *Codec) AppendRequest(dst []byte, endpoint string, id uint64, body []byte) ([]byte, error) {
	if len(body) > 0 && !json.Valid(body) {
		return dst, codec.Unsupported("codec/jsonrpc: the body is no JSON")
	}
	bare := false // it is params as it stands
	if c.second && len(body) > 0 {
		first := body[skipSpace(body, 0)]
		bare = first == '{' || first == '[' && c.plain
	}
	dst = append(dst, '{')
	if c.second {
		dst = append(dst, `"jsonrpc":"2.0",`...)
	}
	dst = appendText(append(dst, `"method":`...), endpoint)
	switch {
	case bare:
		dst = append(append(dst, `,"params":`...), body...)
	case len(body) > 0:
		dst = append(append(append(dst, `,"params":[`...), body...), ']')
	case !c.second:
		dst = append(dst, `,"params":[]`...)
	}
	dst = strconv.AppendUint(append(dst, `,"id":"`...), id, 10)
	return append(dst, `"}`...), nil
}

func appendText(dst []byte, s string) []byte {
	text, _ := json.Marshal(s) // a string always encodes
	return append(dst, text...)
}

// ReadResponse reads an answer of either version. The result is a part of data.
func (*Codec) ReadResponse(data []byte, id uint64) ([]byte, error) {
	r, err := readResponse(data)
	if err != nil {
		return nil, fmt.Errorf("codec/jsonrpc: the answer %w", err)
	}
	want := strconv.FormatUint(id, 10)
	unknown := isNull(r.id) && r.failed() // the server could not read the request
	if got := string(r.id); !unknown && got != want && got != `"`+want+`"` {
		return nil, fmt.Errorf("codec/jsonrpc: the answer is to the call %.50q, want %s", got, want)
	}
	if r.failed() {
		return nil, r.remote()
	}
	return r.result, nil
}
