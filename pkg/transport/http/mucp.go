package http

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/mucp"
)

// The limits of a connection on which go-micro's messages are exchanged.
const (
	maxExchanges = 100                    // calls under way on it, and as many streams
	lastWords    = 250 * time.Millisecond // for a peer to read the last answer, once the connection is to be closed
)

// mucpConn is a connection of a go-micro client. net/http takes one request after the other and answers each before the next, and
// go-micro's clients send a stream's messages when they like, and several calls before the first answer. So the connection is taken
// from net/http at the first request in go-micro's dialect, and is read here from then on. What is no message of a stream goes through
// the listener's handler, on a goroutine of its own, as it does with net/http.
type mucpConn struct {
	l      *Listener
	nc     net.Conn
	remote string
	tls    *tls.ConnectionState // nil without TLS
	in     *mucp.Reader
	out    *mucp.Writer
	ctx    context.Context // of the calls; ends when the peer has gone
	cancel context.CancelFunc
	gone   chan struct{} // closed when nothing more is read
	done   chan struct{} // closed when the connection is closed, or another's

	mu      sync.Mutex
	streams map[string]*mucpStream // that the peer may send messages of, by key
	calls   int                    // under way
	open    int                    // streams whose End was not sent
	leaving bool                   // nothing more is read once nothing is under way
	quiet   chan struct{}          // a hint: there is less under way
}

// takeOver takes the connection of r from net/http, whose body was read, and serves r and what follows on it. It reports whether it
// could: not where this request is the connection's last.
func (l *Listener) takeOver(w http.ResponseWriter, r *http.Request, body []byte) bool {
	if _, already := w.(*mucpAnswer); already || r.ProtoMajor != 1 || r.ProtoMinor == 0 || r.Close && streamID(r) == "" {
		return false
	}
	nc, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered()) // it is there
	_ = nc.SetDeadline(time.Time{})                              // fails on a connection that has gone, as what follows will
	o := &l.t.o
	c := &mucpConn{
		l: l, nc: nc, remote: r.RemoteAddr, tls: r.TLS, out: mucp.NewWriter(nc, o.WriteTimeout), gone: make(chan struct{}), done: make(chan struct{}),
		streams: map[string]*mucpStream{}, quiet: make(chan struct{}, 1),
		in: mucp.NewReader(nc, early, mucp.Limits{
			Head: o.MaxHeader, Body: o.MaxMessage, HeadTime: o.HeaderTimeout, BodyIdle: o.BodyIdle, BodyTime: o.BodyTimeout,
		}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	l.mu.Lock()
	l.mucp[c] = struct{}{}
	l.mu.Unlock()
	select {
	case <-l.done: // Close and Shutdown may have gone through the connections already
		c.depart()
	default:
	}
	go c.run(r, bytes.Clone(body))
	return true
}

// run serves the connection until its end.
func (c *mucpConn) run(r *http.Request, body []byte) {
	defer func() {
		c.cancel()
		c.l.mu.Lock()
		delete(c.l.mucp, c)
		c.l.mu.Unlock()
		close(c.done)
	}()
	err := c.serve(r, body)
	if err == nil && len(r.TransferEncoding) > 0 && !c.clear(r) {
		err = errLast
	}
	for err == nil {
		err = c.next()
	}
	c.end(err)
	if errors.Is(err, errHandBack) {
		c.l.handBack(c.nc, c.in.Unread())
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), c.l.t.o.WriteTimeout)
	defer stop()
	c.out.Drain(ctx)
	c.out.Close()
	c.linger()
	c.nc.Close()
}

// clear reports whether the end of r's body, which came in chunks, is beyond doubt. Somebody on the way who went by a length in the same
// head, which net/http has dropped, has seen another end, and takes what follows for a part of r (RFC 9112 section 11.2).
func (c *mucpConn) clear(r *http.Request) bool {
	if r.TLS != nil {
		return true // who could have seen the head differently cannot have seen it
	}
	raw, ok := c.nc.(*limitConn)
	if !ok || raw.chunked == nil {
		return false
	}
	opening, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw.chunked)))
	return err == nil && maps.EqualFunc(opening.Header, r.Header, slices.Equal[[]string])
}

// Why the reading of a connection ends.
var (
	errLast     = errors.New("the peer has said that no more comes")
	errHandBack = errors.New("what comes is no message of go-micro's")
)

