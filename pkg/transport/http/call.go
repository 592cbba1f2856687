package http

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// sender names this package in errors that it answers with.
const sender = "micro.transport"

// keepStorage is the size of a body whose storage is kept for the next call; larger ones are left to the collector.
const keepStorage = 64 << 10

// exchange is the storage of one plain call.
type exchange struct {
	timedBody
	caller
	head     head
	req, rsp transport.Message
}

// The values of headers that most answers have. They are not changed.
var (
	typeJSON   = []string{"application/json"}
	typeBinary = []string{"application/octet-stream"}
	noSniff    = []string{"nosniff"}
)

// route serves a request that passed the checks of Host and Origin.
func (l *Listener) route(w http.ResponseWriter, r *http.Request) {
	for _, m := range l.mounts {
		if m.match(r) {
			limitWrite(w, time.Time{})
			switch b := r.Body.(type) {
			case *timedBody:
				b.fresh = false // it may be long until the handler reads
			case *exchange:
				body := b.timedBody // what the handler may keep
				body.fresh = false
				r.Body = &body
			}
			m.handler.ServeHTTP(w, r)
			return
		}
	}
	if !l.enter() {
		closeAfter(w, r)
		refuse(w, r, status.Refuse(status.Unavailable, "the server is shutting down"))
		return
	}
	defer l.handlers.Done()
	switch {
	case wantsUpgrade(r):
		l.upgrade(w, r)
	case r.Method == http.MethodGet && isGoMicro(r) && l.calls != nil: // no web page can send that header unasked
		l.call(w, r)
	case l.t.o.Pages != nil && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		l.t.o.Pages.ServeHTTP(w, r)
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, r, status.New(http.StatusMethodNotAllowed, "a call is a POST to its endpoint, such as /Say.Hello, with the body's Content-Type"))
	case l.calls == nil:
		refuse(w, r, status.Refuse(status.Unimplemented, "no plain HTTP calls are served here"))
	default:
		l.call(w, r)
	}
}

// timed bounds the times of each request: of reading its body, whoever reads it, and of writing the answer. net/http keeps
// a deadline from one request to the next, and knows none for a body that is refused and drained.
func (l *Listener) timed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		limitWrite(w, now.Add(l.t.o.WriteTimeout))
		switch {
		case r.ContentLength == 0:
			next.ServeHTTP(w, r)
		case r.ProtoMajor == 2:
			b := new(timedBody)
			l.time(b, w, r, now)
			r.Body = b
			defer l.drainBody(w, b)
			next.ServeHTTP(w, r)
		default:
			x := l.messages.Get().(*exchange)
			l.time(&x.timedBody, w, r, now)
			r.Body = x
			next.ServeHTTP(w, r)
			l.recycle(x)
		}
	})
}

// time makes b the body of r, which came now.
func (l *Listener) time(b *timedBody, w http.ResponseWriter, r *http.Request, now time.Time) {
	*b = timedBody{ReadCloser: r.Body, w: w, idle: l.t.o.BodyIdle, end: now.Add(l.t.o.BodyTimeout), fresh: true}
	b.limit(now)
}

// drainBody reads what is left of a body whose request was answered already, as much as a message may have. net/http
// does that for HTTP/1.1; in HTTP/2 it resets the stream, and there are clients that then throw the answer away.
func (l *Listener) drainBody(w http.ResponseWriter, b *timedBody) {
	if b.over {
		return
	}
	_ = http.NewResponseController(w).Flush() // whoever waits for the answer before it sends the rest gets it
	limitWrite(w, time.Now().Add(l.t.o.BodyTimeout+l.t.o.WriteTimeout))
	_, _ = io.CopyN(io.Discard, b, int64(l.t.o.MaxMessage)) // a client that has gone needs no answer
}

// timedBody is a request's body that must come in time.
type timedBody struct {
	io.ReadCloser
	w     http.ResponseWriter
	idle  time.Duration
	end   time.Time
	fresh bool // the deadline of the next read was set just now
	over  bool // all of it came, or it failed
}

// limit sets the deadline of the next read.
func (b *timedBody) limit(now time.Time) {
	next := now.Add(b.idle)
	if next.After(b.end) {
		next = b.end
	}
	_ = http.NewResponseController(b.w).SetReadDeadline(next) // fails on a connection that has gone, as the read will
}

func (b *timedBody) Read(p []byte) (int, error) {
	if !b.fresh {
		b.limit(time.Now())
	}
	b.fresh = false
	n, err := b.ReadCloser.Read(p)
	b.over = b.over || err != nil
	if errors.Is(err, io.EOF) {
		// net/http reads on, to see the caller leave: an old deadline would look like that.
		_ = http.NewResponseController(b.w).SetReadDeadline(time.Time{})
	}
	return n, err
}

// limitWrite bounds the writing of the answer; zero is no bound, for as long as a handler runs.
func limitWrite(w http.ResponseWriter, end time.Time) {
	_ = http.NewResponseController(w).SetWriteDeadline(end) // fails on a connection that has gone, as the write will
}

