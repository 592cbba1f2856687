package grpc

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// sender names this package in errors that it answers with.
const sender = "micro.transport"

// exchange is a request and its answer. One that was of a unary call is used again.
type exchange struct {
	l       *Listener
	w       http.ResponseWriter
	r       *http.Request
	reader  reader
	head    head
	timeout time.Duration
	kind    string // the content type of the messages
	packs   bool   // answers are packed
	micro   bool   // the caller reads go-micro's errors
	begun   bool   // something of the answer has been written

	req, rsp transport.Message
	out      []byte
	late     lateness
}

func newExchange() *exchange {
	x := new(exchange)
	x.late.timer = time.AfterFunc(time.Hour, x.late.fire)
	x.late.timer.Stop()
	return x
}

func (x *exchange) begin(l *Listener, w http.ResponseWriter, r *http.Request) {
	x.l, x.w, x.r = l, w, r
	x.reader.r, x.reader.max, x.reader.gzip = r.Body, l.t.o.MaxMessage, false
	x.head.metadata, x.head.tooLong = x.head.metadata[:0], false
	x.packs, x.micro, x.begun = false, false, false
}

// clear lets go of what was the request's, and of storage that is too large to be kept.
func (x *exchange) clear() {
	x.w, x.r, x.reader.r = nil, nil, nil
	for _, body := range []*[]byte{&x.req.Body, &x.rsp.Body, &x.out} {
		if cap(*body) > keepStorage {
			*body = nil
		}
	}
}

// The answer's headers that net/http would make, and gRPC does not need.
var absent []string

// read reads the request's headers.
func (x *exchange) read() *status.Error {
	h, own := x.r.Header, x.w.Header()
	own["Content-Type"], own["Date"] = h["Content-Type"][:1], absent
	if x.r.Method != http.MethodPost {
		return status.New(status.Unimplemented, "a method of gRPC is called by POST")
	}
	x.kind = contentType(h["Content-Type"][0])
	x.micro = len(h[headerMicroType]) > 0 || h.Get("User-Agent") == ownAgent
	switch encoding := h.Get(headerEncoding); encoding {
	case "", "identity":
	case "gzip":
		x.reader.gzip = true
		for _, accepted := range h[headerAccepted] {
			x.packs = x.packs || strings.Contains(accepted, "gzip")
		}
	default:
		own[headerAccepted] = gzipValue
		return status.New(status.Unimplemented, "grpc-encoding %.40q is not taken: gzip and identity are", encoding)
	}
	var e *status.Error
	if x.timeout, e = timeout(h); e != nil {
		return e
	}
	x.head.take(h)
	return x.head.check()
}

// header completes the header of the message that calls an endpoint. It is valid until the next read.
func (x *exchange) header(endpoint string) (metadata.MD, *status.Error) {
	if service := x.r.Header.Get(headerService); service != "" {
		x.head.add(transport.HeaderService, service)
	}
	x.head.add(transport.HeaderEndpoint, endpoint)
	x.head.add(transport.HeaderContentType, x.kind)
	return x.head.metadata, x.head.check()
}

// fail answers with an error, and with nothing before it.
func (x *exchange) fail(e *status.Error) { x.end(nil, e) }

// end ends the answer: with md in its trailer, and with e unless that is nil. Where nothing of the answer has been written, the
// headers are the trailer.
func (x *exchange) end(md metadata.MD, e *status.Error) {
	h, prefix := x.w.Header(), http.TrailerPrefix
	if !x.begun && e != nil {
		prefix = ""
		h["Content-Length"] = absent
	}
	if broken := writeMetadata(h, prefix, md); broken != nil && e == nil {
		e = broken
	}
	if e == nil {
		h[http.TrailerPrefix+headerStatus] = okValue
		return
	}
	e = e.From(sender)
	c, message := codeOf(e.Code), e.Detail
	if x.micro {
		bare := *e
		bare.Details = nil // they stand beside it
		message = string(bare.AppendJSON(nil))
	}
	if x.micro || len(e.Details) > 0 {
		h[prefix+headerDetails] = []string{encodeBin(appendStatus(nil, c, message, e, x.micro))}
	}
	h[prefix+headerStatus] = []string{strconv.Itoa(int(c))}
	if message != "" {
		h[prefix+headerMessage] = []string{encodeMessage(message)}
	}
}

