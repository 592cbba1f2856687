package grpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Call makes a unary call, on a stream of HTTP/2 of its own.
func (c *Conn) Call(ctx context.Context, req, rsp *transport.Message) error {
	req.Lent = false
	if err := transport.Check(req, c.ch.t.o.MaxMessage); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", transport.ErrNotSent, err)
	}
	if !c.enter() {
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.ch.addr, transport.ErrClosed)
	}
	defer c.leave()
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.Timeout)
		defer cancel()
	}
	body := &single{frame: appendFrame(nil, req.Body, c.ch.t.o.Gzip)}
	r, err := c.ch.request(ctx, req, body, remaining(ctx))
	if err != nil {
		return err
	}
	start := clock()
	answer, err := c.ch.http.RoundTrip(r)
	if err == nil {
		err = c.ch.readReply(answer, rsp)
		_ = answer.Body.Close()
	}
	if err == nil {
		return nil
	}
	if ended := ctx.Err(); ended != nil {
		c.ch.wire.doubt(start)
		err = errors.Join(ended, err)
	}
	return c.explain(err, body.read.Load())
}

// remaining is the time to ctx's deadline; 0 for none.
func remaining(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), 1)
	}
	return 0
}

// single is the body of a request of one message. It notes whether any of it has been taken to be sent.
type single struct {
	frame []byte
	at    int
	read  atomic.Bool
}

func (s *single) Read(p []byte) (int, error) {
	s.read.Store(true)
	n := copy(p, s.frame[s.at:])
	s.at += n
	if s.at == len(s.frame) {
		return n, io.EOF // with the last bytes, so that they end the stream
	}
	return n, nil
}

func (s *single) Close() error { return nil }

// request makes the HTTP request of a call or a stream.
func (c *channel) request(ctx context.Context, m *transport.Message, body io.ReadCloser, timeout time.Duration) (*http.Request, error) {
	var service, endpoint, contentType string
	for key, value := range m.Header.Pairs() {
		switch string(key) {
		case transport.HeaderService:
			service = string(value)
		case transport.HeaderEndpoint:
			endpoint = string(value)
		case transport.HeaderContentType:
			contentType = string(value)
		}
	}
	path, err := methodPath(service, endpoint)
	if err != nil {
		return nil, fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.addr, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.addr, err)
	}
	h := r.Header
	h["Content-Type"], h["Te"], h["User-Agent"], h[headerAccepted] = plainValue, trailersValue, agentValue, gzipValue
	if contentType != "" && contentType != "application/protobuf" {
		h["Content-Type"], h[headerMicroType] = []string{grpcType(contentType)}, []string{contentType}
	}
	if timeout > 0 {
		h[headerTimeout] = []string{formatTimeout(timeout)}
	}
	if service != "" && !strings.Contains(endpoint, "/") {
		h[headerService] = []string{service}
	}
	if c.t.o.Gzip {
		h[headerEncoding] = gzipValue
	}
	if e := writeMetadata(h, "", m.Header); e != nil {
		return nil, fmt.Errorf("%w: to %s: %s", transport.ErrNotSent, c.addr, e.Detail)
	}
	return r, nil
}

// readReply reads the answer to a unary call.
func (c *channel) readReply(answer *http.Response, rsp *transport.Message) error {
	packed, err := accept(answer)
	if err != nil {
		return err
	}
	rsp.Reset()
	rsp.Kind = transport.Reply
	in := reader{r: answer.Body, max: c.t.o.MaxMessage, gzip: packed}
	body, err := in.next(rsp.Body)
	missing := errors.Is(err, io.EOF)
	if err != nil && !missing {
		return err
	}
	rsp.Body = body
	if !missing {
		if n, err := answer.Body.Read(in.prefix[:1]); n > 0 {
			return fmt.Errorf("%w: the answer to a call has more than one message", transport.ErrProtocol)
		} else if !errors.Is(err, io.EOF) {
			return err // nil cannot be: a Read of nothing
		}
	}
	failed, err := outcome(answer)
	switch {
	case err != nil:
		return err
	case failed == nil && missing:
		return fmt.Errorf("%w: the answer has no message", transport.ErrProtocol)
	case isLarge(failed):
		return failed
	}
	return c.readHeader(answer, rsp, failed)
}

// accept checks that an answer is one of gRPC, and reports whether its messages may be packed.
func accept(answer *http.Response) (packed bool, err error) {
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), mediaType) {
		return false, stranger(answer)
	}
	switch encoding := answer.Header.Get(headerEncoding); encoding {
	case "", "identity":
		return false, nil
	case "gzip":
		return true, nil
	default:
		return false, fmt.Errorf("%w: the answer is packed as %.40q, which was not asked for", transport.ErrProtocol, encoding)
	}
}

