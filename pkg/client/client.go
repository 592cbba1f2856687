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
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Request is a call whose body is encoded.
type Request struct {
	Service     string
	Endpoint    string
	ContentType string
	// Header is sent beside the context's outgoing metadata, and wins over it.
	Header metadata.MD
	Body   []byte
	// Stream says that the request opens a stream; it has no body.
	Stream bool
}

// Response is the answer to a Request. A stream's has no body.
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

// Invoker carries out a request.
type Invoker func(ctx context.Context, req *Request) (*Response, error)

// Middleware wraps calls, and the opening of streams, all attempts together.
type Middleware func(next Invoker) Invoker

// Client calls services. Make it with [New]. Its methods may be called concurrently.
type Client struct {
	options
	pool  *pool
	owned selector.Selector // made by New, so closed by Close
	// streams numbers the streams. A connection has one at a time: the numbers only tell late messages apart.
	streams atomic.Uint32
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
	case len(o.codecs) == 0:
		return nil, errors.New("client: no codecs")
	}
	if o.logger == nil {
		o.logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{options: o}
	if o.registry != nil {
		s, err := selector.New(o.registry)
		if err != nil {
			return nil, err
		}
		c.selector, c.owned = s, s
	}
	c.pool = newPool(o.transport, o.idle)
	return c, nil
}

// Close breaks the client's connections and ends its watches. Calls under way fail with transport.ErrClosed.
func (c *Client) Close() error {
	err := c.pool.close()
	if c.owned != nil {
		err = errors.Join(err, c.owned.Close())
	}
	return err
}

func readCallOptions(opts []CallOption) (callOptions, error) {
	o := callOptions{attempts: DefaultAttempts, resends: DefaultResends}
	for _, opt := range opts {
		opt(&o)
	}
	return o, o.err
}

// Do makes a call whose body is encoded already. req is not changed; the options Header and ContentType win over it. The
// error is an [*Error], unless an option is wrong; a handler's error is found in it by errors.As as a *status.Error.
func (c *Client) Do(ctx context.Context, req *Request, opts ...CallOption) (*Response, error) {
	o, err := readCallOptions(opts)
	if err != nil {
		return nil, err
	}
	out := *req
	if out.Header, err = merge(req.Header, o.header); err != nil {
		return nil, fmt.Errorf("client: request to %s %s: %w", req.Service, req.Endpoint, err)
	}
	if o.contentType != "" {
		out.ContentType = o.contentType
	}
	return c.invoke(ctx, &out, o)
}

