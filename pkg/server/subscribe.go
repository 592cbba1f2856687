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
	tables  sync.Pool // *table
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
	s.subscriptions = append(s.subscriptions, &Subscription{
		Topic: topic, Queue: o.Queue, Options: opts, server: s, handler: wrap(h, s.middleware),
	})
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
	h := sub.heading(m)
	if err := ctx.Err(); err != nil {
		return status.Refuse(status.CodeOf(err), "the call came with no time left")
	}
	t, ok := sub.tables.Get().(*table)
	if !ok {
		t = new(table)
	}
	own := t.context(ctx, h.values)
	c := t.begin(h.route, own, m)
	err := sub.run(own, c)
	t.end(c, err)
	sub.tables.Put(t)
	if err == nil {
		return nil
	}
	return h.route.public(err)
}

// run runs the handler, counts it, ends its context, and turns a panic into an error.
func (sub *Subscription) run(ctx *eventContext, c *Call) (err error) {
	var start int64
	st := &sub.stats
	weight := st.eventWeight()
	if weight > 0 {
		start = callctx.Now()
	}
	st.begun.Add(1)
	defer func() {
		if p := recover(); p != nil {
			sub.server.logger.ErrorContext(ctx, "handler panicked", "service", sub.server.name, "endpoint", sub.Topic, "panic", p, "stack", string(debug.Stack()))
			err = status.New(status.Internal, "the handler panicked")
		}
		ctx.end()
		st.end(start, weight, err)
	}()
	return sub.handler(ctx, c)
}

// timedEvents is timedBits of messages: they come by the thousand, and the clock costs as much as all that is done for one.
const timedEvents = 5

// eventWeight is weight for messages.
func (s *stats) eventWeight() uint64 {
	switch {
	case s.slow.Load():
		return 1
	case s.begun.Load()*golden>>(64-timedEvents) == 0:
		return 1 << timedEvents
	}
	return 0
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

// table is what a goroutine needs to hand messages to a handler, one at a time.
type table struct {
	call *Call // nil where the latest is still its handler's
	free []eventContext
	at   *occasion // of the latest context
}

// eventSlab is how many contexts are allocated at a time: 1 KiB. A context that is kept keeps its slab.
const eventSlab = 64

// context gives a handler's context. The caller ends it.
func (t *table) context(parent context.Context, values callctx.Values) *eventContext {
	if t.at == nil || !t.at.is(parent, values) {
		t.at = &occasion{parent, values, reflect.TypeOf(parent).Kind() == reflect.Pointer}
	}
	if len(t.free) == 0 {
		t.free = make([]eventContext, eventSlab)
	}
	c := &t.free[0]
	t.free = t.free[1:]
	c.occasion = t.at
	return c
}

// begin gives a Call for m.
func (t *table) begin(rt *route, ctx context.Context, m *broker.Message) *Call {
	c := t.call
	if c == nil {
		c = new(Call)
		c.pipe = &c.unary
	}
	t.call = nil
	c.route, c.ctx, c.message = rt, ctx, m
	c.unary.body, c.unary.received, c.unary.taken = m.Body, false, false
	return c
}

// end takes back a Call whose handler returned err. One that went as it should is used again; see Call.end.
func (t *table) end(c *Call, err error) {
	u := &c.unary
	if err != nil || !u.taken {
		u.state.Store(abandoned)
		return
	}
	c.ctx, c.message = context.Background(), nil
	u.body, u.received = nil, true
	t.call = c
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

// eventContext is the context of one message: two words, until somebody waits for its end. It is never another message's. Its
// methods may be called concurrently.
type eventContext struct {
	*occasion
	state atomic.Pointer[ending] // nil: it has not ended, and nobody waits
}

var _ context.Context = (*eventContext)(nil)

// ending is what an eventContext has once somebody waits for it, or once it has ended.
type ending struct {
	context.Context

	cancel context.CancelFunc
}

// returned is the ending of contexts that ended before anybody waited. It is not changed.
var returned = func() *ending {
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
	if !c.state.CompareAndSwap(nil, returned) {
		c.state.Load().cancel()
	}
}

// waited gives the ending, and makes it where there is none.
func (c *eventContext) waited() *ending {
	if e := c.state.Load(); e != nil {
		return e
	}
	e := newEnding(c.parent)
	if !c.state.CompareAndSwap(nil, e) {
		e.cancel()
	}
	return c.state.Load()
}

// Done implements context.Context.
func (c *eventContext) Done() <-chan struct{} { return c.waited().Done() }

// AfterFunc has f run when the context ends, for contexts that are derived from this one; see callctx.Context.AfterFunc.
func (c *eventContext) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(c.waited(), f)
}

// Err implements context.Context.
func (c *eventContext) Err() error {
	e := c.state.Load()
	if e == nil {
		if c.parent.Err() == nil {
			return nil
		}
		e = c.waited() // what was told once is told again
	}
	return e.Err()
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
