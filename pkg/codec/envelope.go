package codec

import "errors"

// Envelope is the Codec of an RPC format, such as JSON-RPC: the message of a call holds beside the value what else there is of
// the call, its endpoint and a number, and the message of an answer holds the error. Clients and servers put it on last and take it
// off first, so neither handlers nor middleware see it: they see bodies of Values.
//
// Append and Unmarshal are of the value alone, as it stands in an event. Methods may be called concurrently.
type Envelope interface {
	Codec
	// Values is the codec of the values within: of params and results. It is no Envelope.
	Values() Codec
	// AppendRequest appends the message of a call to dst. body is its value, by Values; an empty one is a call without a
	// value. Where Values did not make body, the error says so, and dst is given as it was.
	AppendRequest(dst []byte, endpoint string, id uint64, body []byte) ([]byte, error)
	// ReadResponse gives the body in the answer to the call of that id: a part of data, or memory of its own. The error is the one
	// that the server answered with, a status.Error that is Remote; or tells why data is no answer to that call.
	ReadResponse(data []byte, id uint64) (body []byte, err error)
	// Answer has calls carry out the calls of the message data, one after the other, and appends the answer to dst: nothing,
	// where nobody waits for one. What is wrong with data stands in the answer. It retains neither data nor dst.
	Answer(dst, data []byte, calls Calls) []byte
}

// Calls carries out the calls of a message.
type Calls interface {
	// Call carries out a call. An empty endpoint is that of the message's header. body is valid until Call returns, and the
	// answer until the next Call. The error is for the caller: it has a status.Error in its chain, and wraps [ErrEndpoint] or
	// [ErrBody] where it is one of those.
	Call(endpoint string, body []byte) (answer []byte, err error)
	// Fields names the fields of the endpoint's request, in their order; none where it has none, or they are not known. An empty
	// endpoint is that of the message's header.
	Fields(endpoint string) []string
}

// Recognizer is an Envelope whose messages may come under the content type of a plain codec.
type Recognizer interface {
	Envelope
	// Recognizes reports whether data, which came under contentType and for which the header names no endpoint, is a message of
	// the format.
	Recognizes(contentType string, data []byte) bool
}

// What the error of a call may wrap, for formats that have numbers of their own for these.
var (
	ErrEndpoint = errors.New("codec: no such endpoint")
	ErrBody     = errors.New("codec: the body does not decode")
)

type envelopeAlias struct {
	Envelope
	contentType string
}

func (a envelopeAlias) ContentType() string { return a.contentType }
