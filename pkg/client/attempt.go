package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/codec"
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
	node   *registry.Node // the one that is being tried, or has answered; not to be changed

	ctx      context.Context  // whose end ends the trial, as deadline does
	deadline int64            // as callctx.Now counts
	own      *callctx.Context // ctx with the deadline, where somebody had to have one
	owned    bool             // own is the trial's to end
	show     bool             // somebody will see all of rsp
	stale    bool             // the last attempt failed on a connection that was there already
	lent     bool             // a connection is still reading the record's body

	rare   *rare // nil where there never was any of it
	place  place
	header section
	out    transport.Message
	in     transport.Message
	rsp    Response // where it is not shown, its content type and its body alone
	usual  *usual   // of an earlier answer
}

// rare is what a trial has where its call is not like most.
type rare struct {
	named   registry.Node // storage of a node that no Balancer gave
	tried   []Attempt
	avoid   []string
	resends int              // how often the call has been sent again that may have run
	meta    metadata.Builder // storage of the answer's metadata

	envelope codec.Envelope // what the call and its answer travel in; nil for plain bodies
	number   uint64         // the call's, in the envelope
	enclosed []byte         // the request's body in the envelope
}

// rarely gives t.rare.
func (t *trial) rarely() *rare {
	if t.rare == nil {
		t.rare = new(rare)
	}
	return t.rare
}

// release ends what the trial has begun. Nothing of the answer is touched.
func (t *trial) release() {
	if t.owned {
		t.own.End(context.Canceled)
	}
}

// clear lets go of what was the call's, and of storage that is too large to be kept.
func (t *trial) clear() {
	t.req, t.ctx, t.own, t.node, t.out.Body, t.rsp.Body = nil, nil, nil, nil, nil, nil
	if cap(t.in.Body) > keepBody {
		t.in.Body = nil
	}
	if t.rsp.stream != nil || t.rsp.Header != nil {
		t.rsp = Response{}
	}
	if t.rare != nil {
		t.rare.clear()
	}
	t.header.trim()
}

func (r *rare) clear() {
	kept := rare{meta: r.meta, enclosed: r.enclosed}
	if cap(kept.enclosed) > keepBody {
		kept.enclosed = nil
	}
	*r = kept
}

// envelope is what the call travels in; nil for plain bodies.
func (t *trial) envelope() codec.Envelope {
	if t.rare == nil {
		return nil
	}
	return t.rare.envelope
}

// tried are the attempts that failed.
func (t *trial) tried() []Attempt {
	if t.rare == nil {
		return nil
	}
	return t.rare.tried
}

// avoid are the ids of nodes that are not tried again.
func (t *trial) avoid() []string {
	if t.rare == nil {
		return nil
	}
	return t.rare.avoid
}

// write makes the header of the call, and what it travels in.
func (t *trial) write() error {
	err := t.header.build(t.client, t.req, metadata.Outgoing(t.ctx))
	if err == nil && len(t.client.envelopes) > 0 {
		err = t.enclose()
	}
	return err
}

// failedAt notes that the node failed, and decides whether there is another attempt.
func (t *trial) failedAt(phase Phase, err error, done func(error)) (again bool) {
	if done != nil {
		done(t.failed(err))
	}
	r := t.rarely()
	r.tried = append(r.tried, Attempt{*t.node, phase, err})
	return t.again(err)
}

// pick takes a node, or the one that the call names by address, whose done is nil.
func (t *trial) pick() (done func(error), err error) {
	if t.call.opts != &usualOptions || t.client.balancer == nil || len(t.avoid()) > 0 {
		return t.pickOne()
	}
	// A Balancer is known to let go of the context, and to ask it for its end before it waits.
	t.node, done, err = t.client.balancer.TakeAny((*patience)(t), t.req.Service)
	return done, err
}

// pickOne is pick for a call with options, or one that has failed.
func (t *trial) pickOne() (done func(error), err error) {
	o, b := t.call.opts, t.client.balancer
	if o.address != "" || b == nil {
		return t.pickOther()
	}
	start := t.clock()
	q := selector.Query{Service: t.req.Service, Key: o.key, Node: o.node, Filters: o.filters, Avoid: t.avoid()}
	t.node, done, err = b.Take((*patience)(t), &q)
	t.observe(Select, start, false, err)
	return done, err
}

