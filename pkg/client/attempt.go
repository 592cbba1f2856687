package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// resendPause bounds the pause before a call is sent again that may have run; it is drawn between zero and this.
const resendPause = 50 * time.Millisecond

// trial is a run of the innermost Invoker: it tries nodes until one answers. Most of it is storage that the next call of its
// record uses again.
type trial struct {
	client *Client
	call   *call
	req    *Request
	show   bool // somebody will see rsp

	ctx      context.Context  // whose end ends the trial, as deadline does
	deadline int64            // as callctx.Now counts
	now      int64            // the time, where it is known; 0 after whatever may have taken long
	own      *callctx.Context // ctx with the deadline, where somebody had to have one
	owned    bool             // own is the trial's to end
	patience patience

	place   place
	header  section
	out     transport.Message
	node    registry.Node // the one that is being tried, or has answered
	tried   []Attempt
	avoid   []string
	stale   bool // the last attempt failed on a connection that was there already
	lent    bool // a connection is still reading the record's body
	resends int  // how often the call may still be sent again after it may have run

	answer
	contentType string // the answer's
	rsp         Response
}

// answer is the storage of an answer.
type answer struct {
	in   transport.Message
	meta metadata.Builder
}

// begin makes t ready. The caller sets ctx, deadline and now.
func (t *trial) begin(k *call, req *Request, show bool) {
	t.client, t.call, t.req, t.show = k.client, k, req, show
	t.patience.trial = t
	t.resends, t.stale, t.lent, t.own, t.owned = k.opts.resends, false, false, nil, false
}

// clear lets go of what was the call's, and of storage that is too large to be kept.
func (t *trial) clear() {
	t.req, t.ctx, t.own, t.out = nil, nil, nil, transport.Message{}
	t.tried, t.avoid = nil, nil
	if cap(t.in.Body) > keepBody {
		t.in.Body = nil
	}
	if t.show {
		t.rsp = Response{}
	}
	t.header.trim()
}

// run tries nodes until one answers. Its error is an *Error.
func (t *trial) run() error {
	err := t.attempts()
	if t.owned {
		t.own.End(context.Canceled)
	}
	return err
}

func (t *trial) attempts() error {
	if err := t.header.build(t.req, metadata.Outgoing(t.ctx)); err != nil {
		return t.fail(Send, err)
	}
	for {
		done, err := t.pick()
		if err != nil {
			return t.noNode(err)
		}
		phase, err := t.try()
		if done != nil {
			done(t.failed(err))
		}
		if err == nil {
			t.rsp.Attempts = len(t.tried) + 1
			return nil
		}
		t.tried = append(t.tried, Attempt{t.node, phase, err})
		if !t.again(err) {
			return t.fail(phase, err)
		}
	}
}

// pick takes a node, or the one that the call names by address, whose done is nil.
func (t *trial) pick() (done func(error), err error) {
	start := t.clock()
	switch o, c := &t.call.opts, t.client; {
	case o.address != "" && len(t.avoid) > 0:
		t.node, err = registry.Node{}, selector.ErrExhausted
	case o.address != "":
		t.node = registry.Node{ID: o.address, Service: t.req.Service, Address: o.address}
	case c.selector == nil:
		t.node, err = registry.Node{}, errors.New("no registry: give WithRegistry, or the call an Address")
	default:
		q := selector.Query{Service: t.req.Service, Key: o.key, Node: o.node, Filters: o.filters, Avoid: t.avoid}
		t.node, done, err = c.selector.Select(t.selecting(), q)
	}
	t.observe(Select, start, false, err)
	return done, err
}

// selecting gives the context for Select. A Balancer is known to let go of it and to ask it for its end before it waits; any
// other selector gets a context that it may keep, and may have waited.
func (t *trial) selecting() context.Context {
	if t.client.balanced {
		return &t.patience
	}
	return t.bounded()
}

// bounded gives a context for what may have to wait, and may last: it ends with the call.
func (t *trial) bounded() context.Context {
	t.now = 0
	if t.deadline == callctx.Never {
		return t.ctx
	}
	if t.own == nil {
		t.own, t.owned = t.client.calls.bound(t.ctx, t.deadline), true
	}
	return t.own
}

// patience is the trial's context for one who seldom waits. It is made when it is asked for its end.
type patience struct{ trial *trial }

func (p *patience) Deadline() (time.Time, bool) { return p.trial.bounded().Deadline() }
func (p *patience) Done() <-chan struct{}       { return p.trial.bounded().Done() }
func (p *patience) Err() error                  { return p.trial.bounded().Err() }
func (p *patience) Value(key any) any           { return p.trial.ctx.Value(key) }

// left is the time that is left to the call; zero is no bound but ctx's.
func (t *trial) left() (time.Duration, error) {
	if t.deadline == callctx.Never {
		return 0, nil
	}
	now := t.now
	if now == 0 {
		now = callctx.Now()
	}
	if now >= t.deadline {
		return 0, fmt.Errorf("%w: %w", transport.ErrNotSent, context.DeadlineExceeded)
	}
	return time.Duration(t.deadline - now), nil
}

// ended is the error of the call's end: of its context, or of its time. It is nil while the call may go on.
func (t *trial) ended() error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if t.deadline != callctx.Never && callctx.Now() >= t.deadline {
		return context.DeadlineExceeded
	}
	return nil
}

// clock is the time for observe, where somebody observes.
func (t *trial) clock() int64 {
	if t.call.opts.observe == nil {
		return 0
	}
	return callctx.Now()
}

