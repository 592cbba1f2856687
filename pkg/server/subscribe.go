package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

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
	own := sub.server.context(ctx, callctx.Never, h.values)
	defer own.End(context.Canceled)
	c := h.route.begin(own, m.Body, nil)
	c.message = m
	err := c.end(h.route.run(own, c, sub.handler, &sub.stats, false))
	if err == nil {
		return nil
	}
	return h.route.public(err)
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