// next reads a message and has it served. An error says that it was the last, or why there is none.
func (c *mucpConn) next() error {
	r, err := c.in.Request()
	if err != nil {
		return c.refuse(err)
	}
	r.RemoteAddr, r.TLS = c.remote, c.tls
	stream := c.streamOf(r)
	if stream == nil && !isGoMicro(r) && r.TLS == nil {
		return errHandBack
	}
	if r.Header.Get("Expect") == "100-continue" && r.ContentLength != 0 {
		if err := c.write(false, func(dst []byte) []byte { return append(dst, "HTTP/1.1 100 Continue\r\n\r\n"...) }); err != nil {
			return err
		}
	}
	var spare []byte
	if stream != nil {
		spare = stream.spare()
	}
	body, err := c.in.Body(spare)
	switch {
	case errors.Is(err, mucp.ErrBodyTooLarge):
		return c.tooLarge(r, stream, err)
	case err != nil:
		return c.refuse(err)
	case stream != nil:
		stream.take(r, body)
	case r.Header.Get(headerError) != "" && streamID(r) != "":
		// The end of a stream that has ended already.
	default:
		if err := c.serve(r, body); err != nil {
			return err
		}
	}
	return last(r)
}

// last gives errLast where the client has said that nothing follows r.
func last(r *http.Request) error {
	if r.Close {
		return errLast
	}
	return nil
}

// serve has a request answered by the listener's handler: on a goroutine of its own, where it is no stream's first, whose further messages
// come behind it.
func (c *mucpConn) serve(r *http.Request, body []byte) error {
	if err := c.begin(); err != nil {
		return err
	}
	a := &mucpAnswer{c: c, r: r.WithContext(c.ctx), header: make(http.Header), stream: c.opens(r)}
	a.r.Body, a.r.ContentLength, a.r.TransferEncoding = http.NoBody, int64(len(body)), nil
	if len(body) > 0 {
		a.r.Body = io.NopCloser(bytes.NewReader(body))
	}
	if a.stream != "" {
		a.run()
		return nil
	}
	go a.run()
	return nil
}

// opens gives the key of the stream that r opens; empty for a call. What the endpoint is counts, and for one that nobody knows whether
// the client wants a stream.
func (c *mucpConn) opens(r *http.Request) string {
	stream := streamID(r) != ""
	if c.l.names != nil {
		if streams, known := c.l.names.Lookup(first(r.Header, "Micro-Endpoint", "X-Micro-Endpoint", "Micro-Method", "X-Micro-Method")); known {
			stream = streams
		}
	}
	if !stream {
		return ""
	}
	return streamKey(r)
}

// streamID gives the number by which a client knows a stream; empty for a call.
func streamID(r *http.Request) string { return first(r.Header, headerStream, headerOldStream) }

// streamKey gives what ties together the messages of a stream on a connection: its number, or that of the call for a client which does
// not say that it streams.
func streamKey(r *http.Request) string {
	if id := streamID(r); id != "" {
		return "stream " + id
	}
	return "call " + first(r.Header, headerID, headerOldID)
}

// streamOf gives the stream that r is a message of; nil where there is none.
func (c *mucpConn) streamOf(r *http.Request) *mucpStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) == 0 {
		return nil
	}
	return c.streams[streamKey(r)]
}

// begin counts a request in, and waits while there are too many.
func (c *mucpConn) begin() error {
	c.mu.Lock()
	for c.calls >= maxExchanges {
		c.mu.Unlock()
		select {
		case <-c.quiet:
		case <-c.ctx.Done():
			return transport.ErrClosed
		}
		c.mu.Lock()
	}
	c.calls++
	c.in.Until(time.Time{})
	c.mu.Unlock()
	return nil
}

// leave counts a request, or a stream, out by change.
func (c *mucpConn) leave(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	select {
	case c.quiet <- struct{}{}:
	default:
	}
	c.rest()
}

// rest bounds the wait for a message where nothing is under way. The caller holds the lock.
func (c *mucpConn) rest() {
	switch {
	case c.calls > 0 || c.open > 0:
	case c.leaving:
		c.in.Until(time.Unix(1, 0))
	default:
		c.in.Until(time.Now().Add(c.l.t.o.IdleTimeout))
	}
}

// depart has the connection closed as soon as nothing is under way.
func (c *mucpConn) depart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	c.rest()
}

// drain closes the connection when nothing is under way, or gives up when ctx ends.
func (c *mucpConn) drain(ctx context.Context) {
	c.depart()
	select {
	case <-c.done:
	case <-ctx.Done():
	}
}

// stop ends the contexts of the calls, and closes the connection; where a stream is under way, once that has ended.
func (c *mucpConn) stop() {
	c.depart()
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == 0 {
		c.nc.Close()
	}
}

// end waits for what is under way, once no message more is read because of err.
func (c *mucpConn) end(err error) {
	if errors.Is(err, errLast) {
		c.depart()
		err = c.in.Wait() // sees the peer leave
	}
	switch {
	case err == nil, errors.Is(err, errHandBack), errors.Is(err, mucp.ErrMalformed), errors.Is(err, mucp.ErrHeadTooLarge),
		errors.Is(err, mucp.ErrBodyTooLarge): // what came before is answered
	default:
		c.cancel()
	}
	close(c.gone)
	c.mu.Lock()
	for c.calls > 0 || c.open > 0 {
		c.mu.Unlock()
		<-c.quiet
		c.mu.Lock()
	}
	c.mu.Unlock()
}

