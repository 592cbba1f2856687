// Package protorpc is the RPC format PROTO-RPC of go-micro: net/rpc's header as a protobuf message, and the body as another.
//
// Each of the two stands behind its length, four bytes, the highest first; an empty message has the length 0. The header is
//
//	message Request {
//		string service_method = 1; // "Say.Hello"
//		fixed64 seq = 2;
//	}
//	message Response {
//		string service_method = 1; // go-micro's servers leave it empty
//		fixed64 seq = 2;
//		string error = 3;
//	}
//
// The error is the object that travels elsewhere, as JSON. A request that names no endpoint is of the one in the message's header.
package protorpc

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/internal/fault"
	"github.com/cb02dfca/micro/pkg/status"
)

// ContentType is the media type that go-micro's versions use. It is not registered with IANA.
const ContentType = "application/proto-rpc"

// Codec is the format around a codec of protobuf. Make it with [New].
type Codec struct{ values codec.Codec }

var _ codec.Recognizer = (*Codec)(nil)

// New returns the format around values, the codec of requests and answers: that of package codec/proto.
func New(values codec.Codec) *Codec { return &Codec{values: values} }

// ContentType is "application/proto-rpc".
func (*Codec) ContentType() string { return ContentType }

// Values is the codec of requests and answers.
func (c *Codec) Values() codec.Codec { return c.values }

// Append appends the protobuf message v alone.
func (c *Codec) Append(dst []byte, v any) ([]byte, error) { return c.values.Append(dst, v) }

// Unmarshal decodes a protobuf message alone.
func (c *Codec) Unmarshal(data []byte, v any) error { return c.values.Unmarshal(data, v) }

// Recognizes reports whether data, which came as protobuf or as bytes, is a whole request that names an endpoint: go-micro's servers take those
// types for PROTO-RPC where the headers name none.
func (*Codec) Recognizes(contentType string, data []byte) bool {
	if contentType != "application/protobuf" && contentType != "application/octet-stream" {
		return false
	}
	var h header
	_, err := h.read(data)
	return err == nil && h.method != "" && h.fault == ""
}

// header is either header.
type header struct {
	method, fault string
	seq           uint64
}

// The fields of a header.
const (
	fieldMethod = 1
	fieldSeq    = 2
	fieldError  = 3
)

// append appends the header and the body, with their lengths.
func (h *header) append(dst, body []byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	if h.method != "" {
		dst = protowire.AppendString(protowire.AppendTag(dst, fieldMethod, protowire.BytesType), h.method)
	}
	if h.seq != 0 {
		dst = protowire.AppendFixed64(protowire.AppendTag(dst, fieldSeq, protowire.Fixed64Type), h.seq)
	}
	if h.fault != "" {
		dst = protowire.AppendString(protowire.AppendTag(dst, fieldError, protowire.BytesType), h.fault)
	}
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	return append(dst, body...)
}

var errCut = errors.New("the message is cut off")

// read takes a message apart. The body is a part of data.
func (h *header) read(data []byte) (body []byte, err error) {
	head, rest, err := frame(data)
	if err == nil {
		body, rest, err = frame(rest)
	}
	switch {
	case err != nil:
		return nil, err
	case len(rest) > 0:
		return nil, fmt.Errorf("%d bytes follow the message", len(rest))
	}
	return body, h.fields(head)
}

// frame gives what stands behind its length.
func frame(data []byte) (part, rest []byte, err error) {
	if len(data) < 4 {
		return nil, nil, errCut
	}
	n := binary.BigEndian.Uint32(data)
	if data = data[4:]; uint64(n) > uint64(len(data)) {
		return nil, nil, errCut
	}
	return data[:n], data[n:], nil
}

// fields reads a header. Of a field that comes twice the latter counts, and others are passed over, as protobuf has it.
func (h *header) fields(data []byte) error {
	for len(data) > 0 {
		num, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return malformed(n)
		}
		data = data[n:]
		switch {
		case num == fieldMethod && kind == protowire.BytesType:
			h.method, n = protowire.ConsumeString(data)
		case num == fieldError && kind == protowire.BytesType:
			h.fault, n = protowire.ConsumeString(data)
		case num == fieldSeq && kind == protowire.Fixed64Type:
			h.seq, n = protowire.ConsumeFixed64(data)
		default:
			n = protowire.ConsumeFieldValue(num, kind, data)
		}
		if n < 0 {
			return malformed(n)
		}
		data = data[n:]
	}
	return nil
}

func malformed(n int) error {
	return fmt.Errorf("its header is no protobuf message: %w", protowire.ParseError(n))
}

// AppendRequest appends a request.
func (*Codec) AppendRequest(dst []byte, endpoint string, id uint64, body []byte) ([]byte, error) {
	return (&header{method: endpoint, seq: id}).append(dst, body), nil
}

// ReadResponse reads an answer. The body is a part of data.
func (*Codec) ReadResponse(data []byte, id uint64) ([]byte, error) {
	var h header
	body, err := h.read(data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("codec/protorpc: the answer: %w", err)
	case h.seq != id && (h.seq != 0 || h.fault == ""): // zero is that of a server which could not read the request
		return nil, fmt.Errorf("codec/protorpc: the answer is to the call %d, want %d", h.seq, id)
	case h.fault != "":
		return nil, status.Parse(h.fault)
	}
	return body, nil
}

// Answer has calls carry out the request data.
func (*Codec) Answer(dst, data []byte, calls codec.Calls) []byte {
	var h header
	body, err := h.read(data)
	if err != nil {
		return fail(dst, 0, status.New(status.InvalidArgument, "the request: %s", err))
	}
	answer, err := calls.Call(h.method, body)
	if err != nil {
		return fail(dst, h.seq, err)
	}
	return (&header{seq: h.seq}).append(dst, answer)
}

// fail appends the answer with an error.
func fail(dst []byte, seq uint64, err error) []byte {
	e := fault.Of(err)
	return (&header{seq: seq, fault: string(e.AppendJSON(nil))}).append(dst, nil)
}
