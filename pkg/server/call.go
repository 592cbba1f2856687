package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Handler is the one shape of all handlers below their types: unary calls, streams and events. A unary handler
// receives once and sends once. The error that it returns is the caller's, see [status.FromError].
//
// ctx ends with the caller's deadline, when the caller has gone, when the server stops waiting for its handlers, and when
// the handler has returned; [metadata.Incoming] gives what came with the call. Both may be kept.
type Handler func(ctx context.Context, c *Call) error

// Middleware wraps a handler. It sees calls before they are decoded.
type Middleware func(next Handler) Handler

// Call is one exchange. It belongs to its handler until that returns, and is not used afterwards: it may then be another
// exchange's. A middleware that returns before the handler that it wraps must return an error; what that handler still
// sends is dropped. Recv and Send may be called concurrently with each other, each by one goroutine at a time.
type Call struct {
	route   *route
	ctx     context.Context // the handler's: it carries what Header and Remote give
	message *broker.Message // the event, once it is there; nil for calls
	pipe    pipe
	unary   unary // the pipe of a call and of an event, in the same piece of memory
}

// pipe is where a call's messages come from and go to.
type pipe interface {
	// recv gives the next message, valid until the following recv; io.EOF after the last.
	recv() ([]byte, error)
	// send encodes v, which is not retained, as the next message.
	send(c *Call, v any) error
	// sendRaw hands on a message that is encoded already. body is not retained.
	sendRaw(c *Call, contentType string, body []byte) error
	// setHeader sets a header of the reply.
	setHeader(key, value string) error
}

// Service is the name of the service that was called.
func (c *Call) Service() string { return c.route.Server.name }

// Endpoint is what was called, "Say.Hello"; for an event the topic.
func (c *Call) Endpoint() string { return c.route.name }

// Topic is the event's topic; empty for calls.
func (c *Call) Topic() string {
	if c.route.event {
		return c.route.name
	}
	return ""
}

// Message is the event as the broker delivered it; nil for calls. It may be kept. Of an event that came as a call it is
// made at the first Message, with a copy of the body.
func (c *Call) Message() *broker.Message {
	if !c.route.event {
		return nil
	}
	c.unary.taken = true
	if c.message == nil {
		header := c.Header().Clone()
		if ct := c.route.contentType; ct != "" {
			header, _ = header.Set(transport.HeaderContentType, ct) // one that came is one that can be carried
		}
		c.message = &broker.Message{Topic: c.route.name, ID: c.unary.id, Header: header, Body: bytes.Clone(c.unary.body)}
	}
	return c.message
}

// Kind tells which sides stream.
func (c *Call) Kind() Kind {
	if c.route.event {
		return Unary
	}
	return c.route.endpoint.Kind
}

// Remote is the caller's address; empty where it is not known.
func (c *Call) Remote() string {
	remote, _ := c.ctx.Value(remoteKey{}).(string)
	return remote
}

// ContentType is the codec of the messages.
func (c *Call) ContentType() string { return c.route.codec.ContentType() }

// Header is the caller's metadata, without what the framework itself set. What it gives may be kept.
func (c *Call) Header() metadata.MD { return metadata.Incoming(c.ctx) }

// Recv decodes the caller's next message into v; io.EOF after the last. A message that cannot be decoded is an
// InvalidArgument error, which the handler may return as it is.
func (c *Call) Recv(v any) error {
	body, err := c.pipe.recv()
	if err != nil {
		return err
	}
	cd := c.route.codec
	if err := cd.Unmarshal(body, v); err != nil {
		if errors.Is(err, codec.ErrUnsupported) {
			return status.Wrap(err, status.UnsupportedMedia, "%s takes no %s: %v", c.route.name, cd.ContentType(), err)
		}
		return status.Wrap(&undecoded{err}, status.InvalidArgument, "request does not decode: %v", err)
	}
	return nil
}

// undecoded is the error of a body that is not what the handler takes.
type undecoded struct{ error }

func (u *undecoded) Is(target error) bool { return target == codec.ErrBody }
func (u *undecoded) Unwrap() error        { return u.error }

// RecvRaw gives the caller's next message as it came, valid until the next Recv and until the handler returns; io.EOF after
// the last.
func (c *Call) RecvRaw() ([]byte, error) { return c.pipe.recv() }

// Send encodes v as the answer, or as the stream's next message. v is not retained.
func (c *Call) Send(v any) error { return c.pipe.send(c, v) }

// encode appends v to dst in the codec of the call.
func (c *Call) encode(dst []byte, v any) ([]byte, error) {
	body, err := c.route.codec.Append(dst, v)
	if err != nil {
		return nil, status.Wrap(err, status.Internal, "the answer of %s does not encode as %s", c.route.name, c.route.codec.ContentType())
	}
	return body, nil
}