var okValue = []string{"0"}

// receive reads the one message of a unary call.
func (x *exchange) receive() (err error) {
	x.late.begin(x.l.t.o.BodyTimeout, func(past time.Time) { _ = http.NewResponseController(x.w).SetReadDeadline(past) })
	defer x.late.end()
	if x.req.Body, err = x.reader.next(x.req.Body[:0]); err != nil {
		return err
	}
	var more [1]byte
	switch n, err := io.ReadFull(x.reader.r, more[:]); {
	case n > 0:
		return status.New(status.Unimplemented, "the method takes one message, and there are more")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// unread gives the error of a message that could not be read.
func unread(err error) *status.Error {
	e := (*status.Error)(nil)
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, transport.ErrTooLarge):
		return status.Wrap(err, status.TooLarge, "%s", strings.TrimPrefix(err.Error(), transport.ErrTooLarge.Error()+": "))
	case errors.Is(err, io.EOF):
		return status.New(status.Unimplemented, "the method takes one message, and there is none")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return status.Wrap(err, status.DeadlineExceeded, "the message did not come in time")
	}
	return status.Wrap(err, status.InvalidArgument, "the message is cut off")
}

// serveCall serves a unary call.
func (x *exchange) serveCall(endpoint string) {
	x.req = transport.Message{Kind: transport.Call, Timeout: x.timeout, Body: x.req.Body[:0]}
	x.rsp = transport.Message{Kind: transport.Reply, Header: x.rsp.Header[:0], Body: x.rsp.Body[:0]}
	header, e := x.header(endpoint)
	if e == nil {
		if err := x.receive(); err != nil {
			e = unread(err)
		}
	}
	if e != nil {
		x.fail(e)
		return
	}
	x.req.Header = header
	x.l.calls(x.r.Context(), x.r.RemoteAddr, &x.req, &x.rsp)
	x.answer()
}

// answer writes what the handler answered.
func (x *exchange) answer() {
	rsp := &x.rsp
	if failed, ok := rsp.Header.Bytes(transport.HeaderError); ok && len(failed) > 0 {
		x.end(rsp.Header, status.Parse(string(failed)))
		return
	}
	if len(rsp.Body) > x.l.t.o.MaxMessage {
		x.fail(status.New(status.TooLarge, "the answer of %d bytes is over the limit of %d", len(rsp.Body), x.l.t.o.MaxMessage))
		return
	}
	h := x.w.Header()
	if e := writeMetadata(h, "", rsp.Header); e != nil {
		x.fail(e)
		return
	}
	x.describe(rsp.Header)
	x.begun = true
	x.out = appendFrame(x.out[:0], rsp.Body, x.packs)
	x.late.begin(x.l.t.o.WriteTimeout, func(past time.Time) { _ = http.NewResponseController(x.w).SetWriteDeadline(past) })
	defer x.late.end()
	_, _ = x.w.Write(x.out) // a caller that has gone needs no answer
	x.end(nil, nil)
}

// describe writes the headers that tell of the messages of the answer.
func (x *exchange) describe(header metadata.MD) {
	h := x.w.Header()
	h["Content-Length"] = absent
	if x.packs {
		h[headerEncoding] = gzipValue
	}
	if ct, ok := header.Bytes(transport.HeaderContentType); ok && string(ct) != x.kind {
		h["Content-Type"] = []string{grpcType(string(ct))}
	}
}

// lateness does something when a time is over. It is used again, at no allocation but for what it does.
type lateness struct {
	timer *time.Timer
	mu    sync.Mutex
	until time.Time
	act   func(past time.Time) // nil: nothing is waited for
}

func (t *lateness) begin(d time.Duration, act func(past time.Time)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until, t.act = time.Now().Add(d), act
	t.timer.Reset(d)
}

// end gives the waiting up. act is not running when it returns.
func (t *lateness) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer.Stop()
	t.act = nil
}

func (t *lateness) fire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.act != nil && !time.Now().Before(t.until) { // else it is of an earlier time
		t.act(time.Unix(1, 0))
	}
}
