package server

import (
	"context"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/transport"
)

// lateGrace is how long a handler has after its context's end until it is answered for: one that looks at its context
// answers by itself, which leaves the caller its connection.
const lateGrace = 10 * time.Millisecond

// lookout answers for a handler that runs on the goroutine of a plain call, and has not returned soon after its deadline. One
// is used for a call after the other. Its timer is left alone as long as it goes off early enough, and is set anew where
// it finds that the call then under way has time left: so it costs nothing for nearly all calls.
type lookout struct {
	serving *serving

	mu     sync.Mutex // held while the caller is being answered
	caller transport.Answerable
	ctx    *callctx.Context
	asked  time.Duration
	until  int64 // when the call is too late, as callctx.Now counts; callctx.Never: no call is under way
	rings  int64 // when the timer goes off; callctx.Never: it does not
	timer  *time.Timer
}

// lookout gives one that is used by nobody.
func (r *serving) lookout() *lookout {
	o, ok := r.lookouts.Get().(*lookout)
	if !ok {
		o = &lookout{serving: r, until: callctx.Never, rings: callctx.Never}
	}
	return o
}

// begin looks out for a call.
func (o *lookout) begin(caller transport.Answerable, ctx *callctx.Context, asked time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.caller, o.ctx, o.asked = caller, ctx, asked
	o.until = ctx.Expires() + int64(lateGrace) // a server gives every call a deadline, of minutes at most
	if o.until < o.rings {
		o.set()
	}
}

// end says that the handler has returned. It waits for an answer that is being written.
func (o *lookout) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.caller, o.ctx, o.until = nil, nil, callctx.Never
}

// set has the timer go off when the call is too late.
func (o *lookout) set() {
	o.rings = o.until
	left := time.Duration(o.until - callctx.Now())
	if o.timer == nil {
		o.timer = time.AfterFunc(left, o.look)
	} else {
		o.timer.Reset(left)
	}
}

// look is what the timer does.
func (o *lookout) look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rings = callctx.Never
	switch {
	case o.until == callctx.Never: // no call is under way, or it was answered
	case callctx.Now() < o.until:
		o.set()
	default:
		o.ctx.End(context.DeadlineExceeded)
		rsp := transport.Message{Kind: transport.Reply}
		rsp.Header = failure(o.serving.name, nil, o.serving.late(context.DeadlineExceeded, o.asked))
		o.until = callctx.Never
		o.caller.Answer(&rsp)
	}
}
