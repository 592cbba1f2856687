package client

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// resendPause bounds the pause before a call is sent again that may have run; it is drawn between zero and this.
const resendPause = 50 * time.Millisecond

// attempt tries nodes until one answers.
func (c *Client) attempt(ctx context.Context, req *Request, o callOptions) (*Response, error) {
	header, err := requestHeader(ctx, req)
	t := &trial{client: c, req: req, opts: o, header: header, start: time.Now(), resends: o.resends}
	if err != nil {
		return nil, t.fail(Send, err)
	}
	for {
		start := time.Now()
		node, done, err := c.pick(ctx, req, o, t.avoid)
		t.observe(Event{Phase: Select, Node: node, Elapsed: time.Since(start), Err: err})
		if err != nil {
			return nil, t.noNode(err)
		}
		rsp, phase, err := t.try(ctx, node)
		done(failed(ctx, err))
		if err == nil {
			rsp.Attempts = len(t.tried) + 1
			return rsp, nil
		}
		t.tried = append(t.tried, Attempt{node, phase, err})
		if !t.again(ctx, node, err) {
			return nil, t.fail(phase, err)
		}
	}
}

// requestHeader gives the header of a Call or an Open: the framework's own first, then the metadata.
func requestHeader(ctx context.Context, req *Request) (metadata.MD, error) {
	var md metadata.MD
	var err error
	set := func(key, value string) {
		if err == nil && value != "" {
			md, err = md.Set(key, value)
		}
	}
	set(transport.HeaderService, req.Service)
	set(transport.HeaderEndpoint, req.Endpoint)
	set(transport.HeaderContentType, req.ContentType)
	if err != nil {
		return nil, err
	}
	return merge(md, metadata.Outgoing(ctx), req.Header)
}

// pick takes a node, or the one that the call names by address.
func (c *Client) pick(ctx context.Context, req *Request, o callOptions, avoid []string) (registry.Node, func(error), error) {
	if o.address != "" {
		if len(avoid) > 0 {
			return registry.Node{}, nil, selector.ErrExhausted
		}
		return registry.Node{ID: o.address, Service: req.Service, Address: o.address}, func(error) {}, nil
	}
	if c.selector == nil {
		return registry.Node{}, nil, errors.New("no registry: give WithRegistry, or the call an Address")
	}
	return c.selector.Select(ctx, selector.Query{Service: req.Service, Key: o.key, Filters: o.filters, Avoid: avoid})
}

// trial is a call with the nodes that it tried.
type trial struct {
	client  *Client
	req     *Request
	opts    callOptions
	header  metadata.MD
	start   time.Time
	tried   []Attempt
	avoid   []string
	stale   bool // the last attempt failed on a connection that was there already
	resends int  // how often the call may still be sent again after it may have run
}

func (t *trial) observe(e Event) {
	if t.opts.observe != nil {
		e.Attempt = len(t.tried) + 1
		t.opts.observe(e)
	}
}

func (t *trial) fail(phase Phase, err error) error {
	return &Error{Service: t.req.Service, Endpoint: t.req.Endpoint, Phase: phase, Elapsed: time.Since(t.start), Attempts: t.tried, Err: err}
}

// noNode is the error of a call that no node is left for: after attempts, the last one's.
func (t *trial) noNode(err error) error {
	if n := len(t.tried); n > 0 {
		return t.fail(t.tried[n-1].Phase, t.tried[n-1].Err)
	}
	return t.fail(Select, err)
}

// again decides whether another node, or a fresh connection to this one, is tried.
func (t *trial) again(ctx context.Context, node registry.Node, err error) bool {
	unrun := transport.NotSent(err) || status.IsRefused(err)
	switch {
	case ctx.Err() != nil || len(t.tried) >= t.opts.attempts || t.req.Stream && !unrun:
		return false
	case t.stale && transport.NotSent(err):
		return true // the same node, freshly dialled: it may just have closed an idle connection
	case unrun:
		t.avoid = append(t.avoid, node.ID)
		return true
	case !lost(err) || t.resends == 0 || !(t.opts.idempotent || declared(node, t.req.Endpoint)):
		return false
	}
	t.resends--
	t.avoid = append(t.avoid, node.ID)
	pause := time.NewTimer(rand.N(resendPause))
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-pause.C:
		return true
	}
}

// lost reports whether err says that a call's outcome is not known: no answer came. A message over the limit is over it
// at every node.
func lost(err error) bool {
	var e *status.Error
	return !errors.As(err, &e) && !errors.Is(err, transport.ErrTooLarge)
}

// declared reports whether node's record says that the endpoint is idempotent.
func declared(node registry.Node, endpoint string) bool {
	for name := range strings.SplitSeq(node.Metadata[registry.MetaIdempotent], ",") {
		if name == endpoint {
			return true
		}
	}
	return false
}

// try sends the call to node.
func (t *trial) try(ctx context.Context, node registry.Node) (*Response, Phase, error) {
	if t.req.Stream {
		return t.tryStream(ctx, node)
	}
	start := time.Now()
	l, reused, err := t.client.pool.link(ctx, node.Address)
	t.observe(Event{Phase: Dial, Node: node, Elapsed: time.Since(start), Reused: reused, Err: err})
	if err != nil {
		return nil, Dial, err
	}
	defer l.release()
	t.stale = reused
	start = time.Now()
	req := transport.Message{Kind: transport.Call, Timeout: remaining(ctx), Header: t.header, Body: t.req.Body}
	var rsp transport.Message
	if err := l.Call(ctx, &req, &rsp); err != nil {
		phase := Wait
		if transport.NotSent(err) {
			phase = Send
		}
		if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
			err = errors.Join(ctx.Err(), err)
		}
		t.observe(Event{Phase: phase, Node: node, Elapsed: time.Since(start), Err: err})
		return nil, phase, broken(err)
	}
	out := &Response{ContentType: rsp.Header.Get(transport.HeaderContentType), Header: transport.Metadata(rsp.Header), Body: rsp.Body, Node: node}
	if e := status.Parse(rsp.Header.Get(transport.HeaderError)); e != nil {
		t.observe(Event{Phase: Done, Node: node, Elapsed: time.Since(start), Err: e})
		return nil, Wait, e
	}
	t.observe(Event{Phase: Done, Node: node, Elapsed: time.Since(start)})
	return out, Done, nil
}

// broken says in words what the end of a connection means for a call.
func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &lostError{err}
	}
	return err
}

type lostError struct{ err error }

func (e *lostError) Error() string {
	return "the connection was lost before the answer: " + e.err.Error()
}
func (e *lostError) Unwrap() error { return e.err }