// observe tells of the end of a phase that began at start.
func (t *trial) observe(phase Phase, start int64, reused bool, err error) {
	if t.call.opts.observe == nil {
		return
	}
	t.call.opts.observe(Event{Phase: phase, Node: t.node, Attempt: len(t.tried) + 1, Elapsed: time.Duration(callctx.Now() - start), Reused: reused, Err: err})
}

func (t *trial) fail(phase Phase, err error) error {
	return &Error{Service: t.req.Service, Endpoint: t.req.Endpoint, Phase: phase, Elapsed: time.Duration(callctx.Now() - t.call.start),
		Attempts: t.tried, Err: err}
}

// noNode is the error of a call that no node is left for: after attempts, the last one's.
func (t *trial) noNode(err error) error {
	if n := len(t.tried); n > 0 {
		return t.fail(t.tried[n-1].Phase, t.tried[n-1].Err)
	}
	return t.fail(Select, err)
}

// again decides whether another node, or a fresh connection to this one, is tried.
func (t *trial) again(err error) bool {
	t.now = 0
	o := &t.call.opts
	unrun := transport.NotSent(err) || status.IsRefused(err)
	switch {
	case t.ended() != nil || len(t.tried) >= o.attempts || t.req.Stream && !unrun:
		return false
	case t.stale && transport.NotSent(err):
		return true // the same node, freshly dialled: it may just have closed an idle connection
	case unrun:
		t.avoid = append(t.avoid, t.node.ID)
		return true
	case !lost(err) || t.resends == 0 || !(o.idempotent || declared(&t.node, t.req.Endpoint)):
		return false
	}
	t.resends--
	t.avoid = append(t.avoid, t.node.ID)
	pause := time.NewTimer(rand.N(resendPause))
	defer pause.Stop()
	select {
	case <-t.bounded().Done():
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
func declared(node *registry.Node, endpoint string) bool {
	for name := range strings.SplitSeq(node.Metadata[registry.MetaIdempotent], ",") {
		if name == endpoint {
			return true
		}
	}
	return false
}

// try sends the call to the node.
func (t *trial) try() (Phase, error) {
	if t.req.Stream {
		return t.tryStream()
	}
	start := t.clock()
	l := t.client.pool.ready(t.node.Address, &t.place)
	reused := l != nil
	var err error
	if l == nil {
		l, reused, err = t.client.pool.link(t.bounded(), t.node.Address, t.place.lane)
	}
	t.observe(Dial, start, reused, err)
	if err != nil {
		return Dial, err
	}
	t.stale = reused
	start = t.clock()
	if err = t.send(l); err != nil {
		phase := Wait
		if transport.NotSent(err) {
			phase = Send
		}
		if ended := t.ended(); ended != nil && !errors.Is(err, ended) {
			err = errors.Join(ended, err)
		}
		t.observe(phase, start, false, err)
		return phase, broken(err)
	}
	if err = t.read(); err != nil {
		t.observe(Done, start, false, err)
		return Wait, err
	}
	t.observe(Done, start, false, nil)
	return Done, nil
}

// send carries the call over a connection.
func (t *trial) send(c transport.Caller) error {
	left, err := t.left()
	if err != nil {
		return err
	}
	t.out = transport.Message{Kind: transport.Call, Timeout: left, Header: t.header.md, Body: t.req.Body, Lent: t.lends()}
	err = c.Call(t.ctx, &t.out, &t.in)
	t.lent = t.lent || t.out.Lent
	return err
}

// lends reports whether the body is the record's own, which a connection may go on reading.
func (t *trial) lends() bool {
	body, own := t.req.Body, t.call.body
	return t == &t.call.first && len(body) > 0 && len(own) > 0 && &body[0] == &own[0]
}

// read takes the answer in. The error is a *status.Error, the server's.
func (t *trial) read() error {
	var failed []byte
	foreign := false // there is metadata in the answer
	t.contentType = ""
	for key, value := range t.in.Header.Pairs() {
		switch {
		case string(key) == transport.HeaderContentType:
			t.contentType = t.text(value)
		case string(key) == transport.HeaderError:
			failed = value
		case !reserved(key):
			foreign = true
		}
	}
	if len(failed) > 0 {
		return status.Parse(string(failed))
	}
	if !t.show {
		return nil
	}
	t.rsp = Response{ContentType: t.contentType, Body: t.in.Body, Node: t.node}
	if foreign {
		t.meta.Reset()
		if err := t.meta.Merge(t.in.Header, reserved); err != nil {
			return fmt.Errorf("%w: %w", transport.ErrProtocol, err)
		}
		t.rsp.Header = t.meta.MD()
	}
	return nil
}

// text gives a content type as a string, most often one that is there already.
func (t *trial) text(contentType []byte) string {
	if string(contentType) == t.req.ContentType {
		return t.req.ContentType
	}
	for _, c := range t.client.codecs {
		if known := c.ContentType(); string(contentType) == known {
			return known
		}
	}
	return string(contentType)
}

// errNoAnswer tells a selector that a node did not answer in time, while the call still had time.
var errNoAnswer = errors.New("client: the node did not answer in time")

// failed tells a selector how a call went: an error that a handler answered with says nothing against its node, and a
// deadline does where it was not the call's own.
func (t *trial) failed(err error) error {
	if err == nil || errors.Is(err, transport.ErrTooLarge) {
		return nil // the latter is this call's own fault
	}
	if e := (*status.Error)(nil); errors.As(err, &e) {
		if e.Remote && !e.Refused {
			return nil
		}
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) && t.ended() == nil {
		return errNoAnswer
	}
	return err
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
