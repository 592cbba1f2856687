package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// route is the broker's transport.Router: it takes the batches for the subscription that header names. Each has a
// goroutine of its own, as its handlers may take as long as they like.
func (b *Broker) route(header metadata.MD) *transport.Route {
	id, contentType := header.Get(mdSubscription), header.Get(mdContentType)
	return &transport.Route{
		Serve: func(ctx context.Context, req, rsp *transport.Message) {
			b.takeBatch(ctx, id, contentType, req, rsp)
		},
		// The handlers' time is the subscription's. A publisher that no longer waits says so.
		Timeout: func(time.Duration) time.Duration { return 0 },
	}
}

// takeBatch runs the handler of subscription id with the messages of req. An empty reply says that it acknowledged all;
// the ack in its header, that it was this subscription's.
func (b *Broker) takeBatch(ctx context.Context, id, contentType string, req, rsp *transport.Message) {
	b.mu.Lock()
	s := b.subs[id]
	b.mu.Unlock()
	switch {
	case b.gate.Context().Err() != nil:
		b.refuseBatch(rsp, status.Refuse(status.Unavailable, "the broker is closing"))
		return
	case s == nil:
		b.refuseBatch(rsp, status.Refuse(status.NotFound, "no such subscription here"))
		return
	case s.receiver.Busy():
		b.refuseBatch(rsp, busy(s))
		return
	case contentType != contentBatch:
		b.refuseBatch(rsp, status.Refuse(status.UnsupportedMedia, "content type %.80q, want %s", contentType, contentBatch))
		return
	}
	data, room := req.Body, s.room()
	if !s.reuse {
		// They may keep it. A copy of the whole costs less than to give away what it was read into: that is warm, and need not be
		// cleared and grown anew for the next batch.
		data = bytes.Clone(data)
	}
	ms, err := decodeBatch((*room)[:0], data, s.topic, b.options.MaxMessage)
	if err == nil && len(ms) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		b.refuseBatch(rsp, status.Refuse(status.InvalidArgument, "not a batch of messages: %s", err))
		return
	}
	*room = ms
	outs, over := s.receiver.Deliver(ctx, ms)
	rsp.Header = append(rsp.Header, s.ack...)
	rsp.Body = append(rsp.Body, encodeOutcomes(outs, func(first, end int) *status.Error {
		return b.tell(s, ms[first].ID, outs[first], end-first)
	})...)
	switch {
	case !s.reuse:
	case over:
		giveBack(room)
	default:
		req.Body = nil // a handler that was left behind may still read it
	}
}

// messageRooms are what the messages of batches lie in, for subscriptions with broker.Reuse.
var messageRooms = sync.Pool{New: func() any { return new([]broker.Message) }}

// room gives storage for the messages of a batch: the handlers' own, unless they keep none.
func (s *subscription) room() *[]broker.Message {
	if !s.reuse {
		return new([]broker.Message)
	}
	return messageRooms.Get().(*[]broker.Message)
}

// giveBack lets the storage of messages that nobody uses any more be used again.
func giveBack(room *[]broker.Message) {
	if cap(*room) > batchMessages {
		return
	}
	clear(*room) // of what its handlers may have put there
	messageRooms.Put(room)
}

// tell gives the error that a publisher gets for n messages that fared alike, of which id is the first's.
func (b *Broker) tell(s *subscription, id string, out delivery.Outcome, n int) *status.Error {
	var e *status.Error
	switch {
	case out.Gone:
		e = status.Refuse(status.Unavailable, "the subscription is closing")
	case out.Refused && errors.Is(out.Err, broker.ErrBusy):
		e = busy(s)
	case out.Refused && status.IsRefused(out.Err), !out.Refused:
		return b.public(s, id, out.Err, n)
	default:
		e = status.Refuse(status.Canceled, "%s", fmt.Sprint(out.Err))
	}
	e.ID = errorID
	return e
}

// refuseBatch answers that none of the messages was handled.
func (b *Broker) refuseBatch(rsp *transport.Message, e *status.Error) {
	e.ID = errorID
	level := slog.LevelWarn
	if e.Code == status.NotFound { // anybody may ask for what is not there, as often as they like
		level = slog.LevelDebug
	}
	b.options.Logger.Log(context.Background(), level, "broker: refused a batch", "code", int(e.Code), "detail", e.Detail)
	fail(rsp, e)
}

// fail makes e the answer to a call.
func fail(rsp *transport.Message, e *status.Error) {
	header, err := rsp.Header.Set(mdError, string(e.AppendJSON(nil)))
	if err == nil { // it is short, and JSON has no line breaks
		rsp.Header = header
	}
}
