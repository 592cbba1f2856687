package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Handler is the one shape of all handlers below their types: unary calls, streams and events. A unary handler
// receives once and sends once. The error that it returns is the caller's, see [status.FromError].
//
// ctx ends with the caller's deadline, when the caller has gone, and when the server stops waiting for its handlers;
// [metadata.Incoming] gives what came with the call.
type Handler func(ctx context.Context, c *Call) error

// Middleware wraps a handler. It sees calls before they are decoded.
type Middleware func(next Handler) Handler

// Call is one exchange. It belongs to its handler until that returns, and is not used afterwards. Recv and Send may be
// called concurrently with each other, each by one goroutine at a time.
type Call struct {
	service  string
	endpoint string
	topic    string
	kind     Kind
	remote   string
	header   metadata.MD
	message  *broker.Message // the event, nil for calls
	codec    codec.Codec
	pipe     pipe
}

// pipe is where a call's messages come from and go to.
type pipe interface {
	// recv gives the next message, valid until the following recv; io.EOF after the last.
	recv() ([]byte, error)
	// send hands on a message. A unary call's belongs to the pipe from then on; a stream's is not retained.
	send(contentType string, body []byte) error
	// setHeader sets a header of the reply.
	setHeader(key, value string) error
}

// Service is the name of the service that was called.
func (c *Call) Service() string { return c.service }

// Endpoint is what was called, "Say.Hello"; for an event the topic.
func (c *Call) Endpoint() string { return c.endpoint }

// Topic is the event's topic; empty for calls.
func (c *Call) Topic() string { return c.topic }

// Message is the event as the broker delivered it; nil for calls.
func (c *Call) Message() *broker.Message { return c.message }

// Kind tells which sides stream.
func (c *Call) Kind() Kind { return c.kind }

// Remote is the caller's address; empty where it is not known.
func (c *Call) Remote() string { return c.remote }

// ContentType is the codec of the messages.
func (c *Call) ContentType() string { return c.codec.ContentType() }

// Header is the caller's metadata, without what the framework itself set. It is valid after the call, too.
func (c *Call) Header() metadata.MD { return c.header }

// Recv decodes the caller's next message into v; io.EOF after the last. A message that cannot be decoded is an
// InvalidArgument error, which the handler may return as it is.
func (c *Call) Recv(v any) error {
	body, err := c.pipe.recv()
	if err != nil {
		return err
	}
	if err := c.codec.Unmarshal(body, v); err != nil {
		if errors.Is(err, codec.ErrUnsupported) {
			return status.Wrap(err, status.UnsupportedMedia, "%s takes no %s: %v", c.endpoint, c.codec.ContentType(), err)
		}
		return status.Wrap(err, status.InvalidArgument, "request does not decode: %v", err)
	}
	return nil
}

// RecvRaw gives the caller's next message as it came, valid until the next Recv; io.EOF after the last.
func (c *Call) RecvRaw() ([]byte, error) { return c.pipe.recv() }

// Send encodes v as the answer, or as the stream's next message. v is not retained.
func (c *Call) Send(v any) error {
	body, err := c.codec.Append(nil, v)
	if err != nil {
		return status.Wrap(err, status.Internal, "the answer of %s does not encode as %s", c.endpoint, c.codec.ContentType())
	}
	return c.pipe.send(c.codec.ContentType(), body)
}

// SendRaw sends a message that is encoded already. An empty contentType is the call's. body is not retained.
func (c *Call) SendRaw(contentType string, body []byte) error {
	if contentType == "" {
		contentType = c.codec.ContentType()
	}
	if c.kind == Unary {
		body = bytes.Clone(body) // the reply is sent when the handler has returned
	}
	return c.pipe.send(contentType, body)
}

// SetHeader sets a pair of the reply's metadata, before a unary call's Send; a stream has none. The error wraps
// metadata.ErrInvalid for a pair that cannot be carried, or whose name the framework keeps for itself.
func (c *Call) SetHeader(key, value string) error {
	if transport.Reserved(key) {
		return fmt.Errorf("%w: %q is the framework's", metadata.ErrInvalid, key)
	}
	return c.pipe.setHeader(key, value)
}

// unary is the pipe of a call with one message each way.
type unary struct {
	body     []byte
	received bool
	sent     bool
	header   metadata.MD // of the reply
	reply    []byte
}

func (u *unary) recv() ([]byte, error) {
	if u.received {
		return nil, io.EOF
	}
	u.received = true
	return u.body, nil
}

func (u *unary) send(contentType string, body []byte) error {
	if u.sent {
		return status.New(status.Internal, "a unary handler sent twice")
	}
	header, err := u.header.Set(transport.HeaderContentType, contentType)
	if err != nil {
		return err
	}
	u.header, u.reply, u.sent = header, body, true
	return nil
}

func (u *unary) setHeader(key, value string) (err error) {
	u.header, err = u.header.Set(key, value)
	return err
}

// event is the pipe of a message of a broker: one message in, none out.
type event struct{ unary }

func (e *event) send(string, []byte) error {
	return status.New(status.Unimplemented, "an event has no answer")
}