// linger lets the peer read the last answer, which it would lose if the connection were closed while something of its own has not been
// read.
func (c *mucpConn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lastWords)) // fails on a connection that has gone, as the read does
	_, _ = io.Copy(io.Discard, c.nc)
}

// write writes a message.
func (c *mucpConn) write(wait bool, message func(dst []byte) []byte) error {
	return c.out.Write(context.Background(), wait, message)
}

// refuse answers what is no message, where that has to be answered, and gives err.
func (c *mucpConn) refuse(err error) error {
	code := 0
	switch {
	case errors.Is(err, mucp.ErrMalformed):
		code = http.StatusBadRequest
	case errors.Is(err, mucp.ErrHeadTooLarge):
		code = http.StatusRequestHeaderFieldsTooLarge
	}
	if code != 0 {
		lines := []byte("Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n")
		_ = c.write(true, func(dst []byte) []byte { // a peer that has gone needs no answer
			return mucp.AppendResponse(dst, code, lines, []byte(http.StatusText(code)+"\n"))
		})
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || code != 0 {
		c.l.t.o.Logger.Debug("transport/http: a connection of go-micro's messages is closed", "remote", c.remote, "error", err)
	}
	return err
}

// tooLarge answers a message whose body is over the limit, and goes on behind it where it can be skipped.
func (c *mucpConn) tooLarge(r *http.Request, stream *mucpStream, err error) error {
	if stream != nil {
		stream.tooLarge(err)
	} else {
		if err := c.begin(); err != nil {
			return err
		}
		a := &mucpAnswer{c: c, r: r, header: make(http.Header)}
		refuse(a, r, bodyTooLarge(int64(c.l.t.o.MaxMessage)))
		a.finish()
	}
	if !c.in.Skip() {
		return err
	}
	return last(r)
}

// mucpAnswer is the http.ResponseWriter of a request on a mucpConn. It sends the answer when it is whole.
type mucpAnswer struct {
	c      *mucpConn
	r      *http.Request
	stream string // the key of the stream that the request opens; empty for a call
	header http.Header
	status int
	body   []byte
	sent   bool // or there is none
}

// run has the handler answer. One that panics costs its connection, as with net/http.
func (a *mucpAnswer) run() {
	defer a.finish()
	defer func() {
		if p := recover(); p != nil {
			a.sent = true
			a.c.nc.Close()
			a.c.l.t.o.Logger.Error("transport/http: a handler panicked", "remote", a.r.RemoteAddr, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	a.c.l.server.Handler.ServeHTTP(a, a.r)
}

// finish sends the answer, unless it was, and counts the request out.
func (a *mucpAnswer) finish() {
	a.send()
	a.c.leave(func() { a.c.calls-- })
}

func (a *mucpAnswer) send() {
	if a.sent {
		return
	}
	a.sent = true
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if a.r.Close {
		a.header.Set("Connection", "close")
	}
	a.header.Del("Content-Length")
	if id := streamID(a.r); id != "" {
		a.header.Set(headerStream, id)
	}
	lines := mucp.AppendHeader(make([]byte, 0, 512), a.header)
	_ = a.c.write(true, func(dst []byte) []byte { // a peer that has gone needs no answer
		return mucp.AppendResponse(dst, a.status, lines, a.body)
	})
}

// Header implements http.ResponseWriter.
func (a *mucpAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *mucpAnswer) WriteHeader(code int) {
	if a.status == 0 {
		a.status = code
	}
}

// Write implements http.ResponseWriter.
func (a *mucpAnswer) Write(p []byte) (int, error) {
	a.body = append(a.body, p...)
	return len(p), nil
}

// Flush implements http.Flusher: an answer of a known length is sent when it is whole.
func (a *mucpAnswer) Flush() {
	if a.header.Get("Content-Length") != "" {
		a.send()
	}
}

// SetReadDeadline does nothing: the body has come.
func (a *mucpAnswer) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: each write has a time of its own.
func (a *mucpAnswer) SetWriteDeadline(time.Time) error { return nil }

// openStream begins the stream that a's request opens. m is its first message, whose body is not looked at: go-micro's servers do not,
// and its clients send their request as the next message.
func (a *mucpAnswer) openStream(m *transport.Message) {
	c := a.c
	c.mu.Lock()
	if len(c.streams) >= maxExchanges {
		c.mu.Unlock()
		refuse(a, a.r, status.Refuse(status.ResourceExhausted, "overloaded: %d streams are open on the connection", maxExchanges))
		return
	}
	s := newMucpStream(c, a.stream, a.r, m)
	c.streams[a.stream] = s
	c.open++
	c.mu.Unlock()
	a.sent = true
	select {
	case c.l.accepted <- s:
	case <-c.l.done:
		s.TurnAway()
	}
}
