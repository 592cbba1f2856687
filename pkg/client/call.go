package client

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/codec"
)

// keepBody is the largest body, in bytes, whose storage is kept for the next call.
const keepBody = 8 << 20

// call is the record of a call: its options, what middleware is shown, and storage. Records are used again, so that a
// call allocates nothing; one that somebody may still be using is left to the garbage collector.
//
// A caller that waits is often woken on another processor, which then fetches each line of the record that it looks at. So what
// every call needs stands together, and what few calls need behind it, or elsewhere.
type call struct {
	client   *Client
	opts     *callOptions     // the usual ones, or own
	req      Request          // what middleware gets
	ctx      *callctx.Context // what middleware gets in place of the caller's; nil where there is none of the call's own
	start    int64            // as callctx.Now counts
	deadline int64
	contexts callctx.Slab // of ctx
	body     []byte       // storage of the encoded request
	codec    codec.Codec  // of the request
	show     bool         // somebody will see all of the Response

	// state tells the record's users apart: in its upper half how often it has been used, so that a Request kept from an
	// earlier call is known; then whether first is taken, and how many goroutines are inside the innermost Invoker.
	state atomic.Uint64

	first trial
	own   callOptions // storage of options that are not the usual ones
}

const (
	taken      = 1 << 31
	generation = 32 // bits below it
)

// calls gives the records of a client.
type calls struct {
	pool  sync.Pool // of *call
	slabs sync.Pool // of *callctx.Slab
	lanes atomic.Uint32
}

func (c *calls) init(cl *Client) {
	c.pool.New = func() any { return newCall(cl, c.lanes.Add(1)) }
	c.slabs.New = func() any { return new(callctx.Slab) }
}

// newCall makes a record whose calls go over a lane of the pool.
func newCall(cl *Client, lane uint32) *call {
	return &call{client: cl, opts: &usualOptions, deadline: callctx.Never, first: trial{place: place{lane: lane}}}
}

// bound gives a context that ends with ctx or at the deadline, to who is not alone with a record. Whoever asks for it ends it.
func (c *calls) bound(ctx context.Context, deadline int64) *callctx.Context {
	s := c.slabs.Get().(*callctx.Slab)
	bounded := s.New(ctx, deadline, nil)
	c.slabs.Put(s)
	return bounded
}

// begin takes a record for a call with options.
func (c *Client) begin(opts []CallOption) *call {
	k := c.calls.pool.Get().(*call)
	if len(opts) > 0 {
		k.choose(opts)
	}
	return k
}

// choose takes options.
func (k *call) choose(opts []CallOption) {
	k.own, k.opts = usualOptions, &k.own
	for _, opt := range opts {
		opt(&k.own)
	}
}

// end gives a record back, unless a middleware has left a goroutine that is using it.
func (c *Client) end(k *call) {
	state := k.state.Load()
	if state&(taken-1) != 0 {
		return
	}
	if next := (state>>generation + 1) << generation; len(c.middleware) > 0 && !k.state.CompareAndSwap(state, next) {
		return
	}
	if k.opts != &usualOptions {
		k.own, k.opts = callOptions{}, &usualOptions
	}
	k.req.Header, k.req.Body, k.req.call, k.ctx, k.codec, k.deadline = nil, nil, nil, nil, nil, callctx.Never
	if k.first.lent || cap(k.body) > keepBody {
		k.body = nil
	}
	k.first.clear()
	c.calls.pool.Put(k)
}

// sign makes the record found by req.
func (k *call) sign(req *Request) {
	req.call, req.generation = k, uint32(k.state.Load()>>generation)
}

// enter gives the trial for a run of the innermost Invoker: the record's own to the first, and a new one to others, which
// leaves the Response of the first as it is. It gives nil where the call has ended. Without nil the caller calls leave.
func (k *call) enter(gen uint32) *trial {
	if k.alone() {
		return &k.first
	}
	fresh := uint64(gen) << generation
	if k.state.CompareAndSwap(fresh, fresh|taken|1) {
		return &k.first
	}
	for {
		state := k.state.Load()
		if state>>generation != uint64(gen) {
			return nil
		}
		if k.state.CompareAndSwap(state, state+1) {
			return newTrial(k.client.calls.lanes.Add(1))
		}
	}
}