// pickOther picks where no Balancer does.
func (t *trial) pickOther() (done func(error), err error) {
	start := t.clock()
	o, r := t.call.opts, t.rarely()
	t.node, r.named = &r.named, registry.Node{}
	switch {
	case o.address != "" && len(r.avoid) > 0:
		err = selector.ErrExhausted
	case o.address != "":
		r.named = registry.Node{ID: o.address, Service: t.req.Service, Address: o.address}
	case t.client.selector == nil:
		err = errors.New("no registry: give WithRegistry, or the call an Address")
	default:
		q := selector.Query{Service: t.req.Service, Key: o.key, Node: o.node, Filters: o.filters, Avoid: r.avoid}
		r.named, done, err = t.client.selector.Select(t.bounded(), q) // which may keep the context, and have it waited for
	}
	t.observe(Select, start, false, err)
	return done, err
}

// bounded gives a context for what may have to wait, and may last: it ends with the call.
func (t *trial) bounded() context.Context {
	if t.deadline == callctx.Never {
		return t.ctx
	}
	if t.own == nil {
		t.own, t.owned = t.client.calls.bound(t.ctx, t.deadline), true
	}
	return t.own
}

// patience is the trial's context for one who seldom waits: the context proper is made when it is asked for its end.
type patience trial

func (p *patience) Deadline() (time.Time, bool) { return (*trial)(p).bounded().Deadline() }
func (p *patience) Done() <-chan struct{}       { return (*trial)(p).bounded().Done() }
func (p *patience) Err() error                  { return (*trial)(p).bounded().Err() }
func (p *patience) Value(key any) any           { return p.ctx.Value(key) }

// left is the time that is left to the call; zero is no bound but ctx's.
func (t *trial) left() (time.Duration, error) {
	if t.deadline == callctx.Never {
		return 0, nil
	}
	now := callctx.Now()
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
	if t.call.opts.observe != nil {
		t.tell(phase, start, reused, err)
	}
}

func (t *trial) tell(phase Phase, start int64, reused bool, err error) {
	e := Event{Phase: phase, Attempt: len(t.tried()) + 1, Elapsed: time.Duration(callctx.Now() - start), Reused: reused, Err: err}
	if t.node != nil {
		e.Node = *t.node
	}
	t.call.opts.observe(e)
}

func (t *trial) fail(phase Phase, err error) error {
	return &Error{Service: t.req.Service, Endpoint: t.req.Endpoint, Phase: phase, Elapsed: time.Duration(callctx.Now() - t.call.start),
		Attempts: t.tried(), Err: err}
}

// noNode gives the phase and the error of a call that no node is left for: after attempts, the last one's.
func (t *trial) noNode(err error) (Phase, error) {
	if tried := t.tried(); len(tried) > 0 {
		last := tried[len(tried)-1]
		return last.Phase, last.Err
	}
	return Select, err
}

// again decides whether another node, or a fresh connection to this one, is tried. A server whose error asks for another try after a
// time, by a google.rpc.RetryInfo, gets it, or another node does, where the call may run twice.
func (t *trial) again(err error) bool {
	o, r := t.call.opts, t.rarely()
	unrun := transport.NotSent(err) || status.IsRefused(err)
	switch {
	case t.ended() != nil || len(r.tried) >= o.attempts || t.req.Stream && !unrun:
		return false
	case t.stale && transport.NotSent(err) && !errors.Is(err, errors.ErrUnsupported):
		return true // the same node, freshly dialled: it may just have closed an idle connection
	case unrun:
		r.avoid = append(r.avoid, t.node.ID)
		return true
	}
	delay, asked := status.RetryDelay(err)
	switch {
	case !lost(err) && !asked, r.resends >= o.resends, !(o.idempotent || declared(t.node, t.req.Endpoint)):
		return false
	case !asked:
		r.avoid = append(r.avoid, t.node.ID)
	}
	r.resends++
	return t.pause(delay + rand.N(resendPause)) // those who were sent away together are not to come back so
}

