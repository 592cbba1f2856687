package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/transport"
)

// plainConn speaks to a peer in plain HTTP, in go-micro's dialect, which this project's listeners know too. It keeps
// connections open between calls; one carries a call at a time, since go-micro from v4 on loses the second of two that are
// under way. A stream, of which it has one at a time, has a connection of its own: see plainStream.
type plainConn struct {
	t        *Transport
	addr     string
	base     string
	foreign  bool         // the peer is known to be go-micro's
	numbers  atomic.Int32 // what of go-micro's the peer is by its answers: unknownPeer and the next
	lifetime time.Duration
	ctx      context.Context // ends with Close, or with the stream's failure
	cancel   context.CancelCauseFunc
	ids      atomic.Uint64
	incoming chan *arrival // what has come on the stream

	mu      sync.Mutex
	http    *http.Transport // of new calls
	begun   time.Time       // when http was first used
	closed  bool
	stream  *plainStream // the last
	running int          // calls under way
	calls   sync.WaitGroup
}

// plainLifetime is for how long calls go over a connection to go-micro, whose servers keep some memory for each call until its connection
// ends. Its own clients have the same bound.
const plainLifetime = 60 * time.Second

var (
	_ transport.Conn   = (*plainConn)(nil)
	_ transport.Caller = (*plainConn)(nil)
)

func newPlainConn(t *Transport, addr string) *plainConn {
	c := &plainConn{t: t, addr: addr, base: "http://" + addr + "/", incoming: make(chan *arrival), lifetime: plainLifetime, begun: time.Now()}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.http = &http.Transport{
		DialContext:            t.dialTCP,
		TLSHandshakeTimeout:    t.o.HeaderTimeout,
		MaxIdleConnsPerHost:    100,
		IdleConnTimeout:        t.o.IdleTimeout,
		MaxResponseHeaderBytes: int64(t.o.MaxHeader),
		DisableCompression:     true, // its limit is on what is sent
		Protocols:              new(http.Protocols),
	}
	c.http.Protocols.SetHTTP1(true)
	if t.o.TLSConfig != nil {
		c.base = "https://" + addr + "/"
		host, _, _ := net.SplitHostPort(addr) // Dial has looked at it
		c.http.TLSClientConfig = t.tlsClient(host)
	}
	return c
}

// Call posts req and reads the answer into rsp.
func (c *plainConn) Call(ctx context.Context, req, rsp *transport.Message) error {
	if err := transport.Check(req, c.t.o.MaxMessage); err != nil {
		return err
	}
	if err := c.speaks(req); err != nil {
		return err
	}
	by, ok := c.enter()
	if !ok {
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.addr, transport.ErrClosed)
	}
	defer c.leave()
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.Timeout)
		defer cancel()
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(c.ctx, func() { stop(transport.ErrClosed) })()
	stale, err := c.exchange(ctx, by, req, rsp)
	if stale {
		by.CloseIdleConnections() // which are likely to have ended with it
		_, err = c.exchange(ctx, by, req, rsp)
	}
	return err
}

// exchange makes a call over a connection, and reports whether that had ended while it waited for one.
func (c *plainConn) exchange(ctx context.Context, by *http.Transport, req, rsp *transport.Message) (stale bool, err error) {
	var sent, gone atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { // the request is written from here on
			sent.Store(true)
			gone.Store(got.Reused && ended(got.Conn)) // whoever has closed it reads nothing of the call
		},
	})
	r, err := c.request(traced, req)
	if err != nil {
		return false, fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.addr, err)
	}
	answer, err := by.RoundTrip(r)
	if err == nil {
		defer answer.Body.Close()
		err = c.read(answer, rsp)
	}
	switch {
	case err == nil:
		return false, nil
	case context.Cause(ctx) != nil:
		err = context.Cause(ctx)
	case gone.Load():
		return true, fmt.Errorf("%w: to %s: it had closed the connection: %w", transport.ErrNotSent, c.addr, err)
	}
	if !sent.Load() {
		return false, fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.addr, err)
	}
	return false, fmt.Errorf("transport/http: call to %s: %w", c.addr, err)
}

// enter begins a call, or the opening of a stream, and gives what it goes by; false after Close.
func (c *plainConn) enter() (*http.Transport, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false
	}
	c.running++
	c.calls.Add(1)
	if (c.foreign || c.numbers.Load() != unknownPeer) && time.Since(c.begun) > c.lifetime {
		former := c.http
		c.http, c.begun = former.Clone(), time.Now()
		former.CloseIdleConnections() // and those under way when they are idle
	}
	return c.http, true
}

func (c *plainConn) leave() {
	c.mu.Lock()
	c.running--
	c.mu.Unlock()
	c.calls.Done()
}

