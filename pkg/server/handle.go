package server

import (
	"context"
	"errors"
	"io"
	"iter"
	"reflect"

	"github.com/cb02dfca/micro/pkg/schema"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// EndpointOption changes an endpoint that is registered by its types.
type EndpointOption func(*Endpoint)

// Doc says in a sentence what the endpoint does.
func Doc(text string) EndpointOption { return func(e *Endpoint) { e.Doc = text } }

// Idempotent declares that running the endpoint twice does what running it once does. Clients then send a call again
// whose outcome they do not know.
func Idempotent() EndpointOption { return func(e *Endpoint) { e.Idempotent = true } }

// EndpointMetadata sets a label of the endpoint.
func EndpointMetadata(key, value string) EndpointOption {
	return func(e *Endpoint) {
		if e.Metadata == nil {
			e.Metadata = map[string]string{}
		}
		e.Metadata[key] = value
	}
}

// Inline has calls always run on the goroutine that reads their connection: for handlers that do not wait for anything, and
// take some microseconds at most. One that goes on for longer delays the calls behind it by some milliseconds each time. The
// default is to run calls there as long as they are fast, and to give each a goroutine of its own where they are not; it costs
// about as little, and bounds what an endpoint may delay in all.
//
// Calls over plain HTTP/1.1 run on the goroutine of their connection in any case, fast or not, and the caller gets its answer in
// time. Over HTTP/2, where the default is a goroutine for each call, the caller of an Inline endpoint gets no answer before its
// handler has returned, even when the time is over. Transports that carry calls as messages have a goroutine in any case.
func Inline() EndpointOption { return func(e *Endpoint) { e.mode = transport.PaceInline } }

// Blocking gives each call a goroutine of its own from the first on: for handlers that are known to wait, or to work for
// long, so that none of their calls delays another's while that is found out.
func Blocking() EndpointOption { return func(e *Endpoint) { e.mode = transport.PaceGoroutine } }

// Pooled has a unary handler's messages used again, so that a call allocates none: the request, and the answer of a handler
// that fills it. The handler agrees to keep neither, nor any part of them, when it has returned, and to put into the request
// nothing that is used elsewhere. The answer may hold parts of the request, and whatever else.
//
// A request keeps the storage of its fields where the message has ResetVT, as vtprotobuf's feature pool generates it. The
// answer that a handler returns is left to the collector.
func Pooled() EndpointOption { return func(e *Endpoint) { e.pooled = true } }

// typed makes the Endpoint of a handler of Req and Rsp.
func typed(name string, kind Kind, req, rsp reflect.Type, opts []EndpointOption) Endpoint {
	e := Endpoint{
		Name: name, Kind: kind, RequestType: req.Name(), ResponseType: rsp.Name(),
		Request: schema.Of(req), Response: schema.Of(rsp), request: req, response: rsp, poolable: kind == Unary,
	}
	for _, opt := range opts {
		opt(&e)
	}
	return e
}

// Handle registers a unary handler: "Say.Hello". A nil answer without an error is sent as the zero Rsp.
func Handle[Req, Rsp any](s *Server, name string, h func(context.Context, *Req) (*Rsp, error), opts ...EndpointOption) error {
	if h == nil {
		return s.Handle(Endpoint{Name: name}, nil)
	}
	e := typed(name, Unary, reflect.TypeFor[Req](), reflect.TypeFor[Rsp](), opts)
	requests := storeOf[Req](e.pooled, true)
	return s.Handle(e, func(ctx context.Context, c *Call) error {
		req := requests.get().(*Req)
		err := c.Recv(req)
		if err == nil {
			var rsp *Rsp
			if rsp, err = h(ctx, req); err == nil {
				if rsp == nil {
					rsp = new(Rsp)
				}
				err = c.Send(rsp) // it may hold parts of req
			}
		}
		requests.put(req)
		return err
	})
}

// HandleInto registers a unary handler that fills its answer, which is the zero Rsp when it is called. With [Pooled] such
// a call costs no allocation but the handler's own.
func HandleInto[Req, Rsp any](s *Server, name string, h func(context.Context, *Req, *Rsp) error, opts ...EndpointOption) error {
	if h == nil {
		return s.Handle(Endpoint{Name: name}, nil)
	}
	e := typed(name, Unary, reflect.TypeFor[Req](), reflect.TypeFor[Rsp](), opts)
	requests, answers := storeOf[Req](e.pooled, true), storeOf[Rsp](e.pooled, false)
	return s.Handle(e, func(ctx context.Context, c *Call) error {
		req, rsp := requests.get().(*Req), answers.get().(*Rsp)
		err := c.Recv(req)
		if err == nil {
			if err = h(ctx, req, rsp); err == nil {
				err = c.Send(rsp)
			}
		}
		answers.put(rsp) // it may hold parts of req
		requests.put(req)
		return err
	})
}

// Sender sends the answers of a server stream. Send is for one goroutine at a time.
type Sender[Rsp any] struct{ call *Call }

// Send sends the next answer. It waits while the caller does not read, at most 10 seconds; then the stream has ended.
func (s *Sender[Rsp]) Send(rsp *Rsp) error { return s.call.Send(rsp) }

// Call gives the exchange below: its headers, its caller.
func (s *Sender[Rsp]) Call() *Call { return s.call }

// Receiver receives the requests of a client stream. It is for one goroutine at a time.
type Receiver[Req any] struct{ call *Call }

// Recv gives the next request; io.EOF after the last.
func (r *Receiver[Req]) Recv() (*Req, error) { return recv[Req](r.call) }

// All yields the requests to the last. An error is yielded once, as the end.
func (r *Receiver[Req]) All() iter.Seq2[*Req, error] { return all(r.Recv) }

// Call gives the exchange below.
func (r *Receiver[Req]) Call() *Call { return r.call }

// Stream is both ways of a bidirectional stream: one goroutine may send while another receives.
type Stream[Req, Rsp any] struct{ call *Call }

// Send sends the next answer, as Sender's does.
func (s *Stream[Req, Rsp]) Send(rsp *Rsp) error { return s.call.Send(rsp) }

// Recv gives the next request; io.EOF after the last: the caller may then still read answers.
func (s *Stream[Req, Rsp]) Recv() (*Req, error) { return recv[Req](s.call) }

// All yields the requests to the last. An error is yielded once, as the end.
func (s *Stream[Req, Rsp]) All() iter.Seq2[*Req, error] { return all(s.Recv) }

// Call gives the exchange below.
func (s *Stream[Req, Rsp]) Call() *Call { return s.call }

func recv[Req any](c *Call) (*Req, error) {
	req := new(Req)
	if err := c.Recv(req); err != nil {
		return nil, err
	}
	return req, nil
}

func all[T any](next func() (*T, error)) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for {
			v, err := next()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// one receives the single request of a server stream.
func one(c *Call, req any) error {
	err := c.Recv(req)
	if errors.Is(err, io.EOF) {
		return status.New(status.InvalidArgument, "%s wants one request, and got none", c.Endpoint())
	}
	return err
}

// HandleServerStream registers a handler of one request and many answers.
func HandleServerStream[Req, Rsp any](s *Server, name string, h func(context.Context, *Req, *Sender[Rsp]) error, opts ...EndpointOption) error {
	if h == nil {
		return s.Handle(Endpoint{Name: name, Kind: ServerStream}, nil)
	}
	return s.Handle(typed(name, ServerStream, reflect.TypeFor[Req](), reflect.TypeFor[Rsp](), opts), func(ctx context.Context, c *Call) error {
		req := new(Req)
		if err := one(c, req); err != nil {
			return err
		}
		return h(ctx, req, &Sender[Rsp]{c})
	})
}

// HandleClientStream registers a handler of many requests and one answer.
func HandleClientStream[Req, Rsp any](s *Server, name string, h func(context.Context, *Receiver[Req]) (*Rsp, error), opts ...EndpointOption) error {
	if h == nil {
		return s.Handle(Endpoint{Name: name, Kind: ClientStream}, nil)
	}
	return s.Handle(typed(name, ClientStream, reflect.TypeFor[Req](), reflect.TypeFor[Rsp](), opts), func(ctx context.Context, c *Call) error {
		rsp, err := h(ctx, &Receiver[Req]{c})
		if err != nil {
			return err
		}
		if rsp == nil {
			rsp = new(Rsp)
		}
		return c.Send(rsp)
	})
}

// HandleBidi registers a handler of many requests and many answers, in any order.
func HandleBidi[Req, Rsp any](s *Server, name string, h func(context.Context, *Stream[Req, Rsp]) error, opts ...EndpointOption) error {
	if h == nil {
		return s.Handle(Endpoint{Name: name, Kind: Bidi}, nil)
	}
	return s.Handle(typed(name, Bidi, reflect.TypeFor[Req](), reflect.TypeFor[Rsp](), opts), func(ctx context.Context, c *Call) error {
		return h(ctx, &Stream[Req, Rsp]{c})
	})
}