func (c *Client) invoke(ctx context.Context, req *Request, o callOptions) (*Response, error) {
	if o.timeout == 0 && !req.Stream {
		o.timeout = c.timeout
	}
	if o.timeout > 0 && !req.Stream {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	invoke := func(ctx context.Context, req *Request) (*Response, error) { return c.attempt(ctx, req, o) }
	for _, m := range slices.Backward(c.middleware) {
		invoke = m(invoke)
	}
	rsp, err := invoke(ctx, req)
	if err == nil && rsp == nil {
		return nil, fmt.Errorf("client: %s %s: a middleware gave neither an answer nor an error", req.Service, req.Endpoint)
	}
	return rsp, err
}

// Call calls service's endpoint with req and decodes the answer into rsp, a pointer. A nil req sends an empty body, a nil
// rsp drops the answer. The error is an [*Error].
func (c *Client) Call(ctx context.Context, service, endpoint string, req, rsp any, opts ...CallOption) error {
	o, err := readCallOptions(opts)
	if err != nil {
		return err
	}
	cd, body, err := c.encode(o.contentType, req)
	if err != nil {
		return fmt.Errorf("client: request to %s %s: %w", service, endpoint, err)
	}
	answer, err := c.invoke(ctx, &Request{Service: service, Endpoint: endpoint, ContentType: cd.ContentType(), Header: o.header, Body: body}, o)
	if err != nil || rsp == nil {
		return err
	}
	return c.decode(answer.ContentType, cd, answer.Body, rsp, service, endpoint)
}

// Call calls service's endpoint with req and gives the decoded answer.
func Call[Rsp any](ctx context.Context, c *Client, service, endpoint string, req any, opts ...CallOption) (*Rsp, error) {
	rsp := new(Rsp)
	if err := c.Call(ctx, service, endpoint, req, rsp, opts...); err != nil {
		return nil, err
	}
	return rsp, nil
}

// encode encodes v by the codec of contentType, or by the first that can carry it.
func (c *Client) encode(contentType string, v any) (codec.Codec, []byte, error) {
	if contentType != "" {
		cd, err := c.codecs.For(contentType)
		if err != nil || v == nil {
			return cd, nil, err
		}
		body, err := cd.Append(nil, v)
		return cd, body, err
	}
	if v == nil {
		return c.codecs[len(c.codecs)-1], nil, nil
	}
	var err error
	for _, cd := range c.codecs {
		var body []byte
		if body, err = cd.Append(nil, v); err == nil {
			return cd, body, nil
		}
		if !errors.Is(err, codec.ErrUnsupported) {
			break
		}
	}
	return nil, nil, err
}

// decode decodes an answer, whose content type may differ from the request's.
func (c *Client) decode(contentType string, sent codec.Codec, body []byte, v any, service, endpoint string) error {
	cd := sent
	if contentType != "" && contentType != sent.ContentType() {
		var err error
		if cd, err = c.codecs.For(contentType); err != nil {
			return fmt.Errorf("client: answer of %s %s: %w", service, endpoint, err)
		}
	}
	if err := cd.Unmarshal(body, v); err != nil {
		return fmt.Errorf("client: answer of %s %s does not decode: %w", service, endpoint, err)
	}
	return nil
}

// Publish publishes v, encoded, to topic, and tells what became of it. See [broker.Broker] for what the error means.
func (c *Client) Publish(ctx context.Context, topic string, v any, opts ...CallOption) (broker.Report, error) {
	o, err := readCallOptions(opts)
	if err != nil {
		return broker.Report{}, err
	}
	if c.broker == nil {
		return broker.Report{}, errors.New("client: no broker: give WithBroker")
	}
	cd, body, err := c.encode(o.contentType, v)
	if err != nil {
		return broker.Report{}, fmt.Errorf("client: message to %q: %w", topic, err)
	}
	header, err := merge(nil, metadata.Outgoing(ctx), o.header)
	if err == nil {
		header, err = header.Set(transport.HeaderContentType, cd.ContentType())
	}
	if err != nil {
		return broker.Report{}, fmt.Errorf("client: message to %q: %w", topic, err)
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	return c.broker.Publish(ctx, &broker.Message{Topic: topic, Header: header, Body: body})
}

// merge gives md with the pairs of others set, later ones over earlier ones, but for names that the framework keeps.
func merge(md metadata.MD, others ...metadata.MD) (metadata.MD, error) {
	for _, other := range others {
		for k, v := range other.All() {
			var err error
			if transport.Reserved(k) {
				continue
			}
			if md, err = md.Set(k, v); err != nil {
				return nil, err
			}
		}
	}
	return md, nil
}

// remaining is the time to ctx's deadline; 0 for none.
func remaining(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), 1)
	}
	return 0
}

// errNoAnswer tells a selector that a node did not answer in time, while the call still had time.
var errNoAnswer = errors.New("client: the node did not answer in time")

// failed tells a selector how a call went: an error that a handler answered with says nothing against its node, and a
// deadline does where it was not the call's own.
func failed(ctx context.Context, err error) error {
	if errors.Is(err, transport.ErrTooLarge) {
		return nil // this call's own fault
	}
	if e := (*status.Error)(nil); errors.As(err, &e) {
		if e.Remote && !e.Refused {
			return nil
		}
		return err
	}
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return errNoAnswer
	}
	return err
}
