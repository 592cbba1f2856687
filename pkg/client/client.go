// Package client calls services: it takes a node from a selector, a connection from its pool, and brings the answer back.
//
// A call that no node has seen goes to another one at once. A call that was sent, and whose outcome is not known, is sent
// again only where it is idempotent; the client knows that before the first failure, from the node's record.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Request is a call whose body is encoded. What a middleware is given is valid until that middleware returns, the Body, the
// Header and the Request itself: it clones what it keeps. It may pass a copy on in which it has changed fields. A
// Request that it makes from nothing is no longer the caller's: it is called with the default options, but for the
// deadline, which is the context's.
type Request struct {
	Service     string
	Endpoint    string
	ContentType string // where it is that of an RPC format, Body is the value within
	// Header is sent beside the context's outgoing metadata, and wins over it.
	Header metadata.MD
	Body   []byte
	// Stream says that the request opens a stream; it has no body.
	Stream bool

	call       *call // with the options; it counts only while its generation is this one
	generation uint32
}

// Response is the answer to a Request. A stream's has no body. The one that [Client.Do] returns is the caller's to keep. What
// a middleware gets from the next Invoker is valid until the middleware returns: it clones what it keeps.
type Response struct {
	ContentType string
	Header      metadata.MD
	Body        []byte
	// Node is who answered.
	Node registry.Node
	// Attempts is how many nodes were tried, the one that answered included.
	Attempts int

	stream *Stream
}

// Invoker carries out a request. It may be called concurrently.
type Invoker func(ctx context.Context, req *Request) (*Response, error)

// Middleware wraps calls, and the opening of streams, all attempts together. It is called once, by [New]; the Invoker that
// it gives is called for each call. That may call next not at all, or several times, also at once, and each Response
// is valid until it returns; see [Request] and [Response] for what it may keep. The context has the call's deadline. A call costs least
// where that context is passed on as it is: metadata that a middleware adds does better in a copy of the Request, in its
// Header, than in a context of its own.
type Middleware func(next Invoker) Invoker

// Client calls services. Make it with [New]. Its methods may be called concurrently.
type Client struct {
	options
	pool      *pool
	chain     Invoker // the middleware, around innermost
	calls     calls
	headers   headers
	usuals    usuals
	all       codec.Set          // what WithCodecs gave; codecs has the plain ones, where there are any
	envelopes []codec.Envelope   // those of all
	calling   atomic.Uint64      // numbers the calls in envelopes
	owned     selector.Selector  // made by New, so closed by Close
	balancer  *selector.Balancer // the selector, where it is one
	// streams numbers the streams. A connection has one at a time: the numbers only tell late messages apart.
	streams atomic.Uint32
	others  *transports // by which addresses are dialled
}

