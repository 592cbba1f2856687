// Package bsonrpc is the RPC format BSON-RPC of go-micro's plug-in of that name: a BSON document that is net/rpc's header, and the
// document of the body behind it.
//
// The header of a request is {ServiceMethod: "Say.Hello", Seq: "0"}, that of an answer has the string Error too, which is empty
// where there is none. Seq, a string in go-micro and a number with other codecs of net/rpc, comes back as it stood. Strings are read
// from binaries as well, as the plug-in writes them. The error is the object that travels elsewhere, as JSON. A request that names no
// endpoint is of the one in the message's header.
//
// A body that is no document stands in one, as package codec/bson says; none is the empty document.
package bsonrpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/internal/fault"
	"github.com/cb02dfca/micro/pkg/status"
)

// ContentType names the format as its siblings are named. go-micro's users give the plug-in a content type of their own, most often
// application/bson: codec.Alias serves that.
const ContentType = "application/bson-rpc"

// Codec is the format around a codec of BSON. Make it with [New].
type Codec struct{ values codec.Codec }

var _ codec.Envelope = (*Codec)(nil)

// New returns the format around values, the codec of requests and answers: that of package codec/bson, Strict for a server.
func New(values codec.Codec) *Codec { return &Codec{values: values} }

// ContentType is "application/bson-rpc".
func (*Codec) ContentType() string { return ContentType }

// Values is the codec of requests and answers.
func (c *Codec) Values() codec.Codec { return c.values }

// Append appends the BSON of v alone.
func (c *Codec) Append(dst []byte, v any) ([]byte, error) { return c.values.Append(dst, v) }

// Unmarshal decodes the BSON of a value alone.
func (c *Codec) Unmarshal(data []byte, v any) error { return c.values.Unmarshal(data, v) }

// minDocument is the size of the empty document: its length, and the zero byte at its end.
const minDocument = 5

var empty = []byte{minDocument, 0, 0, 0, 0}

// The keys of a header.
const (
	keyMethod = "ServiceMethod"
	keySeq    = "Seq"
	keyError  = "Error"
)

// header is either header.
type header struct {
	method, fault string
	seq           bson.RawValue
	response      bool
}

// number gives id as go-micro writes it.
func number(id uint64) bson.RawValue {
	return bson.RawValue{Type: bson.TypeString, Value: appendText(nil, strconv.FormatUint(id, 10))}
}

// append appends the header and the body.
func (h *header) append(dst, body []byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = appendText(appendKey(dst, bson.TypeString, keyMethod), h.method)
	dst = append(appendKey(dst, h.seq.Type, keySeq), h.seq.Value...)
	if h.response {
		dst = appendText(appendKey(dst, bson.TypeString, keyError), h.fault)
	}
	dst = append(dst, 0)
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	if len(body) == 0 {
		body = empty
	}
	return append(dst, body...)
}

func appendKey(dst []byte, t bson.Type, key string) []byte {
	return append(append(append(dst, byte(t)), key...), 0)
}

func appendText(dst []byte, s string) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(s)+1))
	return append(append(dst, s...), 0)
}

var errCut = errors.New("the message is cut off")

// read takes a message apart. The body is a part of data; it is empty where the header is all there is.
func (h *header) read(data []byte) (body []byte, err error) {
	head, rest, err := document(data)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		if body, rest, err = document(rest); err != nil {
			return nil, err
		}
		if len(rest) > 0 {
			return nil, fmt.Errorf("%d bytes follow the message", len(rest))
		}
	}
	return body, h.elements(head)
}

// document gives the document that data begins with.
func document(data []byte) (doc, rest []byte, err error) {
	if len(data) < minDocument {
		return nil, nil, errCut
	}
	n := binary.LittleEndian.Uint32(data)
	switch {
	case n < minDocument:
		return nil, nil, fmt.Errorf("a document says that it has %d bytes", n)
	case uint64(n) > uint64(len(data)):
		return nil, nil, errCut
	}
	return data[:n], data[n:], nil
}

