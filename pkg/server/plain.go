package server

import (
	"context"
	"errors"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// plainCall is a call that came through the transport.CallHandler, and whose caller cannot be answered while that runs. Its
// handler runs beside the one who answers, so that a caller gets its answer in time from a handler that does not look at its
// context; that of an Inline endpoint does not, as a goroutine is a good part of what such a call costs. Who is not answered in
// time leaves the plainCall to the handler; else it is used again.
type plainCall struct {
	req, rsp transport.Message
	ctx      *callctx.Context
	route    *route
	serving  *serving
	timer    *time.Timer
	done     chan struct{}
	run      func() // runs the handler; made once
}

// keepPlain is the largest body, in bytes, whose storage a plainCall keeps.
const keepPlain = 64 << 10

// answer is the server's transport.CallHandler.
func (r *serving) answer(ctx context.Context, remote string, req, rsp *transport.Message) {
	rsp.Body = rsp.Body[:0]
	if !r.enter() {
		rsp.Header = failure(r.name, nil, errStopping(r.name))
		return
	}
	if caller, ok := ctx.(transport.Answerable); ok {
		r.answerHere(caller, remote, req, rsp)
		return
	}
	r.busy.Add(1)
	x, limit := r.plainCall(ctx, remote, req)
	if x.route.inline() {
		x.run()
		<-x.done
	} else if err := x.await(ctx, limit); err != nil {
		rsp.Header = failure(r.name, nil, r.late(err, req.Timeout))
		return
	}
	rsp.Header, x.rsp.Header = x.rsp.Header, rsp.Header
	rsp.Body, x.rsp.Body = x.rsp.Body, rsp.Body
	x.recycle()
}

// answerHere runs the handler on the goroutine of the request, while a lookout answers for it should it take too long. Where the
// lookout did, rsp is not sent.
func (r *serving) answerHere(caller transport.Answerable, remote string, req, rsp *transport.Message) {
	defer r.work.Done() // it is in no count but its gate's: the transport's drain waits for its answer
	rt, until := r.plainRoute(req.Header), deadline(r.limit(req.Timeout))
	ctx := r.context(caller.Request(), until, values(req.Header, remote))
	o := r.lookout()
	defer r.lookouts.Put(o)
	o.begin(caller, ctx, req.Timeout)
	defer o.end()
	defer ctx.End(context.Canceled)
	rt.serve(ctx, req, rsp)
}

// plainRoute finds where a plain call leads. The latest route of each endpoint is kept: nearly all calls of it come the same way.
func (r *serving) plainRoute(header metadata.MD) *route {
	var service, name, topic, contentType []byte
	for key, value := range header.Pairs() {
		switch string(key) {
		case transport.HeaderService:
			service = value
		case transport.HeaderEndpoint:
			name = value
		case transport.HeaderTopic:
			topic = value
		case transport.HeaderContentType:
			contentType = value
		}
	}
	ep := r.endpoints[string(name)]
	if ep == nil || len(topic) > 0 || len(service) > 0 && string(service) != r.name {
		return r.route(header)
	}
	if rt := ep.plain.Load(); rt != nil && rt.contentType == string(contentType) {
		return rt
	}
	rt := r.route(header)
	if rt.broken == nil {
		ep.plain.Store(rt)
	}
	return rt
}

// await runs the handler, and waits for it as long as it has time. An error is that with which its context ended: the
// handler goes on, and x is its own.
func (x *plainCall) await(ctx context.Context, limit time.Duration) (err error) {
	go x.run()
	x.timer.Reset(limit)
	defer x.timer.Stop()
	select {
	case <-x.done:
		return nil
	case <-x.timer.C:
		err = context.DeadlineExceeded
	case <-ctx.Done():
		err = ctx.Err()
	case <-x.serving.base.Done():
		err = context.Canceled
	}
	x.ctx.End(err)
	select {
	case <-x.done: // it was in time after all
		return nil
	default:
		return err
	}
}

// enter counts a plain call, unless Serve is ending.
func (r *serving) enter() bool {
	r.mu.RLock() // a lock that calls share: work may not grow once it is waited for
	defer r.mu.RUnlock()
	if r.ended {
		return false
	}
	r.work.Add(1)
	return true
}

// plainCall gives a call with a copy of req, which its handler may outlive, and the time that it has.
func (r *serving) plainCall(ctx context.Context, remote string, req *transport.Message) (*plainCall, time.Duration) {
	x, ok := r.plain.Get().(*plainCall)
	if !ok {
		x = &plainCall{serving: r, timer: time.NewTimer(time.Hour), done: make(chan struct{}, 1)}
		x.timer.Stop()
		x.run = x.serve
	}
	x.req.Kind, x.req.ID, x.req.Timeout = req.Kind, req.ID, req.Timeout
	x.req.Header, x.req.Body = append(x.req.Header[:0], req.Header...), append(x.req.Body[:0], req.Body...)
	x.route = r.plainRoute(req.Header)
	limit := r.limit(req.Timeout)
	x.ctx = r.context(ctx, deadline(limit), values(req.Header, remote))
	return x, limit
}

func (x *plainCall) serve() {
	defer x.serving.work.Done()
	defer x.serving.busy.Add(-1)
	x.route.serve(x.ctx, &x.req, &x.rsp)
	x.ctx.End(context.Canceled)
	x.done <- struct{}{}
}

// recycle keeps x for another call.
func (x *plainCall) recycle() {
	x.ctx, x.route = nil, nil
	if cap(x.req.Body) > keepPlain {
		x.req.Body = nil
	}
	if cap(x.rsp.Body) > keepPlain {
		x.rsp.Body = nil
	}
	x.serving.plain.Put(x)
}

// late is the error of a call whose handler has not answered by the end of its context.
func (r *serving) late(err error, asked time.Duration) *status.Error {
	switch {
	case r.base.Err() != nil:
		return status.New(status.Unavailable, "%s stopped before the handler answered", r.name)
	case !errors.Is(err, context.DeadlineExceeded):
		return status.New(status.Canceled, "the caller went away")
	case asked > r.maxTimeout:
		return status.New(status.HandlerTimeout, "the handler has not answered within %v, the longest that is waited here", r.maxTimeout)
	case asked > 0:
		return status.New(status.DeadlineExceeded, "the handler has not answered within the caller's %v", asked)
	default:
		return status.New(status.HandlerTimeout, "the handler has not answered within %v", r.handlerTimeout)
	}
}