// SendRaw sends a message that is encoded already. An empty contentType is the call's. body is not retained.
func (c *Call) SendRaw(contentType string, body []byte) error {
	if contentType == "" {
		contentType = c.route.codec.ContentType()
	}
	return c.pipe.sendRaw(c, contentType, body)
}

// SetHeader sets a pair of the reply's metadata, before a unary call's Send; a stream has none. The error wraps
// metadata.ErrInvalid for a pair that cannot be carried, or whose name the framework keeps for itself.
func (c *Call) SetHeader(key, value string) error {
	if transport.Reserved(key) {
		return fmt.Errorf("%w: %q is the framework's", metadata.ErrInvalid, key)
	}
	return c.pipe.setHeader(key, value)
}

// unary is the pipe of a call with one message each way, and of an event, which has no answer.
type unary struct {
	body     []byte
	id       string             // of an event that came as a call
	rsp      *transport.Message // the answer is made in its storage; nil for an event
	received bool
	taken    bool // an event: its handler has looked at it
	state    atomic.Uint32
}

// The states of an answer.
const (
	awaited   uint32 = iota
	sent             // it is in rsp
	abandoned        // the handler returned without it
)

var errReturned = status.New(status.Internal, "the call is over: its handler has returned")

func (u *unary) recv() ([]byte, error) {
	switch {
	case u.state.Load() == abandoned:
		return nil, errReturned
	case u.received:
		return nil, io.EOF
	}
	u.received, u.taken = true, true
	return u.body, nil
}

// open tells why no answer can be sent.
func (u *unary) open() error {
	switch {
	case u.rsp == nil && u.state.Load() == awaited:
		return status.New(status.Unimplemented, "an event has no answer")
	case u.state.Load() == abandoned:
		return errReturned
	case u.state.Load() == sent:
		return status.New(status.Internal, "a unary handler sent twice")
	}
	return nil
}

func (u *unary) send(c *Call, v any) error {
	if err := u.open(); err != nil {
		return err
	}
	rsp := u.rsp
	body, err := c.encode(rsp.Body[:0], v)
	if err != nil {
		return err
	}
	return u.put(c, rsp, c.route.codec.ContentType(), body)
}

func (u *unary) sendRaw(c *Call, contentType string, body []byte) error {
	if err := u.open(); err != nil {
		return err
	}
	rsp := u.rsp
	return u.put(c, rsp, contentType, append(rsp.Body[:0], body...))
}

// put makes body the answer, unless the handler has been given up meanwhile: rsp is another's then.
func (u *unary) put(c *Call, rsp *transport.Message, contentType string, body []byte) error {
	if !u.state.CompareAndSwap(awaited, sent) {
		return errReturned
	}
	if len(rsp.Header) == 0 && contentType == c.route.codec.ContentType() && len(c.route.reply) > 0 {
		rsp.Header, rsp.Body = append(rsp.Header, c.route.reply...), body
		return nil
	}
	header, err := rsp.Header.Set(transport.HeaderContentType, contentType)
	if err != nil {
		u.state.Store(awaited)
		return err
	}
	rsp.Header, rsp.Body = header, body
	return nil
}

func (u *unary) setHeader(key, value string) error {
	switch {
	case u.state.Load() == abandoned:
		return errReturned
	case u.rsp == nil: // an event, whose reply nobody reads
		return nil
	}
	header, err := u.rsp.Header.Set(key, value)
	u.rsp.Header = header
	return err
}

// begin gives a Call for one message. rsp is nil for an event.
func (rt *route) begin(ctx context.Context, body []byte, rsp *transport.Message) *Call {
	c, ok := rt.exchanges.Get().(*Call)
	if !ok {
		c = new(Call)
		c.pipe = &c.unary
	}
	c.route, c.ctx = rt, ctx
	u := &c.unary
	u.body, u.rsp, u.received, u.taken = body, rsp, false, false
	if u.state.Load() != awaited { // a load is cheaper
		u.state.Store(awaited)
	}
	return c
}

// end takes back a Call whose handler returned err, and gives the error of the exchange. One that went as it should is used
// again. Where it did not, a handler may be behind that its middleware no longer waits for: that one keeps the Call, which
// takes nothing from it, and the storage that it may be writing to.
func (c *Call) end(err error) error {
	u := &c.unary
	done := u.taken
	if u.rsp != nil {
		done = u.state.Load() == sent
	}
	if err == nil && done {
		c.ctx, c.message, u.id = context.Background(), nil, ""
		u.body, u.rsp, u.received = nil, nil, true
		c.route.exchanges.Put(c)
		return nil
	}
	if u.state.Swap(abandoned) == awaited && u.rsp != nil {
		u.rsp.Body = nil
		if err == nil {
			err = status.New(status.Internal, "the handler sent no answer")
		}
	}
	return err
}
