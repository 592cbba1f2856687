package server

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// route is where calls with the same headers of the framework lead: all that need not be found out for each. It is not
// changed after it was made, and has nothing of a single call.
type route struct {
	*Server
	name        string // what is called, "Say.Hello"; of an event the topic
	event       bool   // it is a message to a topic
	subs        []*Subscription
	endpoint    *endpoint      // nil for an event, and where there is none
	contentType string         // as it came
	codec       codec.Codec    // of the messages
	reply       metadata.MD    // the header of an answer in codec
	envelope    codec.Envelope // what the messages are in; nil for plain bodies
	otherwise   *route         // where messages lead that the envelope does not recognize; nil where all are in it
	gate        *gate
	pace        *transport.Pace

	foreign bool        // it is for another service
	broken  error       // why nothing that comes this way is served
	untyped error       // why nothing is that has a body: it has no content type
	refusal metadata.MD // of the reply that tells of broken
}

// topic is what Serve knows of a topic.
type topic struct {
	subs []*Subscription
	pace *transport.Pace
}

// What a server remembers of routes, for connections that see more headers than they remember by themselves.
const (
	maxRoutes      = 4096
	maxRouteHeader = 512 // bytes
)

// routes remembers the routes that lead somewhere, for all connections.
type routes struct {
	mu    sync.RWMutex
	known map[string]*transport.Route
}

// find is the transport.Router of all connections.
func (r *serving) find(header metadata.MD) *transport.Route {
	for key, mounted := range r.mounts {
		if _, ok := header.Bytes(key); ok {
			return mounted(header)
		}
	}
	r.routes.mu.RLock()
	route := r.routes.known[string(header)]
	r.routes.mu.RUnlock()
	if route != nil {
		return route
	}
	rt := r.route(header)
	route = &transport.Route{Header: header.Clone(), Serve: rt.serve, Timeout: r.limit, Pace: rt.pace}
	if _, numbered := header.Bytes(transport.HeaderID); rt.broken == nil && len(header) <= maxRouteHeader && !numbered {
		r.routes.add(string(header), route)
	}
	return route
}

// add remembers a route. Where there are too many, any other is forgotten.
func (r *routes) add(header string, route *transport.Route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) >= maxRoutes {
		for other := range r.known {
			delete(r.known, other)
			break
		}
	}
	r.known[header] = route
}

// limit gives the time of a unary handler whose caller asked for that much. Zero is that none was asked for.
func (s *Server) limit(asked time.Duration) time.Duration {
	if asked > 0 {
		return min(asked, s.maxTimeout)
	}
	return s.handlerTimeout
}

// route finds where a unary call leads. It reads the framework's headers alone, and keeps nothing of header.
func (r *serving) route(header metadata.MD) *route {
	rt := r.toward(header)
	if name, ok := header.Bytes(transport.HeaderTopic); ok && len(name) > 0 {
		rt.toTopic(string(name), header)
		if t := r.topics[rt.name]; t != nil {
			rt.subs, rt.pace = t.subs, t.pace
		} else {
			rt.breaks(status.Refuse(status.NotFound, "%s has no subscriber of topic %q", r.name, rt.name))
		}
	} else if err := rt.speak(header); rt.envelope != nil {
		rt.name = header.Get(transport.HeaderEndpoint)
	} else {
		name, _ := header.Bytes(transport.HeaderEndpoint)
		rt.toUnary(name)
		rt.typed(err)
		if len(name) == 0 && err == nil && len(r.recognizers) > 0 {
			return r.unnamed(header, rt)
		}
	}
	if rt.broken != nil {
		rt.refuse()
	}
	return rt
}

// refuse makes the answer to whatever comes a broken way.
func (rt *route) refuse() {
	rt.pace = rt.quick
	rt.refusal = failure(rt.Server.name, nil, rt.public(rt.broken))
}

// streamRoute finds where a stream leads.
func (r *serving) streamRoute(header metadata.MD) *route {
	rt := r.toward(header)
	err := rt.speak(header)
	name, _ := header.Bytes(transport.HeaderEndpoint)
	rt.toEndpoint(name)
	rt.typed(err)
	if ep := rt.endpoint; ep != nil && ep.Kind == Unary {
		rt.breaks(status.New(status.Unimplemented, "%s is no stream: call it", ep.Name))
	}
	rt.gate = &r.streams
	return rt
}