// closeAfter makes the connection end with this answer, as what follows on it is not to be read. An HTTP/2 connection
// has other requests, and lives on.
func closeAfter(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
}

// call serves a plain call.
func (l *Listener) call(w http.ResponseWriter, r *http.Request) {
	if len(r.TransferEncoding) > 0 {
		// A request that has a Content-Length too is read differently by careless proxies (RFC 9112 section 6.3):
		// what follows a chunked body on this connection is not read.
		closeAfter(w, r)
	}
	if r.ProtoMajor == 2 || r.TLS != nil {
		// Until there is something to write: the body and the handler have times of their own. HTTP/1.1 without TLS writes
		// nothing meanwhile, and does not look at the deadline.
		limitWrite(w, time.Time{})
	}
	x, ok := r.Body.(*exchange)
	if !ok {
		x = l.messages.Get().(*exchange)
		defer l.recycle(x)
	}
	x.req = transport.Message{Kind: transport.Call, Body: x.req.Body[:0]}
	x.rsp = transport.Message{Kind: transport.Reply, Header: x.rsp.Header[:0], Body: x.rsp.Body[:0]}
	e := x.head.of(&x.req, r)
	if e == nil {
		e = l.readBody(&x.req, w, r)
	}
	if e != nil {
		limitWrite(w, time.Now().Add(l.t.o.WriteTimeout))
		refuse(w, r, e)
		return
	}
	if x.head.goMicro() {
		if a, ok := w.(*mucpAnswer); ok && a.stream != "" {
			a.openStream(&x.req)
			return
		} else if l.takeOver(w, r, x.req.Body) {
			return
		}
	}
	if r.ProtoMajor == 1 {
		x.caller = caller{Context: r.Context(), l: l, w: w, r: r}
		l.calls(&x.caller, r.RemoteAddr, &x.req, &x.rsp)
		if x.answered {
			return
		}
	} else {
		// An answer is whole for an HTTP/2 client when its stream ends, which is when this function returns.
		l.calls(r.Context(), r.RemoteAddr, &x.req, &x.rsp)
	}
	limitWrite(w, time.Now().Add(l.t.o.WriteTimeout))
	l.reply(w, r, &x.rsp)
}

// caller is the context of a call over HTTP/1.1, whose caller can be answered before its handler returns.
type caller struct {
	context.Context
	l        *Listener
	w        http.ResponseWriter
	r        *http.Request
	answered bool
}

var _ transport.Answerable = (*caller)(nil)

// Request implements transport.Answerable.
func (c *caller) Request() context.Context { return c.Context }

// Answer implements transport.Answerable.
func (c *caller) Answer(rsp *transport.Message) {
	c.answered = true
	if _, apart := c.w.(*mucpAnswer); !apart {
		closeAfter(c.w, c.r) // a further request would wait for the handler of this one
	}
	c.w.Header()["Content-Length"] = []string{strconv.Itoa(len(rsp.Body))} // this answer is read before the handler has returned
	limitWrite(c.w, time.Now().Add(c.l.t.o.WriteTimeout))
	c.l.reply(c.w, c.r, rsp)
	_ = http.NewResponseController(c.w).Flush() // a caller that has gone needs no answer
}

// recycle keeps the storage of the call.
func (l *Listener) recycle(x *exchange) {
	x.timedBody, x.caller = timedBody{}, caller{}
	for _, m := range []*transport.Message{&x.req, &x.rsp} {
		if cap(m.Body) > keepStorage {
			m.Body = nil
		}
	}
	l.messages.Put(x)
}

// readBody reads r's body into m, within the limit of size.
func (l *Listener) readBody(m *transport.Message, w http.ResponseWriter, r *http.Request) *status.Error {
	limit := int64(l.t.o.MaxMessage)
	if r.ContentLength > limit {
		closeAfter(w, r) // the body is not read
		return bodyTooLarge(limit)
	}
	if r.ContentLength == 0 {
		return nil
	}
	body := io.Reader(r.Body)
	if r.ContentLength < 0 {
		body = http.MaxBytesReader(w, r.Body, limit)
	} else {
		m.Body = slices.Grow(m.Body, int(min(r.ContentLength, keepStorage))) // more only when more has come
	}
	for {
		if len(m.Body) == cap(m.Body) {
			m.Body = append(m.Body, 0)[:len(m.Body)] // grows with what came
		}
		n, err := body.Read(m.Body[len(m.Body):cap(m.Body)])
		m.Body = m.Body[:len(m.Body)+n]
		if err == nil {
			continue
		}
		var over *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &over):
			closeAfter(w, r)
			return bodyTooLarge(limit)
		case errors.Is(err, os.ErrDeadlineExceeded):
			closeAfter(w, r)
			return status.Wrap(err, status.DeadlineExceeded, "the body did not come in time")
		}
		closeAfter(w, r)
		return status.Wrap(err, status.InvalidArgument, "the body is cut off or malformed")
	}
}

func bodyTooLarge(limit int64) *status.Error {
	return status.New(status.TooLarge, "the body is over the limit of %d bytes", limit)
}

