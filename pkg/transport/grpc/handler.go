package grpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Handler serves the methods of a gRPC service that is not made of endpoints, such as that of reflection: Options.Services has it. It
// receives and sends messages as they are encoded. ctx ends with the caller's deadline and when the caller has gone. The error that it
// returns is the caller's, see [status.FromError].
type Handler func(ctx context.Context, c *Call) error

// Call is a call of a method that a Handler serves. It belongs to the handler until that returns. Recv and Send may be called
// concurrently with each other, each by one goroutine at a time.
type Call struct {
	x      *exchange
	method string
}

// Method is what is called: "Check" of /grpc.health.v1.Health/Check.
func (c *Call) Method() string { return c.method }

// ContentType is that of the messages: "application/protobuf".
func (c *Call) ContentType() string { return c.x.kind }

// Header is the caller's metadata. It may be kept.
func (c *Call) Header() metadata.MD { return c.x.head.metadata.Clone() }

// Recv gives the caller's next message, in storage of its own; io.EOF after the last.
func (c *Call) Recv() ([]byte, error) {
	body, err := c.x.reader.next(nil)
	switch {
	case err == nil:
		return body, nil
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	}
	return nil, unread(err)
}

// Send sends a message, at once. body is not retained. It waits while the caller does not read.
func (c *Call) Send(body []byte) error {
	x := c.x
	if len(body) > x.l.t.o.MaxMessage {
		return status.New(status.TooLarge, "a message of %d bytes is over the limit of %d", len(body), x.l.t.o.MaxMessage)
	}
	if !x.begun {
		x.describe(nil)
		x.begun = true
	}
	x.out = appendFrame(x.out[:0], body, x.packs)
	_, err := x.w.Write(x.out)
	if err == nil {
		err = http.NewResponseController(x.w).Flush()
	}
	if err != nil {
		return status.Wrap(err, status.Canceled, "the caller went away")
	}
	return nil
}

// Endpoints is what the server serves; nil where it has not told. It may be kept.
func (c *Call) Endpoints() transport.Endpoints { return c.x.l.endpoints }

// Ask makes a unary call to the server's own endpoint, such as Debug.Info, and gives the encoded answer. The error is a *status.Error.
func (c *Call) Ask(ctx context.Context, endpoint, contentType string, body []byte) ([]byte, error) {
	if c.x.l.calls == nil {
		return nil, status.New(status.Unimplemented, "no calls are served here")
	}
	req := transport.Message{Kind: transport.Call, Body: body}
	req.Header = metadata.Of(transport.HeaderEndpoint, endpoint, transport.HeaderContentType, contentType)
	rsp := transport.Message{Kind: transport.Reply}
	c.x.l.calls(ctx, c.x.r.RemoteAddr, &req, &rsp)
	if e := status.Parse(rsp.Header.Get(transport.HeaderError)); e != nil {
		e.Remote = false
		return nil, e
	}
	return rsp.Body, nil
}

// serveHandler serves a request by a Handler.
func (l *Listener) serveHandler(x *exchange, h Handler, method string) {
	ctx := x.r.Context()
	if x.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, x.timeout)
		defer cancel()
	}
	err := runHandler(ctx, h, &Call{x: x, method: method})
	if err == nil && !x.begun { // an answer of no messages has headers of its own
		x.describe(nil)
		x.begun = true
	}
	e := status.FromError(err)
	if e != nil && e.Code == status.Internal && errors.Unwrap(e) != nil {
		l.t.o.Logger.Error("transport/grpc: handler failed", "method", x.r.URL.Path, "error", errors.Unwrap(e))
	}
	x.end(nil, e)
}

func runHandler(ctx context.Context, h Handler, c *Call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return h(ctx, c)
}