// toward begins a route: ports are used again, so what comes may be for another service.
func (r *serving) toward(header metadata.MD) *route {
	rt := &route{Server: r.Server, gate: &r.calls}
	if to, ok := header.Bytes(transport.HeaderService); ok && len(to) > 0 && string(to) != r.name {
		rt.foreign = true
		rt.breaks(status.Refuse(status.Misdirected, "this is %s, not %s", r.name, to))
	}
	return rt
}

// breaks says why nothing goes this way. The first reason counts.
func (rt *route) breaks(err error) {
	if rt.broken == nil {
		rt.broken = err
	}
}

// toEndpoint leads to the endpoint of that name.
func (rt *route) toEndpoint(name []byte) {
	rt.endpoint = rt.endpoints[string(name)] // not changed since Serve
	switch {
	case rt.endpoint != nil:
		rt.name, rt.pace = rt.endpoint.Name, rt.endpoint.pace
	case len(name) == 0:
		rt.breaks(status.Refuse(status.NotFound, "no endpoint: call POST /Say.Hello, or POST / with a Micro-Endpoint header"))
	default:
		// Another node may have it: versions stand side by side.
		rt.name = string(name)
		rt.breaks(status.Refuse(status.NotFound, "%s has no endpoint %q", rt.Server.name, name))
	}
	if isDebug(rt.name) {
		rt.gate = &rt.debug // a server that is full can still be asked what it is doing
	}
}

// toUnary leads to the endpoint of that name, which is called.
func (rt *route) toUnary(name []byte) {
	rt.toEndpoint(name)
	if ep := rt.endpoint; ep != nil && ep.Kind != Unary {
		rt.breaks(status.New(status.Unimplemented, "%s is a stream (%s): it needs a connection that was upgraded to micro's frames", ep.Name, ep.Kind))
	}
}

// typed takes what speak said.
func (rt *route) typed(err error) {
	if err == nil {
		return
	}
	err = status.Wrap(err, status.UnsupportedMedia, "%v", err)
	if rt.contentType == "" {
		rt.untyped = err
	} else {
		rt.breaks(err)
	}
}

// toTopic leads to the subscribers of a topic. A handler that takes messages as they came needs no codec.
func (rt *route) toTopic(name string, header metadata.MD) {
	rt.event, rt.name = true, name
	if err := rt.speak(header); err != nil && rt.contentType != "" {
		rt.codec = unspoken{rt.contentType, err}
	}
	rt.envelope = nil // an event is its value alone
}

// speak finds the codec of header's content type. For none it is the server's first, and an error for those that have
// a body.
func (rt *route) speak(header metadata.MD) error {
	ct, _ := header.Bytes(transport.HeaderContentType)
	for i, cd := range rt.codecs {
		if cd.ContentType() == string(ct) {
			rt.contentType, rt.codec, rt.reply, rt.envelope = cd.ContentType(), cd, rt.replies[i], rt.envelopes[i]
			return nil
		}
	}
	rt.contentType = string(ct)
	cd, err := rt.codecs.For(rt.contentType)
	if err != nil {
		cd = rt.codecs[0]
	} else {
		rt.envelope, _ = cd.(codec.Envelope)
	}
	rt.codec, rt.reply = cd, replyHeader(cd)
	return err
}

// replyHeader gives the header of an answer in cd; nil where that cannot be carried, which the answer then tells.
func replyHeader(cd codec.Codec) metadata.MD {
	md, _ := metadata.MD(nil).Set(transport.HeaderContentType, cd.ContentType())
	return md
}

// inline reports whether calls need no goroutine of their own.
func (rt *route) inline() bool {
	return rt.broken != nil || rt.endpoint != nil && rt.endpoint.mode == transport.PaceInline
}

// refuses tells why the next message with that many bytes is not let in.
func (rt *route) refuses(body int) error {
	switch {
	case rt.foreign:
		return rt.broken
	case rt.stopping.Load() && !isDebug(rt.name): // Debug.Health tells that it is stopping
		return errStopping(rt.Server.name)
	case rt.broken != nil:
		return rt.broken
	case body > 0 && rt.untyped != nil:
		return rt.untyped
	}
	return nil
}

