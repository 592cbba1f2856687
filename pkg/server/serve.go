package server

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// cutGrace is how long handlers whose context ended get to return before Serve leaves them behind.
const cutGrace = 5 * time.Second

// serving is the state of one Serve.
type serving struct {
	*Server
	base context.Context // ends when the drain's time is over: the context of every handler hangs on it
	work sync.WaitGroup  // the accept loop, the connections' loops and their handlers
	busy atomic.Int64    // calls and streams whose last message has not been handed to the transport

	mu    sync.Mutex
	conns map[transport.Conn]struct{}
	ended bool
}

func (r *serving) accept(l transport.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if !r.add(c) {
			_ = c.Close() // accepted in the moment of stopping
			continue
		}
		r.work.Go(func() {
			defer r.remove(c)
			r.converse(c)
		})
	}
}

func (r *serving) add(c transport.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.conns[c] = struct{}{}
	}
	return !r.ended
}

func (r *serving) remove(c transport.Conn) {
	_ = c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

// stop drains, then cuts what is left.
func (r *serving) stop(l transport.Listener, cut context.CancelFunc) error {
	r.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), r.shutdownTimeout)
	defer cancel()
	if sh, ok := l.(transport.Shutdowner); ok {
		_ = sh.Shutdown(ctx) // its error says that time ran out, which the counts below tell better
	}
	r.awaitIdle(ctx)
	left := r.busy.Load()
	cut()
	_ = l.Close()
	r.mu.Lock()
	r.ended = true
	for c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	done := make(chan struct{})
	go func() { r.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(cutGrace):
		return fmt.Errorf("server %s: %d handlers did not return within %v of their context's end", r.name, r.busy.Load(), cutGrace)
	}
	if left > 0 {
		return fmt.Errorf("server %s: %d calls were cut off after %v", r.name, left, r.shutdownTimeout)
	}
	return nil
}

// awaitIdle waits until no call and no stream is under way, and each has been answered.
func (r *serving) awaitIdle(ctx context.Context) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for r.busy.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// answer is the server's transport.CallHandler. The handler runs beside it, so that a caller gets its answer in time
// from a handler that does not look at its context.
func (r *serving) answer(ctx context.Context, remote string, req, rsp *transport.Message) {
	m := &transport.Message{Kind: req.Kind, ID: req.ID, Timeout: req.Timeout, Header: req.Header.Clone(), Body: append([]byte(nil), req.Body...)}
	type result struct {
		header metadata.MD
		body   []byte
	}
	ctx, cancel := r.handlerContext(ctx, m.Timeout, true)
	defer cancel()
	done := make(chan result, 1)
	r.mu.Lock()
	if r.ended {
		r.mu.Unlock()
		rsp.Header = failure(r.name, nil, errStopping(r.name))
		return
	}
	r.work.Add(1)
	r.busy.Add(1)
	r.mu.Unlock()
	go func() {
		defer r.work.Done()
		defer r.busy.Add(-1)
		header, body := r.unary(ctx, remote, m)
		done <- result{header, body}
	}()
	select {
	case out := <-done:
		rsp.Header, rsp.Body = out.header, out.body
	case <-ctx.Done():
		select {
		case out := <-done: // it was in time after all
			rsp.Header, rsp.Body = out.header, out.body
		default:
			rsp.Header = failure(r.name, nil, r.late(ctx, m.Timeout))
		}
	}
}

// late is the error of a call whose handler has not answered by the end of its context.
func (r *serving) late(ctx context.Context, asked time.Duration) *status.Error {
	switch {
	case r.base.Err() != nil:
		return status.New(status.Unavailable, "%s stopped before the handler answered", r.name)
	case !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return status.New(status.Canceled, "the caller went away")
	case asked > r.maxTimeout:
		return status.New(status.HandlerTimeout, "the handler has not answered within %v, the longest that is waited here", r.maxTimeout)
	case asked > 0:
		return status.New(status.DeadlineExceeded, "the handler has not answered within the caller's %v", asked)
	default:
		return status.New(status.HandlerTimeout, "the handler has not answered within %v", r.handlerTimeout)
	}
}

func errStopping(name string) *status.Error {
	return status.Refuse(status.Unavailable, "%s is stopping", name)
}

// handlerContext gives the context of a handler: it ends with parent, with the serving, and at the caller's deadline;
// without one at the handler's own, where limited says so.
func (r *serving) handlerContext(parent context.Context, timeout time.Duration, limited bool) (context.Context, context.CancelFunc) {
	var ctx context.Context
	var cancel context.CancelFunc
	switch {
	case timeout > 0 && limited:
		ctx, cancel = context.WithTimeout(parent, min(timeout, r.maxTimeout))
	case timeout > 0:
		ctx, cancel = context.WithTimeout(parent, timeout)
	case limited:
		ctx, cancel = context.WithTimeout(parent, r.handlerTimeout)
	default:
		ctx, cancel = context.WithCancel(parent)
	}
	stop := context.AfterFunc(r.base, cancel)
	return ctx, func() { stop(); cancel() }
}

// unary runs a call to its end and gives the reply's header and body.
func (r *serving) unary(ctx context.Context, remote string, m *transport.Message) (metadata.MD, []byte) {
	u := &unary{body: m.Body}
	err := r.runUnary(ctx, remote, m, u)
	if err == nil && !u.sent {
		err = status.New(status.Internal, "the handler sent no answer")
	}
	if err != nil {
		return failure(r.name, u.header.Without(transport.HeaderContentType), r.public(err, m.Header)), nil
	}
	return u.header, u.reply
}