func newTrial(lane uint32) *trial { return &trial{place: place{lane: lane}} }

// limit starts the call's time.
func (k *call) limit() {
	k.start = callctx.Now()
	if k.req.Stream {
		return // its Timeout begins with its opening
	}
	timeout := k.opts.timeout
	if timeout == 0 {
		timeout = k.client.timeout
	}
	k.deadline = k.start + int64(timeout)
	if k.deadline < k.start {
		k.deadline = callctx.Never
	}
}

// invoke makes the call. The Response is filled in.
func (k *call) invoke(ctx context.Context) (*Response, error) {
	ctx = k.prepare(ctx, true)
	if own := k.ctx; own != nil {
		defer own.End(context.Canceled)
	}
	return k.client.chain(ctx, &k.req)
}

// alone reports whether there is no middleware.
func (k *call) alone() bool { return len(k.client.middleware) == 0 }

// prepare starts the call's time and gives the context for the chain: k.ctx, where that is not nil, which the caller ends. show has the Response
// filled in also where there is no middleware that may look at it.
func (k *call) prepare(ctx context.Context, show bool) context.Context {
	k.limit()
	k.sign(&k.req)
	alone := k.alone()
	k.show = show || !alone
	if alone || k.deadline == callctx.Never {
		return ctx
	}
	k.ctx = k.contexts.New(ctx, k.deadline, nil) // a pool for all records would cost more than the memory for each
	return k.ctx
}

// innermost gives the Invoker that middleware wraps: it tries nodes until one answers. Its error is an *Error.
//
// The functions that every call is in while it waits are few, and their frames small: the caller that is woken on another processor fetches
// each line of its stack, and the processor, which has run others meanwhile, foresees none of its returns. So this one does by itself what
// could be parts of it, and what few calls come to stands in functions of its own.
func (c *Client) innermost() Invoker {
	return func(ctx context.Context, req *Request) (*Response, error) {
		k, t := c.enter(ctx, req)
		phase, err := Send, t.write()
		for err == nil {
			var done func(error)
			if done, err = t.pick(); err != nil {
				phase, err = t.noNode(err)
				break
			}
			var l *link
			phase = Dial
			if l, err = t.link(); err == nil {
				switch {
				case l == nil:
					phase, err = t.tryStream()
				case l.timed == nil:
					phase, err = t.try(l)
				default:
					t.fill()
					start := t.clock()
					err = l.timed.CallUntil(t.ctx, k.start, t.deadline, &t.out, &t.in)
					phase, err = t.took(err, start)
				}
			}
			if err == nil {
				if done != nil {
					done(nil)
				}
				break
			}
			if t.failedAt(phase, err, done) {
				err = nil
			}
		}
		return k.leave(t, phase, err)
	}
}

// enter gives the record of a Request, and a trial for it that is ready. The caller calls leave.
func (c *Client) enter(ctx context.Context, req *Request) (*call, *trial) {
	var t *trial
	k := req.call
	if k != nil {
		t = k.enter(req.generation)
	}
	if t == nil { // a Request that a middleware made
		k, t = c.enterNew()
	}
	t.client, t.call, t.req, t.show = c, k, req, k.show
	t.stale, t.lent, t.own, t.owned = false, false, nil, false
	t.ctx, t.deadline = ctx, callctx.Never
	if k.alone() {
		t.deadline = k.deadline
	} else if own, ok := ctx.(*callctx.Context); ok && own == k.ctx {
		// What it adds to its parent is the deadline. A connection keeps that by itself, at less cost than by waiting for a context.
		t.ctx, t.deadline, t.own = own.Parent(), k.deadline, own
	}
	return k, t
}

// leave ends a trial, which has failed with err in a phase, if any.
func (k *call) leave(t *trial, phase Phase, err error) (*Response, error) {
	if err != nil {
		err = t.fail(phase, err)
	}
	t.rsp.Attempts = len(t.tried()) + 1
	t.release()
	if !k.alone() {
		k.state.Add(^uint64(0))
	}
	if err != nil {
		return nil, err
	}
	return &t.rsp, nil
}

// enterNew gives a record, and its trial, for a Request that is no record's.
//
//go:noinline
func (c *Client) enterNew() (*call, *trial) {
	k := newCall(c, 0)
	k.start, k.show = callctx.Now(), true
	return k, k.enter(0)
}
