package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Subscription is a topic's handler. Whoever owns the broker feeds it: package micro does for its services.
type Subscription struct {
	Topic   string
	Queue   string
	Options []broker.SubscribeOption

	server  *Server
	handler Handler
	last    atomic.Pointer[heading]
	workers sync.Pool // *worker
	stats   stats
}

// heading is what messages with the same header have in common. It is not changed after it was made.
type heading struct {
	topic  string
	header metadata.MD
	route  *route
	values callctx.Values
}

// Subscribe registers h for the messages of topic. The options go to the broker.
func (s *Server) Subscribe(topic string, h Handler, opts ...broker.SubscribeOption) error {
	o, err := broker.ReadOptions(opts)
	if err == nil {
		err = broker.CheckTopic(topic)
	}
	if err == nil && h == nil {
		err = errors.New("no handler")
	}
	if err != nil {
		return s.refuse(fmt.Errorf("server %s: subscription: %w", s.name, err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving {
		return fmt.Errorf("%w: subscription of %q", ErrServing, topic)
	}
	sub := &Subscription{Topic: topic, Queue: o.Queue, server: s, handler: wrap(h, s.middleware)}
	sub.Options = append(slices.Clip(opts), broker.Workers(sub.Worker))
	s.subscriptions = append(s.subscriptions, sub)
	return nil
}

// Subscribe registers a handler of a topic's messages, decoded by their content type. What is decoded is the handler's own, so the
// broker may use the storage of the message again (broker.Reuse), unless a middleware gets to see that.
func Subscribe[T any](s *Server, topic string, h func(context.Context, *T) error, opts ...broker.SubscribeOption) error {
	if h == nil {
		return s.Subscribe(topic, nil, opts...)
	}
	if len(s.middleware) == 0 {
		opts = append(slices.Clip(opts), broker.Reuse())
	}
	return s.Subscribe(topic, func(ctx context.Context, c *Call) error {
		msg := new(T)
		if err := c.Recv(msg); err != nil {
			return err
		}
		return h(ctx, msg)
	}, opts...)
}

// Subscriptions gives what Subscribe registered.
func (s *Server) Subscriptions() []*Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.subscriptions)
}

// topics gives the subscriptions by topic, once no more are registered.
func (s *Server) topics() map[string]*topic {
	topics := map[string]*topic{}
	for _, sub := range s.Subscriptions() {
		t := topics[sub.Topic]
		if t == nil {
			t = &topic{pace: transport.NewPace(transport.PaceAdaptive)}
			topics[sub.Topic] = t
		}
		t.subs = append(t.subs, sub)
	}
	return topics
}

// Handle runs the subscription's handler for m, as a broker.Handler does: behind the server's middleware, with panics
// turned into errors. Its errors are status errors, or as the handler returned them. The handler's context ends when it
// returns. m is the handler's to keep.
func (sub *Subscription) Handle(ctx context.Context, m *broker.Message) error {
	w := sub.worker()
	defer w.Done() // also where the handler ends the goroutine
	return w.Handle(ctx, m)
}

// Worker gives what does the same as Handle for messages that one goroutine handles one after the other, at about half the
// cost. Options has it, so a broker that is given those finds it.
func (sub *Subscription) Worker() broker.Worker { return sub.worker() }

func (sub *Subscription) worker() *worker {
	w, ok := sub.workers.Get().(*worker)
	if !ok {
		w = &worker{sub: sub}
	}
	w.number = sub.stats.begun.Add(1)
	return w
}

// worker is what a goroutine needs to hand messages to a handler, one at a time. What would be touched by all goroutines for
// each message, above all the counts, it touches once for some of them. Pointers it writes as few as it can: while the collector
// marks, each costs as much as the rest of a message's way.
type worker struct {
	sub   *Subscription
	call  *Call
	lost  bool // the Call may still be its handler's
	slab  []eventContext
	used  int       // contexts of the slab
	at    *occasion // of the latest context
	ended uint64    // messages that were handled, and are not counted yet

	// number tells which messages are timed. It is the one that the stats have for the first message, and goes on by itself.
	number uint64
}

// Handle implements broker.Worker.
func (w *worker) Handle(ctx context.Context, m *broker.Message) error {
	h := w.sub.heading(m)
	if err := ctx.Err(); err != nil {
		return status.Refuse(status.CodeOf(err), "the call came with no time left")
	}
	own := w.context(ctx, h.values)
	c := w.begin(h.route, own, m)
	err := w.run(own, c)
	if err == nil && c.unary.taken {
		w.lost = false
		return nil
	}
	return w.leave(h.route, c, err)
}

// leave leaves a Call to its handler that may still have it: one that failed, or that did not look at its message. One that went
// as it should is used again; see Call.end.
func (w *worker) leave(rt *route, c *Call, err error) error {
	c.unary.state.Store(abandoned)
	if err == nil {
		return nil
	}
	return rt.public(err)
}

// run runs the handler, ends its context, and turns a panic into an error.
func (w *worker) run(ctx *eventContext, c *Call) (err error) {
	start, weight := w.clock()
	defer func() {
		if p := recover(); p != nil {
			sub := w.sub
			sub.server.logger.ErrorContext(ctx, "handler panicked", "service", sub.server.name, "endpoint", sub.Topic, "panic", p, "stack", string(debug.Stack()))
			err = status.New(status.Internal, "the handler panicked")
		}
		ctx.end()
		w.ended++
		if weight > 0 || err != nil {
			w.note(start, weight, err)
		}
	}()
	return w.sub.handler(ctx, c)
}

// timedEvents is timedBits of messages: they come by the thousand, and the clock costs as much as all that is done for one.
const timedEvents = 5

// clock gives how many messages the next one stands for in the times, and where that is not zero, when it began. Before one that
// is timed the others are counted; so a handler that takes long is not behind many that are not.
func (w *worker) clock() (start int64, weight uint64) {
	number := w.number
	w.number++
	switch {
	case w.sub.stats.slow.Load():
		weight = 1
	case number*golden>>(64-timedEvents) == 0:
		weight = 1 << timedEvents
	default:
		return 0, 0
	}
	w.count()
	return callctx.Now(), weight
}

// note is for a message that was timed, or has failed.
func (w *worker) note(start int64, weight uint64, err error) {
	w.count()
	if err != nil {
		w.sub.stats.errors.Add(1)
	}
	if weight > 0 {
		w.sub.stats.timed(start, weight)
	}
}

// count counts the messages that have been handled. The stats have one more that has begun for each worker: the one that it
// handles.
func (w *worker) count() {
	if w.ended > 0 {
		w.sub.stats.begun.Add(w.ended) // before ended, which is never more
		w.sub.stats.ended.Add(w.ended)
		w.ended = 0
	}
}

// Done implements broker.Worker.
func (w *worker) Done() {
	st := &w.sub.stats
	if w.ended != 1 {
		st.begun.Add(w.ended - 1) // there is no other message
	}
	if w.ended > 0 {
		st.ended.Add(w.ended)
		w.ended = 0
	}
	if w.lost {
		w.call, w.lost = nil, false
	}
	if c := w.call; c != nil { // it holds nothing of the latest message
		c.ctx, c.message = context.Background(), nil
		c.unary.body, c.unary.received = nil, true
	}
	w.sub.workers.Put(w)
}

// heading gives what is to be known of m's header: most messages have the header of the one before.
func (sub *Subscription) heading(m *broker.Message) *heading {
	if h := sub.last.Load(); h != nil && h.topic == m.Topic && bytes.Equal(h.header, m.Header) {
		return h
	}
	h := &heading{topic: m.Topic, header: m.Header.Clone(), route: &route{Server: sub.server}, values: values(m.Header, "")}
	h.route.toTopic(m.Topic, h.header)
	sub.last.Store(h)
	return h
}

// eventSlab is how many contexts are allocated at a time: 3 KiB. A context that is kept keeps its slab.
const eventSlab = 128

// context gives a handler's context. The caller ends it.
func (w *worker) context(parent context.Context, values callctx.Values) *eventContext {
	if w.at == nil || !w.at.is(parent, values) {
		w.at = &occasion{parent, values, reflect.TypeOf(parent).Kind() == reflect.Pointer}
	}
	if w.used == len(w.slab) {
		w.slab, w.used = make([]eventContext, eventSlab), 0
	}
	c := &w.slab[w.used]
	w.used++
	c.occasion = w.at
	return c
}

// begin gives a Call for m.
func (w *worker) begin(rt *route, ctx context.Context, m *broker.Message) *Call {
	c := w.call
	if c == nil || w.lost {
		c = new(Call)
		c.pipe = &c.unary
		w.call = c
	}
	w.lost = true
	if c.route != rt {
		c.route = rt
	}
	c.ctx, c.message = ctx, m
	c.unary.body, c.unary.received, c.unary.taken = m.Body, false, false
	return c
}

// occasion is what the contexts of messages have in common that a broker hands over one after the other.
type occasion struct {
	parent  context.Context
	values  callctx.Values
	pointer bool // parent is one: not every context can be compared
}

func (o *occasion) is(parent context.Context, values callctx.Values) bool {
	return o.pointer && o.parent == parent && o.values == values
}

// eventContext is the context of one message: three words, until somebody waits for its end. It is never another message's. Its
// methods may be called concurrently.
type eventContext struct {
	*occasion
	ending atomic.Pointer[ending] // what those who wait, wait for; nil: nobody does
	over   atomic.Uint32          // one of the following
}

var _ context.Context = (*eventContext)(nil)

// The states of an eventContext.
const (
	underWay  uint32 = iota
	waitedFor        // by somebody who has the ending
	returned         // its handler has
)

// ending is what an eventContext has once somebody waits for it.
type ending struct {
	context.Context

	cancel context.CancelFunc
}

// unseen is the ending of contexts for which nobody waited before their handlers had returned. It is not changed.
var unseen = func() *ending {
	e := newEnding(context.Background())
	e.cancel()
	return e
}()

func newEnding(parent context.Context) *ending {
	e := new(ending)
	e.Context, e.cancel = context.WithCancel(parent)
	return e
}

// end ends the context, as its handler has returned.
func (c *eventContext) end() {
	if c.over.Swap(returned) == waitedFor {
		c.ending.Load().cancel()
	}
}

// waited gives the ending, and makes it where there is none.
func (c *eventContext) waited() *ending {
	e := c.ending.Load()
	if e == nil {
		if e = unseen; c.over.Load() != returned {
			e = newEnding(c.parent)
		}
		if !c.ending.CompareAndSwap(nil, e) {
			e.cancel()
			e = c.ending.Load()
		}
	}
	if c.over.Load() != waitedFor && !c.over.CompareAndSwap(underWay, waitedFor) && c.over.Load() == returned {
		e.cancel() // end did not see that somebody waits
	}
	return e
}

// Done implements context.Context.
func (c *eventContext) Done() <-chan struct{} { return c.waited().Done() }

// AfterFunc has f run when the context ends, for contexts that are derived from this one; see callctx.Context.AfterFunc.
func (c *eventContext) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(c.waited(), f)
}

// Err implements context.Context.
func (c *eventContext) Err() error {
	if c.over.Load() == underWay && c.parent.Err() == nil {
		return nil
	}
	return c.waited().Err() // what was told once is told again
}

// Deadline implements context.Context.
func (c *eventContext) Deadline() (deadline time.Time, ok bool) { return c.parent.Deadline() }

// Value implements context.Context.
func (c *eventContext) Value(key any) any {
	if c.values != nil {
		if v := c.values.Value(key); v != nil {
			return v
		}
	}
	return c.parent.Value(key)
}