// elements reads a header. Others than the known ones are passed over.
func (h *header) elements(doc []byte) error {
	all, err := bson.Raw(doc).Elements()
	if err != nil {
		return fmt.Errorf("its header is no BSON: %w", err)
	}
	var seen []string
	for _, e := range all {
		key, err := e.KeyErr()
		if err != nil {
			return fmt.Errorf("its header is no BSON: %w", err)
		}
		switch key {
		case keyMethod:
			h.method, err = text(e.Value())
		case keyError:
			h.fault, err = text(e.Value())
		case keySeq:
			h.seq, err = e.Value(), checkSeq(e.Value())
		default:
			continue
		}
		if slices.Contains(seen, key) {
			return fmt.Errorf("its header has %s twice", key)
		}
		if seen = append(seen, key); err != nil {
			return fmt.Errorf("its header: %s: %w", key, err)
		}
	}
	if h.seq.Type == 0 {
		return errors.New("its header has no Seq")
	}
	return nil
}

// text gives a string, or a binary that stands for one; null is empty.
func text(v bson.RawValue) (string, error) {
	if v.Type == bson.TypeNull {
		return "", nil
	}
	if s, ok := v.StringValueOK(); ok {
		return s, nil
	}
	if _, data, ok := v.BinaryOK(); ok {
		return string(data), nil
	}
	return "", fmt.Errorf("want a string, got %s", v.Type)
}

// checkSeq tells what is no number of a call.
func checkSeq(v bson.RawValue) error {
	switch v.Type {
	case bson.TypeInt32, bson.TypeInt64, bson.TypeDouble:
		return nil
	case bson.TypeNull:
		return errors.New("want a string or a number")
	}
	_, err := text(v)
	return err
}

// is reports whether a Seq is the number id, in whatever type.
func is(v bson.RawValue, id uint64) bool {
	switch v.Type {
	case bson.TypeInt32, bson.TypeInt64, bson.TypeDouble:
		n, ok := v.AsInt64OK()
		return ok && n >= 0 && uint64(n) == id
	}
	s, err := text(v)
	return err == nil && s == strconv.FormatUint(id, 10)
}

// AppendRequest appends a request.
func (*Codec) AppendRequest(dst []byte, endpoint string, id uint64, body []byte) ([]byte, error) {
	if len(body) > 0 && !isDocument(body) {
		return dst, codec.Unsupported("codec/bsonrpc: the body is no BSON document")
	}
	return (&header{method: endpoint, seq: number(id)}).append(dst, body), nil
}

// isDocument reports whether data is as long as it says: what a reader goes by to find its end.
func isDocument(data []byte) bool {
	_, rest, err := document(data)
	return err == nil && len(rest) == 0
}

// ReadResponse reads an answer. The body is a part of data.
func (*Codec) ReadResponse(data []byte, id uint64) ([]byte, error) {
	var h header
	body, err := h.read(data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("codec/bsonrpc: the answer: %w", err)
	case !is(h.seq, id) && (h.fault == "" || !is(h.seq, 0)): // zero is that of a server which could not read the request
		return nil, fmt.Errorf("codec/bsonrpc: the answer is to the call %.50s, want %d", h.seq, id)
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
		return fail(dst, number(0), status.New(status.InvalidArgument, "the request: %s", err))
	}
	answer, err := calls.Call(h.method, body)
	switch {
	case err != nil:
		return fail(dst, h.seq, err)
	case len(answer) > 0 && !isDocument(answer):
		return fail(dst, h.seq, status.New(status.Internal, "the answer of %s is no BSON document", h.method))
	}
	return (&header{method: h.method, seq: h.seq, response: true}).append(dst, answer)
}

// fail appends the answer with an error.
func fail(dst []byte, seq bson.RawValue, err error) []byte {
	e := fault.Of(err)
	return (&header{seq: seq, fault: string(e.AppendJSON(nil)), response: true}).append(dst, nil)
}