// Usable reports whether the connection takes calls: until Close. A peer that went away is dialled by the next call.
func (c *plainConn) Usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed
}

// CloseIdle closes the connections unless a call is under way.
func (c *plainConn) CloseIdle() bool {
	c.mu.Lock()
	idle := c.running == 0
	c.closed = c.closed || idle
	c.mu.Unlock()
	if idle {
		_ = c.Close() // gives no error
	}
	return idle
}

// request makes the HTTP request of a call.
func (c *plainConn) request(ctx context.Context, m *transport.Message) (*http.Request, error) {
	// net/http repeats a POST by itself only where it has written nothing of it.
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base, bytes.NewReader(m.Body))
	if err != nil {
		return nil, err
	}
	timeout := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), 1)
	}
	c.writeHeader(r.Header, m, timeout)
	if c.numbers.Load() == unnumberedPeer {
		r.Header.Set(headerStream, strconv.FormatUint(c.ids.Add(1), 10))
	}
	return r, nil
}

// writeHeader puts the headers of a call, or of a stream's messages, into h. A timeout of 0 is none.
func (c *plainConn) writeHeader(h http.Header, m *transport.Message, timeout time.Duration) {
	writeHeader(h, m.Header)
	endpoint := m.Header.Get(transport.HeaderEndpoint)
	id := ""
	if m.Header.Get(transport.HeaderTopic) != "" {
		id = m.Header.Get(transport.HeaderID) // a message's own, which subscribers may know it by
	}
	if id == "" { // one given by a caller may be another call's, too, and go-micro loses calls whose numbers are the same
		id = strconv.FormatUint(c.ids.Add(1)-1, 10)
	}
	contentType := mediaTypeOf(m.Header.Get(transport.HeaderContentType))
	for _, p := range [...][2]string{
		{"Accept", contentType},
		{"Content-Type", contentType},
		{"Micro-Service", m.Header.Get(transport.HeaderService)},
		{"Micro-Endpoint", endpoint},
		{"Micro-Method", endpoint},
		{"Micro-Topic", m.Header.Get(transport.HeaderTopic)},
		{headerID, id},
	} {
		if p[1] != "" {
			h.Set(p[0], p[1])
		}
	}
	if timeout > 0 {
		h.Set(headerNanos, strconv.FormatInt(int64(timeout), 10))
	}
}

// read reads an answer, of go-micro's dialect or with an HTTP status.
func (c *plainConn) read(answer *http.Response, rsp *transport.Message) error {
	c.learn(answer) // before the connection may be used again, which is at the end of the body
	limit := int64(c.t.o.MaxMessage)
	if answer.ContentLength > limit {
		return fmt.Errorf("%w: reply of %d bytes, limit %d", transport.ErrTooLarge, answer.ContentLength, limit)
	}
	rsp.Reset()
	rsp.Kind = transport.Reply
	body := bytes.NewBuffer(rsp.Body)
	if _, err := body.ReadFrom(io.LimitReader(answer.Body, limit+1)); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("the reply is cut off: %w", err)
		}
		return err
	}
	if rsp.Body = body.Bytes(); int64(len(rsp.Body)) > limit {
		return fmt.Errorf("%w: reply of over %d bytes", transport.ErrTooLarge, limit)
	}
	failed, err := told(answer, rsp.Body)
	if err != nil {
		return err
	}
	return c.readHeader(answer, rsp, failed)
}

func (c *plainConn) readHeader(answer *http.Response, rsp *transport.Message, failed string) error {
	if failed != "" {
		rsp.Body = rsp.Body[:0]
		if err := put(rsp, transport.HeaderError, clip(failed)); err != nil {
			return err
		}
	}
	if ct := mediaTypeOf(answer.Header.Get("Content-Type")); ct != "" {
		if err := put(rsp, transport.HeaderContentType, ct); err != nil {
			return err
		}
	}
	if echoes(answer) {
		return nil
	}
	for name, values := range answer.Header {
		if _, own := fieldOf(name); own {
			continue
		}
		if err := put(rsp, name, strings.Join(values, ", ")); err != nil {
			return err
		}
	}
	return nil
}

func put(m *transport.Message, key, value string) error {
	md, err := m.Header.Set(key, value)
	if err != nil {
		return fmt.Errorf("%w: header of the reply: %w", transport.ErrProtocol, err)
	}
	m.Header = md
	return nil
}

// RemoteAddr is the address that was dialled.
func (c *plainConn) RemoteAddr() string { return c.addr }

// Close ends the calls under way and closes the connections.
func (c *plainConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel(transport.ErrClosed)
	c.calls.Wait()
	c.http.CloseIdleConnections()
	return nil
}