// New makes a client. It needs a transport, and a registry or a selector unless every call names an Address.
func New(opts ...Option) (*Client, error) {
	o := defaults()
	for _, opt := range opts {
		opt(&o)
	}
	switch {
	case o.transport == nil:
		return nil, errors.New("client: no transport: give WithTransport")
	case o.registry != nil && o.selector != nil:
		return nil, errors.New("client: both WithRegistry and WithSelector")
	case o.timeout <= 0 || o.idle <= 0:
		return nil, fmt.Errorf("client: timeout %v and idle %v must be more than 0", o.timeout, o.idle)
	case o.connections < 1 || o.connections > MaxConnections:
		return nil, fmt.Errorf("client: %d connections, want 1 to %d", o.connections, MaxConnections)
	case len(o.codecs) == 0:
		return nil, errors.New("client: no codecs")
	}
	if o.logger == nil {
		o.logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{options: o}
	c.sort()
	if o.registry != nil {
		s, err := selector.New(o.registry)
		if err != nil {
			return nil, err
		}
		c.selector, c.owned = s, s
	}
	c.balancer, _ = c.selector.(*selector.Balancer)
	c.others = newTransports(o.transport, o.openers)
	c.pool = newPool(c.others, o.idle, o.connections)
	c.calls.init(c)
	c.chain = c.innermost()
	for _, m := range slices.Backward(c.middleware) {
		c.chain = m(c.chain)
	}
	return c, nil
}

// Close breaks the client's connections and ends its watches. Calls under way fail with transport.ErrClosed.
func (c *Client) Close() error {
	err := errors.Join(c.pool.close(), c.others.close())
	if c.owned != nil {
		err = errors.Join(err, c.owned.Close())
	}
	return err
}

// Do makes a call whose body is encoded already. req is not changed; the options Header and ContentType win over it. The
// Response is the caller's to keep. The error is an [*Error], unless an option is wrong; a handler's error is found in it by
// errors.As as a *status.Error.
func (c *Client) Do(ctx context.Context, req *Request, opts ...CallOption) (*Response, error) {
	k := c.begin(opts)
	rsp, err := k.do(ctx, req)
	c.end(k)
	return rsp, err
}

// do is Do with a record.
func (k *call) do(ctx context.Context, req *Request) (*Response, error) {
	if err := k.take(req); err != nil {
		return nil, err
	}
	recycled := k.first.in
	k.first.in = transport.Message{} // its storage becomes the caller's
	rsp, err := k.invoke(ctx)
	k.first.in = recycled
	if k.first.rare != nil {
		k.first.rare.meta = metadata.Builder{} // likewise
	}
	switch {
	case err != nil:
		return nil, err
	case rsp == nil:
		return nil, k.unanswered()
	}
	kept := *rsp
	return &kept, nil
}

// take makes the record's request of one that its caller has encoded.
func (k *call) take(req *Request) (err error) {
	if k.opts.err != nil {
		return k.opts.err
	}
	k.req = *req
	if len(k.opts.header) > 0 {
		if k.req.Header, err = merge(req.Header, k.opts.header); err != nil {
			return fmt.Errorf("client: request to %s %s: %w", req.Service, req.Endpoint, err)
		}
	}
	if k.opts.contentType != "" {
		k.req.ContentType = k.opts.contentType
	}
	return nil
}

func (k *call) unanswered() error {
	return fmt.Errorf("client: %s %s: a middleware gave neither an answer nor an error", k.req.Service, k.req.Endpoint)
}

// Call calls service's endpoint with req and decodes the answer into rsp, a pointer. A nil req sends an empty body, a nil
// rsp drops the answer. Neither is kept. The error is an [*Error].
func (c *Client) Call(ctx context.Context, service, endpoint string, req, rsp any, opts ...CallOption) error {
	k := c.begin(opts)
	err := k.encode(service, endpoint, req)
	if err == nil {
		ctx = k.prepare(ctx, false)
		if own := k.ctx; own != nil {
			defer own.End(context.Canceled)
		}
		var answer *Response
		answer, err = c.chain(ctx, &k.req)
		err = k.accept(answer, err, rsp)
	}
	c.end(k)
	return err
}

// accept decodes what the chain gave.
func (k *call) accept(answer *Response, err error, rsp any) error {
	switch {
	case err != nil:
		return err
	case answer == nil:
		return k.unanswered()
	case rsp == nil:
		return nil
	}
	return k.client.decode(answer.ContentType, k.codec, answer.Body, rsp, &k.req)
}

// encode makes the record's request of v.
func (k *call) encode(service, endpoint string, v any) error {
	o, r := k.opts, &k.req
	if o.err != nil {
		return o.err
	}
	cd, body, err := k.client.encode(k.body[:0], o.contentType, v)
	if err != nil {
		return fmt.Errorf("client: request to %s %s: %w", service, endpoint, err)
	}
	k.codec, k.body = cd, body
	r.Service, r.Endpoint, r.ContentType, r.Header, r.Body, r.Stream = service, endpoint, cd.ContentType(), o.header, body, false
	return nil
}

// Call calls service's endpoint with req and gives the decoded answer.
func Call[Rsp any](ctx context.Context, c *Client, service, endpoint string, req any, opts ...CallOption) (*Rsp, error) {
	rsp := new(Rsp)
	if err := c.Call(ctx, service, endpoint, req, rsp, opts...); err != nil {
		return nil, err
	}
	return rsp, nil
}

// encode appends v to dst by the codec of contentType, or by the first that can carry it.
func (c *Client) encode(dst []byte, contentType string, v any) (codec.Codec, []byte, error) {
	if contentType != "" {
		cd, err := c.all.For(contentType)
		if err != nil || v == nil {
			return cd, dst, err
		}
		body, err := cd.Append(dst, v)
		return cd, body, err
	}
	if v == nil {
		return c.codecs[len(c.codecs)-1], dst, nil
	}
	var err error
	for _, cd := range c.codecs {
		var body []byte
		if body, err = cd.Append(dst, v); err == nil {
			return cd, body, nil
		}
		if !errors.Is(err, codec.ErrUnsupported) {
			break
		}
	}
	return nil, dst, err
}

// decode decodes an answer to req, whose content type may differ from the request's.
func (c *Client) decode(contentType string, sent codec.Codec, body []byte, v any, req *Request) error {
	if len(c.envelopes) > 0 {
		sent = inner(sent) // the envelope is off
	}
	cd := sent
	if contentType != "" && contentType != sent.ContentType() {
		var err error
		if cd, err = c.codecs.For(contentType); err != nil {
			return fmt.Errorf("client: answer of %s %s: %w", req.Service, req.Endpoint, err)
		}
	}
	if err := cd.Unmarshal(body, v); err != nil {
		return fmt.Errorf("client: answer of %s %s does not decode: %w", req.Service, req.Endpoint, err)
	}
	return nil
}