func (r *serving) runUnary(ctx context.Context, remote string, m *transport.Message, u *unary) error {
	if topic := m.Header.Get(transport.HeaderTopic); topic != "" {
		return r.runEvent(ctx, topic, m, u)
	}
	c, ep, err := r.route(remote, m, u)
	if err != nil {
		return err
	}
	if ep.Kind != Unary {
		return status.New(status.Unimplemented, "%s is a stream (%s): it needs a connection that was upgraded to micro's frames", ep.Name, ep.Kind)
	}
	g := &r.calls
	if isDebug(ep.Name) {
		g = &r.debug // a server that is full can still be asked what it is doing
	}
	if err := g.enter(); err != nil {
		return err
	}
	defer g.leave()
	return r.run(ctx, c, ep.handler, &ep.stats)
}

// runEvent hands a message that came as a call, with Micro-Topic, to the topic's subscriptions. It counts as one call.
func (r *serving) runEvent(ctx context.Context, topic string, m *transport.Message, u *unary) error {
	if err := r.addressed(m); err != nil {
		return err
	}
	if r.stopping.Load() {
		return errStopping(r.name)
	}
	if err := r.calls.enter(); err != nil {
		return err
	}
	defer r.calls.leave()
	u.sent = true // the reply is empty
	found := false
	var errs []error
	for _, sub := range r.Subscriptions() {
		if sub.Topic == topic {
			found = true
			err := sub.Handle(ctx, &broker.Message{Topic: topic, ID: m.Header.Get(transport.HeaderID), Header: m.Header, Body: m.Body})
			errs = append(errs, err)
		}
	}
	if !found {
		return status.Refuse(status.NotFound, "%s has no subscriber of topic %q", r.name, topic)
	}
	return errors.Join(errs...)
}

// addressed refuses a message that is for another service: ports are used again.
func (r *serving) addressed(m *transport.Message) error {
	if to := m.Header.Get(transport.HeaderService); to != "" && to != r.name {
		return status.Refuse(status.Misdirected, "this is %s, not %s", r.name, to)
	}
	return nil
}

// route finds the endpoint of m and makes its Call. Its errors say that nothing ran.
func (r *serving) route(remote string, m *transport.Message, p pipe) (*Call, *endpoint, error) {
	if err := r.addressed(m); err != nil {
		return nil, nil, err
	}
	name := m.Header.Get(transport.HeaderEndpoint)
	if r.stopping.Load() && !isDebug(name) { // Debug.Health tells that it is stopping
		return nil, nil, errStopping(r.name)
	}
	ep, ok := r.endpoints[name] // not changed since Serve
	if !ok {
		// Another node may have it: versions stand side by side.
		return nil, nil, status.Refuse(status.NotFound, "%s has no endpoint %q", r.name, name)
	}
	c := &Call{service: r.name, endpoint: ep.Name, kind: ep.Kind, remote: remote, header: transport.Metadata(m.Header), pipe: p, codec: r.codecs[0]}
	if ct := m.Header.Get(transport.HeaderContentType); ct != "" || len(m.Body) > 0 {
		cd, err := r.codecs.For(ct)
		if err != nil {
			return nil, nil, status.Wrap(err, status.UnsupportedMedia, "%v", err)
		}
		c.codec = cd
	}
	return c, ep, nil
}

// run runs a handler, counts it, and turns a panic into an error.
func (s *Server) run(ctx context.Context, c *Call, h Handler, st *stats) (err error) {
	if ctx.Err() != nil {
		return status.Refuse(status.CodeOf(ctx.Err()), "the call came with no time left")
	}
	start := st.begin()
	defer func() {
		if p := recover(); p != nil {
			s.logger.ErrorContext(ctx, "handler panicked", "service", s.name, "endpoint", c.endpoint, "panic", p, "stack", string(debug.Stack()))
			err = status.New(status.Internal, "the handler panicked")
		}
		st.end(start, err)
	}()
	return h(metadata.WithIncoming(ctx, c.header), c)
}

// public gives the form of a handler's error that the caller gets, and logs what it does not.
func (s *Server) public(err error, header metadata.MD) *status.Error {
	e := status.FromError(err)
	if cause := errors.Unwrap(e); cause != nil && e.Code == status.Internal {
		s.logger.Error("handler failed", "service", s.name, "endpoint", header.Get(transport.HeaderEndpoint), "error", cause)
	}
	return e
}

// unspoken is the codec of a content type that the server does not speak.
type unspoken struct {
	contentType string
	err         error
}

func (u unspoken) ContentType() string                      { return u.contentType }
func (u unspoken) Append(dst []byte, _ any) ([]byte, error) { return dst, u.err }
func (u unspoken) Unmarshal([]byte, any) error              { return u.err }

// Handle runs the subscription's handler for m, as a broker.Handler does: behind the server's middleware, with panics
// turned into errors. Its errors are status errors, or as the handler returned them.
func (sub *Subscription) Handle(ctx context.Context, m *broker.Message) error {
	s := sub.server
	cd := s.codecs[0]
	if ct := m.Header.Get(transport.HeaderContentType); ct != "" {
		var err error
		if cd, err = s.codecs.For(ct); err != nil {
			cd = unspoken{ct, err} // a handler that takes messages as they came needs none
		}
	}
	c := &Call{service: s.name, endpoint: m.Topic, topic: m.Topic, kind: Unary, message: m, header: transport.Metadata(m.Header), codec: cd, pipe: &event{unary{body: m.Body}}}
	err := s.run(ctx, c, sub.handler, &sub.stats)
	if err == nil {
		return nil
	}
	return s.public(err, metadata.Of(transport.HeaderEndpoint, "topic "+m.Topic))
}