// stranger is the error of an answer that no gRPC server gives. One that says that the request itself was of no use says also
// that nothing has run the call. Any other may be of a proxy before a server.
func stranger(answer *http.Response) error {
	err := fmt.Errorf("%w: the peer answered %.60q, which is not gRPC", transport.ErrProtocol, answer.Status)
	switch answer.StatusCode {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusMisdirectedRequest,
		http.StatusNotImplemented:
		refusal := status.Refuse(status.Misdirected, "the peer speaks HTTP, and no gRPC")
		refusal.Remote = true
		return fmt.Errorf("%w: %w", err, refusal)
	}
	return err
}

// outcome gives the error that a server ended its answer with, nil for success. Its body has been read to the end.
func outcome(answer *http.Response) (*status.Error, error) {
	at := answer.Trailer
	if len(at[headerStatus]) == 0 {
		at = answer.Header // an answer of headers alone
	}
	raw := at.Get(headerStatus)
	n, err := strconv.ParseInt(raw, 10, 32)
	switch {
	case raw == "":
		return nil, fmt.Errorf("%w: the answer ended without a grpc-status", transport.ErrProtocol)
	case err != nil || n < 0:
		return nil, fmt.Errorf("%w: grpc-status %.40q is no number", transport.ErrProtocol, raw)
	case n == 0:
		return nil, nil
	}
	return readStatus(code(n), decodeMessage(at.Get(headerMessage)), at.Get(headerDetails)), nil
}

// readHeader makes the header of a reply: the answer's headers and trailers, and how it failed.
func (c *channel) readHeader(answer *http.Response, m *transport.Message, failed *status.Error) error {
	h := head{metadata: m.Header[:0]}
	h.take(answer.Header)
	if len(answer.Trailer) > 0 {
		for name := range answer.Trailer { // the trailer wins over the header
			if len(answer.Header[name]) > 0 && !isOwn(name) {
				h.metadata = h.metadata.Without(strings.ToLower(name))
			}
		}
		h.take(answer.Trailer)
	}
	if failed != nil {
		h.addError(failed)
	} else {
		h.add(transport.HeaderContentType, contentType(answer.Header.Get("Content-Type")))
	}
	if e := h.check(); e != nil {
		return fmt.Errorf("%w: header of the reply: %s", transport.ErrProtocol, e.Detail)
	}
	m.Header = h.metadata
	return nil
}

// isLarge reports whether an error has more details than a header of ours may hold: it is then given by itself.
func isLarge(failed *status.Error) bool {
	return failed != nil && len(failed.Details) > 0 && len(failed.AppendJSON(nil)) > metadata.MaxValue
}

// addError adds an error, of which it leaves out what a header cannot carry.
func (h *head) addError(e *status.Error) {
	h.add(transport.HeaderError, string(e.Within(metadata.MaxValue).AppendJSON(nil)))
}

// Errors of streams of HTTP/2 (RFC 9113 section 7).
const (
	h2Refused = 0x7
	h2Cancel  = 0x8
	h2Calm    = 0xb
)

// streamError is net/http's error of a stream: errors.As fills whatever has these fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return fmt.Sprintf("HTTP/2 stream error %d", e.Code) }

// The texts of net/http's errors of requests that the server has not begun: of a connection that takes no more, and of a GOAWAY
// that tells of an earlier one as the last. They have no values to compare with.
var unsentTexts = []string{
	"http2: client conn not usable", "http2: client conn could not be established", "http2: client conn is closed",
	"http2: Transport received Server's graceful shutdown GOAWAY",
}

// unsent reports whether err says for certain that the server has not begun with the request.
func unsent(err error) bool {
	if e := (streamError{}); errors.As(err, &e) && e.Code == h2Refused {
		return true
	}
	for ; err != nil; err = errors.Unwrap(err) {
		for _, text := range unsentTexts {
			if err.Error() == text {
				return true
			}
		}
	}
	return false
}

// explain makes the error of a call. begun says that the server may have something of its message.
func (c *Conn) explain(err error, begun bool) error {
	if e, ok := err.(*status.Error); ok && e.Remote {
		return e // the server's own
	}
	if c.closing() {
		err = errors.Join(transport.ErrClosed, err)
	}
	if !begun || unsent(err) {
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.ch.addr, err)
	}
	if reset := (streamError{}); errors.As(err, &reset) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return resetStatus(reset.Code)
	}
	return fmt.Errorf("transport/grpc: call to %s: %w", c.ch.addr, err)
}

// resetStatus gives the error of a stream that the server has reset, as gRPC reads it.
func resetStatus(code uint32) error {
	e := status.New(status.Internal, "the server reset the stream (HTTP/2 error %d)", code)
	switch code {
	case h2Refused:
		e = status.Refuse(status.Unavailable, "the server refused the stream")
	case h2Cancel:
		e.Code = status.Canceled
	case h2Calm:
		e.Code = status.ResourceExhausted
	}
	e.Remote = true
	return e
}