// pause waits, and reports whether the call goes on. A pause that the call has no time for is not begun: its caller has the error at
// once.
func (t *trial) pause(d time.Duration) bool {
	ctx := t.bounded()
	if until, ok := ctx.Deadline(); ok && time.Until(until) <= d {
		return false
	}
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-over.C:
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

// link gives a connection to the node; none to a stream, which makes its own.
func (t *trial) link() (*link, error) {
	if t.req.Stream {
		return nil, nil
	}
	start := t.clock()
	l := t.place.again(t.node)
	if l == nil {
		l = t.ready()
	}
	if t.stale = l != nil; !t.stale {
		return t.dial(start)
	}
	t.observe(Dial, start, true, nil)
	return l, nil
}

// try sends the call over a connection that knows no times.
func (t *trial) try(l *link) (Phase, error) {
	t.fill()
	start := t.clock()
	var err error
	if t.out.Timeout, err = t.left(); err == nil {
		err = l.Call(t.ctx, &t.out, &t.in)
	}
	return t.took(err, start)
}

// took takes in what came of a call that began at start: an answer, or err.
func (t *trial) took(err error, start int64) (Phase, error) {
	t.lent = t.lent || t.out.Lent
	if err != nil {
		return t.notSent(err, start)
	}
	err = t.read()
	if t.envelope() != nil && err == nil {
		err = t.disclose()
	}
	t.observe(Done, start, false, err)
	if err != nil {
		return Wait, err
	}
	return Done, nil
}

// ready gives the connection to the node, and nil where there is none that takes calls.
func (t *trial) ready() *link {
	l := t.client.pool.ready(t.client.others.address(t.node), &t.place)
	t.place.node = nil
	if l != nil && (t.rare == nil || t.node != &t.rare.named) {
		t.place.node = t.node
	}
	return l
}

// dial gets a connection that is not there at once.
func (t *trial) dial(start int64) (l *link, err error) {
	l, t.stale, err = t.client.pool.link(t.bounded(), t.client.others.address(t.node), t.place.lane)
	t.observe(Dial, start, t.stale, err)
	return l, err
}

// notSent gives the phase and the error of a call that got no answer.
func (t *trial) notSent(err error, start int64) (Phase, error) {
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

// fill makes out the message of the call.
func (t *trial) fill() {
	out := &t.out // field by field: a literal would be made on the stack first
	out.Kind, out.Header, out.Body, out.Lent = transport.Call, t.header.md, t.req.Body, t.lends()
	if t.envelope() != nil {
		out.Body, out.Lent = t.rare.enclosed, false
	}
}

// lends reports whether the body is the record's own, which a connection may go on reading.
func (t *trial) lends() bool {
	body, own := t.req.Body, t.call.body
	return t == &t.call.first && len(body) > 0 && len(own) > 0 && &body[0] == &own[0]
}

// read takes the answer in. The error is a *status.Error, the server's.
func (t *trial) read() error {
	if t.usual != nil && bytes.Equal(t.in.Header, t.usual.header) {
		t.present(t.usual.contentType)
		return nil
	}
	return t.readHeader()
}

// readHeader is read for a header that is not the usual one.
func (t *trial) readHeader() error {
	var failed []byte
	foreign := false // there is metadata in the answer
	contentType := ""
	for key, value := range t.in.Header.Pairs() {
		switch {
		case string(key) == transport.HeaderContentType:
			contentType = t.text(value)
		case string(key) == transport.HeaderError:
			failed = value
		case !reserved(key):
			foreign = true
		}
	}
	switch {
	case len(failed) > 0:
		return status.Parse(string(failed))
	case !foreign && len(t.in.Header) <= keepSection:
		t.usual = t.client.usuals.find(t.in.Header, contentType)
	}
	t.present(contentType)
	if !t.show || !foreign {
		return nil
	}
	meta := &t.rarely().meta
	meta.Reset()
	if err := meta.Merge(t.in.Header, reserved); err != nil {
		return fmt.Errorf("%w: %w", transport.ErrProtocol, err)
	}
	t.rsp.Header = meta.MD()
	return nil
}

// present makes the answer a Response.
func (t *trial) present(contentType string) {
	r := &t.rsp
	r.ContentType, r.Body = contentType, t.in.Body
	if t.show {
		r.Header, r.stream, r.Node = nil, nil, *t.node
	}
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
