package server

import (
	"context"
	"fmt"
	"slices"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// maxOpened bounds the answers, in bytes, to the calls of one message: what a transport's message holds unless configured
// otherwise. A call that comes when there are more is not run.
const maxOpened = 4 << 20

// opened carries out the calls of a message that came in an envelope. Each goes a route of its own, to the handler that a plain
// call of it has, with the same limits and middleware.
type opened struct {
	outer    *route
	envelope codec.Envelope
	ctx      context.Context
	req      transport.Message  // the message, with the body of the latest call
	rsp      *transport.Message // the latest answer
	calls    int
	size     int // of the answers so far
}

var _ codec.Calls = (*opened)(nil)

// unnamed leads to where a message that names no endpoint is looked at: its body may name one. plainly is where it leads else.
func (r *serving) unnamed(header metadata.MD, plainly *route) *route {
	plainly.refuse() // with no endpoint, it is broken
	rt := r.toward(header)
	_ = rt.speak(header) // whoever asks has looked at that
	rt.envelope, rt.otherwise = r.recognizers[0], plainly
	return rt
}

// open answers a message in an envelope. What becomes of its calls stands in the answer.
func (rt *route) open(ctx context.Context, req, rsp *transport.Message) {
	env := rt.envelope
	if rt.otherwise != nil {
		i := slices.IndexFunc(rt.recognizers, func(rec codec.Recognizer) bool { return rec.Recognizes(rt.contentType, req.Body) })
		if i < 0 {
			rt.otherwise.serve(ctx, req, rsp)
			return
		}
		env = rt.recognizers[i]
	}
	o := &opened{outer: rt, envelope: env, ctx: ctx, req: *req, rsp: new(transport.Message)}
	rsp.Body = env.Answer(rsp.Body, req.Body, o)
	if len(rsp.Body) == 0 { // nobody waits for an answer, and none has no type: in HTTP that is status 204
		if o.calls == 1 {
			rsp.Header = append(rsp.Header, o.rsp.Header.Without(transport.HeaderContentType)...)
		}
		return
	}
	if o.calls == 1 && len(o.rsp.Header) > 0 { // of several each has its own
		header, err := o.rsp.Header.Set(transport.HeaderContentType, rt.contentType)
		if err == nil {
			rsp.Header = append(rsp.Header, header...)
			return
		}
	}
	rsp.Header = append(rsp.Header, rt.reply...)
}

// within gives the route of one call, whose value is encoded by values.
func (rt *route) within(endpoint string, values codec.Codec) *route {
	in := &route{Server: rt.Server, gate: rt.gate, foreign: rt.foreign, broken: rt.broken, codec: values}
	in.contentType = in.codec.ContentType()
	in.toUnary([]byte(endpoint))
	return in
}

// named gives the endpoint of a call: both the header of the message and its body may name it.
func (o *opened) named(endpoint string) string {
	if endpoint == "" {
		return o.outer.name
	}
	return endpoint
}

// Fields names the fields of an endpoint's request.
func (o *opened) Fields(endpoint string) []string {
	ep := o.outer.endpoints[o.named(endpoint)]
	if ep == nil {
		return nil
	}
	s := ep.Request.Resolve()
	if s == nil {
		return nil
	}
	names := make([]string, len(s.Properties))
	for i, p := range s.Properties {
		names[i] = p.Name
	}
	return names
}

// Call carries out a call.
func (o *opened) Call(endpoint string, body []byte) ([]byte, error) {
	endpoint = o.named(endpoint)
	in := o.outer.within(endpoint, o.envelope.Values())
	answer, err := o.run(in, endpoint, body)
	if err == nil {
		return answer, nil
	}
	e := in.public(err)
	if e.ID == "" {
		sent := status.Wrap(e, e.Code, "%s", e.Detail)
		sent.ID, sent.Refused = o.outer.Server.name, e.Refused
		e = sent
	}
	if in.endpoint == nil && e.Code == status.NotFound {
		return nil, fmt.Errorf("%w: %w", codec.ErrEndpoint, e)
	}
	return nil, e
}

// run runs the handler.
func (o *opened) run(in *route, endpoint string, body []byte) ([]byte, error) {
	if name := o.outer.name; name != "" && name != endpoint {
		return nil, status.New(status.InvalidArgument, "the header names endpoint %.100q and the message %.100q", name, endpoint)
	}
	if o.size > maxOpened {
		return nil, status.Refuse(status.TooLarge, "the answers to the calls before this one have over %d bytes", maxOpened)
	}
	if err := o.ctx.Err(); err != nil && o.calls > 0 {
		return nil, status.Refuse(status.CodeOf(err), "the time was over before this call's turn")
	}
	o.calls++
	o.req.Body, o.rsp.Header, o.rsp.Body = body, o.rsp.Header[:0], o.rsp.Body[:0]
	if err := in.answer(o.ctx, &o.req, o.rsp); err != nil {
		// The handler may have left somebody behind who holds the former.
		o.rsp = &transport.Message{Header: o.rsp.Header.Clone()}
		return nil, err
	}
	if ct, _ := o.rsp.Header.Bytes(transport.HeaderContentType); string(ct) != in.contentType {
		return nil, status.New(status.Internal, "the answer of %s is %.100s, which %s does not carry", endpoint, ct, o.envelope.ContentType())
	}
	o.size += len(o.rsp.Body)
	return o.rsp.Body, nil
}
