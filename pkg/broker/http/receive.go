package http

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/broker/internal/envelope"
	"github.com/cb02dfca/micro/pkg/status"
)

// errorID names the broker in the errors that it answers itself, as against those of handlers.
const errorID = "micro.broker"

// pathV1 is where go-micro v1's brokers are posted to; later ones' path is "/".
const pathV1 = "/_sub"

// maxDetail bounds the detail of a handler's error that is sent.
const maxDetail = 4 << 10

// isDelivery tells a message from other requests to the same port: a POST to the path of go-micro's brokers with a
// node's id, and without the headers of a call.
func isDelivery(r *http.Request) bool {
	if r.Method != http.MethodPost || r.URL.Path != "/" && r.URL.Path != pathV1 || !strings.Contains(r.URL.RawQuery, "id=") {
		return false
	}
	for _, key := range []string{"Micro-Service", "Micro-Endpoint", "Micro-Method", "Micro-Topic", "Micro-Id"} {
		if r.Header.Get(key) != "" || r.Header.Get("X-"+key) != "" {
			return false
		}
	}
	return idOf(r) != ""
}

func idOf(r *http.Request) string {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return ""
	}
	return q.Get("id")
}

// receive takes a delivery: 200 says that the handler acknowledged. A message is looked at in the order of its cost:
// who it is for, whether there is room, and then its body.
func (b *Broker) receive(w http.ResponseWriter, r *http.Request) {
	// Also for a body that is refused unread, which the server looks for the end of. Not every writer has a deadline; where
	// there is no connection there is no need.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(b.options.ReadTimeout))
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		b.refuse(w, r, status.New(http.StatusMethodNotAllowed, "a message is delivered by POST"))
		return
	}
	b.mu.Lock()
	s := b.subs[idOf(r)]
	b.mu.Unlock()
	switch {
	case b.gate.Context().Err() != nil:
		b.refuse(w, r, status.Refuse(status.Unavailable, "the broker is closing"))
		return
	case s == nil:
		b.refuse(w, r, status.Refuse(status.NotFound, "no such subscription here"))
		return
	case s.receiver.Busy():
		b.refuse(w, r, busy(s))
		return
	}
	if mt, _, err := mime.ParseMediaType(r.Header.Get(keyContentType)); err != nil || mt != "application/json" {
		b.refuse(w, r, status.Refuse(status.UnsupportedMedia, "content type %.80q, want application/json", r.Header.Get(keyContentType)))
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, envelope.Limit(b.options.MaxMessage)))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			b.refuse(w, r, tooLarge(b.options.MaxMessage))
			return
		}
		b.refuse(w, r, status.Refuse(status.InvalidArgument, "the body was cut off, or took longer than %v", b.options.ReadTimeout))
		return
	}
	_ = control.SetReadDeadline(time.Time{}) // the handler's time is another
	b.deliver(w, r, s, data)
}

func busy(s *subscription) *status.Error {
	return status.Refuse(status.ResourceExhausted, "the subscription to %s runs as many handlers as it may", s.topic)
}

func tooLarge(limit int) *status.Error {
	return status.Refuse(status.TooLarge, "the message's body is over the limit of %d bytes", limit)
}

// deliver runs s's handler with the message in data and answers what became of it.
func (b *Broker) deliver(w http.ResponseWriter, r *http.Request, s *subscription, data []byte) {
	m, err := envelope.Decode(data)
	switch {
	case err != nil:
		b.refuse(w, r, status.Refuse(status.InvalidArgument, "not a message: %s", err))
		return
	case len(m.Body) > b.options.MaxMessage:
		b.refuse(w, r, tooLarge(b.options.MaxMessage))
		return
	case m.Topic == "":
		b.refuse(w, r, status.Refuse(status.InvalidArgument, "the message has no topic"))
		return
	case m.Topic != s.topic:
		b.refuse(w, r, status.Refuse(status.NotFound, "the subscription is to another topic"))
		return
	}
	// Not r's context: the handler is neither ended nor left unanswered for a publisher that goes away.
	out := delivery.Outcome{}
	if outs, _ := s.receiver.Deliver(context.Background(), []broker.Message{*m}); outs != nil {
		out = outs[0]
	}
	switch {
	case out.Err == nil:
		w.Header().Set(headerAck, s.node.ID)
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
	case out.Gone:
		b.refuse(w, r, status.Refuse(status.Unavailable, "the subscription is closing"))
	case out.Refused && errors.Is(out.Err, broker.ErrBusy):
		b.refuse(w, r, busy(s))
	default:
		b.fail(w, s, m.ID, out.Err)
	}
}

// refuse answers an error of the broker's own.
func (b *Broker) refuse(w http.ResponseWriter, r *http.Request, e *status.Error) {
	e.ID = errorID
	level := slog.LevelWarn
	if e.Code == status.NotFound { // anybody may ask for what is not there, as often as they like
		level = slog.LevelDebug
	}
	b.options.Logger.Log(r.Context(), level, "broker: refused a delivery", "remote", r.RemoteAddr, "code", int(e.Code), "detail", e.Detail)
	answer(w, e)
}

// fail answers a handler's error.
func (b *Broker) fail(w http.ResponseWriter, s *subscription, id string, err error) {
	answer(w, b.public(s, id, err, 1))
}

// public gives the form of a handler's error that the publisher gets, and logs what it does not. n messages share it, of
// which id is the first's.
func (b *Broker) public(s *subscription, id string, err error, n int) *status.Error {
	log := b.options.Logger.With("topic", s.topic, "queue", s.queue, "message", id)
	if n > 1 {
		log = log.With("messages", n)
	}
	var p *delivery.Panic
	if errors.As(err, &p) {
		log.Error("broker: a handler panicked", "value", p.Value, "stack", string(p.Stack))
	} else {
		log.Warn("broker: a handler failed", "err", err)
	}
	e := *status.FromError(err)
	if len(e.Detail) > maxDetail {
		e.Detail = strings.ToValidUTF8(e.Detail[:maxDetail], "") + "..."
	}
	return &e
}

// answer sends e as HTTP status and JSON.
func answer(w http.ResponseWriter, e *status.Error) {
	body, err := json.Marshal(e)
	if err != nil { // it holds text and numbers
		body = nil
	}
	code := int(e.Code)
	if code < 400 || code > 599 {
		code = http.StatusInternalServerError
	}
	w.Header().Set(keyContentType, "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body) // a publisher that went away does not read it
}