// serve is the route's transport.Route.Serve.
func (rt *route) serve(ctx context.Context, req, rsp *transport.Message) {
	rsp.Header, rsp.Body = rsp.Header[:0], rsp.Body[:0]
	if rt.envelope != nil {
		rt.open(ctx, req, rsp)
	} else if err := rt.answer(ctx, req, rsp); err != nil {
		rt.fail(rsp, err)
	}
}

// fail makes rsp the answer that tells of err.
func (rt *route) fail(rsp *transport.Message, err error) {
	rsp.Body = rsp.Body[:0]
	if rt.broken != nil && err == rt.broken { //nolint:errorlint // it is that very one
		rsp.Header = append(rsp.Header, rt.refusal...)
		return
	}
	rsp.Header = failure(rt.Server.name, rsp.Header.Without(transport.HeaderContentType), rt.public(err))
}

func (rt *route) answer(ctx context.Context, req, rsp *transport.Message) error {
	if err := rt.refuses(len(req.Body)); err != nil {
		return err
	}
	if err := rt.gate.enter(); err != nil {
		return err
	}
	defer rt.gate.leave()
	if rt.event {
		return rt.publish(ctx, req)
	}
	c := rt.begin(ctx, req.Body, rsp)
	return c.end(rt.run(ctx, c, rt.endpoint.handler, &rt.endpoint.stats, isBrief(req)))
}

// publish hands a message that came as a call, with Micro-Topic, to the topic's subscriptions. It counts as one call, and the
// first failure is its own.
func (rt *route) publish(ctx context.Context, req *transport.Message) error {
	id := req.Header.Get(transport.HeaderID)
	var first error
	for _, sub := range rt.subs {
		c := rt.begin(ctx, req.Body, nil)
		c.unary.id = id
		if err := c.end(rt.run(ctx, c, sub.handler, &sub.stats, isBrief(req))); err != nil {
			e := rt.public(err)
			if first == nil { // without its cause, which is logged
				first = e.From("")
			}
		}
	}
	return first
}

// isBrief reports whether a call has so little time that it may be over before the handler runs.
func isBrief(req *transport.Message) bool { return req.Timeout > 0 && req.Timeout < time.Millisecond }

// run runs a handler, counts it, and turns a panic into an error. The clock is looked at where the endpoint is timed, or timed
// says so: a handler whose time is over by then is not run.
func (rt *route) run(ctx context.Context, c *Call, h Handler, st *stats, timed bool) (err error) {
	var start int64
	weight := st.weight(timed)
	if weight > 0 {
		start = callctx.Now()
		if err := ended(ctx, start); err != nil {
			return status.Refuse(status.CodeOf(err), "the call came with no time left")
		}
	}
	st.begun.Add(1)
	defer func() {
		if p := recover(); p != nil {
			rt.logger.ErrorContext(ctx, "handler panicked", "service", rt.Server.name, "endpoint", rt.name, "panic", p, "stack", string(debug.Stack()))
			err = status.New(status.Internal, "the handler panicked")
		}
		st.end(start, weight, err)
	}()
	return h(ctx, c)
}

// ended gives ctx's error, at a look at the clock that was taken already.
func ended(ctx context.Context, now int64) error {
	if c, ok := ctx.(*callctx.Context); ok && now < c.Expires() {
		return c.Parent().Err()
	}
	return ctx.Err()
}

// public gives the form of a handler's error that the caller gets, and logs what it does not.
func (rt *route) public(err error) *status.Error {
	e := status.FromError(err)
	if cause := errors.Unwrap(e); cause != nil && e.Code == status.Internal {
		name := rt.name
		if rt.event {
			name = "topic " + name
		}
		rt.logger.Error("handler failed", "service", rt.Server.name, "endpoint", name, "error", cause)
	}
	return e
}

func errStopping(name string) *status.Error {
	return status.Refuse(status.Unavailable, "%s is stopping", name)
}

func isDebug(endpoint string) bool { return strings.HasPrefix(endpoint, "Debug.") }

// unspoken is the codec of a content type that the server does not speak.
type unspoken struct {
	contentType string
	err         error
}

func (u unspoken) ContentType() string                      { return u.contentType }
func (u unspoken) Append(dst []byte, _ any) ([]byte, error) { return dst, u.err }
func (u unspoken) Unmarshal([]byte, any) error              { return u.err }
