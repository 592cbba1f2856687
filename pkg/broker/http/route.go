package http

import (
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
	st := s.storage()
	st.data, req.Body = req.Body, st.data
	var err error
	if st.messages, err = decodeBatch(st.messages, st.data, s.topic, b.options.MaxMessage); err == nil && len(st.messages) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		b.refuseBatch(rsp, status.Refuse(status.InvalidArgument, "not a batch of messages: %s", err))
		return
	}
	ms := st.messages
	outs, over := s.receiver.Deliver(ctx, ms)
	rsp.Header = append(rsp.Header, s.ack...)
	rsp.Body = append(rsp.Body, encodeOutcomes(outs, func(first, end int) *status.Error {
		return b.tell(s, ms[first].ID, outs[first], end-first)
	})...)
	if over {
		s.giveBack(st)
	}
}

// storage is what the messages of a batch lie in: the request's own, which is the handlers', who may keep it.
type storage struct {
	data     []byte
	messages []broker.Message
}

// storages are those of subscriptions with broker.Reuse.
var storages = sync.Pool{New: func() any { return new(storage) }}

func (s *subscription) storage() *storage {
	if !s.reuse {
		return new(storage)
	}
	return storages.Get().(*storage)
}

// giveBack lets the storage of a batch that nobody uses any more be used again.
func (s *subscription) giveBack(st *storage) {
	if !s.reuse || cap(st.data) > 4*batchBytes || cap(st.messages) > batchMessages {
		return
	}
	clear(st.messages) // of what its handlers may have put there
	st.data, st.messages = st.data[:0], st.messages[:0]
	storages.Put(st)
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