// reply writes what the handler answered, with its length.
func (l *Listener) reply(w http.ResponseWriter, r *http.Request, rsp *transport.Message) {
	if len(rsp.Body) > l.t.o.MaxMessage {
		refuse(w, r, status.New(status.TooLarge, "the reply of %d bytes is over the limit of %d", len(rsp.Body), l.t.o.MaxMessage))
		return
	}
	h := w.Header()
	writeHeader(h, rsp.Header)
	if failed, ok := rsp.Header.Bytes(transport.HeaderError); ok && len(failed) > 0 {
		refuse(w, r, status.Parse(string(failed)))
		return
	}
	echoID(h, first(r.Header, headerID, headerOldID))
	switch ct, _ := rsp.Header.Bytes(transport.HeaderContentType); string(ct) {
	case typeJSON[0]:
		h["Content-Type"] = typeJSON
	case "":
		if len(rsp.Body) == 0 && !isGoMicro(r) { // which knows no other status than 200
			w.WriteHeader(http.StatusNoContent)
			return
		}
		h["Content-Type"] = typeBinary // else net/http guesses
	default:
		h["Content-Type"] = []string{string(ct)}
	}
	h["X-Content-Type-Options"] = noSniff
	if len(rsp.Body) > ownLength {
		h["Content-Length"] = []string{strconv.Itoa(len(rsp.Body))}
	}
	_, _ = w.Write(rsp.Body) // a caller that has gone needs no answer
}

// ownLength is the size up to which net/http finds out the length of an answer by itself: its buffer holds that.
const ownLength = 2000

// isGoMicro reports whether a request speaks go-micro's dialect: status 200 always, the error in a header.
func isGoMicro(r *http.Request) bool {
	return first(r.Header, headerID, headerOldID, headerStream, headerOldStream) != ""
}

func echoID(h http.Header, id string) {
	if id == "" {
		return
	}
	id = oneLine(id)
	h.Set(headerID, id)
	h.Set(headerOldID, id)
}

// refuse answers with an error in the caller's dialect.
func refuse(w http.ResponseWriter, r *http.Request, e *status.Error) {
	e = public(e)
	h := w.Header()
	text := e.AppendJSON(make([]byte, 0, 256))
	if !isGoMicro(r) {
		text = append(text, '\n')
		h["Content-Type"], h["X-Content-Type-Options"] = typeJSON, noSniff
		h["Content-Length"] = []string{strconv.Itoa(len(text))} // the answer may be read before the handler returns
		w.WriteHeader(int(e.Code))
		_, _ = w.Write(text) // a caller that has gone needs no answer
		return
	}
	echoID(h, first(r.Header, headerID, headerOldID))
	line := oneLine(string(text))
	h.Set(headerError, line)
	h.Set(headerOldError, line)
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// public gives e with what every error has on the wire: an id, and a code of an error.
func public(e *status.Error) *status.Error {
	if e.ID == "" || e.Code < 400 || e.Code > 599 {
		e = e.From(sender)
	}
	if e.Code < 400 || e.Code > 599 {
		e.Code = status.Internal
	}
	return e
}

// wantsUpgrade reports whether a request asks for frames (RFC 9110 section 7.8). HTTP/2 has no upgrade.
func wantsUpgrade(r *http.Request) bool {
	return r.ProtoMajor == 1 && strings.EqualFold(get(r.Header, "Upgrade"), upgradeProtocol) && listed(r.Header, "Upgrade")
}

// upgrade makes the connection one of frames.
func (l *Listener) upgrade(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method != http.MethodOptions && r.Method != http.MethodGet || r.URL.Path != "/" || r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		refuse(w, r, status.New(status.InvalidArgument, "an upgrade is OPTIONS / without a body"))
		return
	case r.Header.Get(headerVersion) != upgradeVersion:
		w.Header().Set("Upgrade", upgradeProtocol)
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set(headerVersion, upgradeVersion)
		refuse(w, r, status.New(http.StatusUpgradeRequired, "frames of version %.20q are not spoken here, version %s is",
			r.Header.Get(headerVersion), upgradeVersion))
		return
	}
	nc, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, r, status.Wrap(err, status.Internal, "the connection cannot be upgraded"))
		return
	}
	settle(nc)
	if buffered.Reader.Buffered() > 0 { // a client waits for the 101
		l.t.o.Logger.Debug("transport/http: a client sent frames before the 101", "remote", nc.RemoteAddr().String())
		nc.Close()
		return
	}
	answer := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + upgradeProtocol + "\r\n" +
		headerVersion + ": " + upgradeVersion + "\r\n\r\n"
	_ = nc.SetWriteDeadline(time.Now().Add(l.t.o.WriteTimeout)) // a connection that has gone fails the write
	if _, err := io.WriteString(nc, answer); err != nil {
		nc.Close()
		return
	}
	_ = nc.SetWriteDeadline(time.Time{}) // it was the answer's: frames are written without one, and set theirs when they wait
	l.adopt(nc)
}
