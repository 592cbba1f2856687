package http

import (
	"bytes"
	"context"
	"encoding/json"
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

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// plainConn speaks to a peer in plain HTTP, in go-micro's dialect, which this project's listeners know too. It keeps
// connections open between calls; one carries a call at a time.
type plainConn struct {
	t      *Transport
	addr   string
	base   string
	http   *http.Transport
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	ids    atomic.Uint64

	mu      sync.Mutex
	closed  bool
	running int // calls under way
	calls   sync.WaitGroup
}

var (
	_ transport.Conn   = (*plainConn)(nil)
	_ transport.Caller = (*plainConn)(nil)
)

func newPlainConn(t *Transport, addr string) *plainConn {
	c := &plainConn{t: t, addr: addr, base: "http://" + addr + "/"}
	c.ctx, c.cancel = context.WithCancel(context.Background())
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
	if !c.enter() {
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
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }, // the request is written from here on
	})
	r, err := c.request(ctx, req)
	if err != nil {
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.addr, err)
	}
	answer, err := c.http.RoundTrip(r)
	if err == nil {
		defer answer.Body.Close()
		err = c.read(answer, rsp)
	}
	switch {
	case err == nil:
		return nil
	case context.Cause(ctx) != nil:
		err = context.Cause(ctx)
	}
	if !sent.Load() {
		return fmt.Errorf("%w: to %s: %w", transport.ErrNotSent, c.addr, err)
	}
	return fmt.Errorf("transport/http: call to %s: %w", c.addr, err)
}

func (c *plainConn) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.running++
		c.calls.Add(1)
	}
	return !c.closed
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
	writeHeader(r.Header, m.Header)
	endpoint := m.Header.Get(transport.HeaderEndpoint)
	id := m.Header.Get(transport.HeaderID)
	if id == "" {
		id = strconv.FormatUint(c.ids.Add(1)-1, 10)
	}
	for _, h := range [...][2]string{
		{"Content-Type", m.Header.Get(transport.HeaderContentType)},
		{"Micro-Service", m.Header.Get(transport.HeaderService)},
		{"Micro-Endpoint", endpoint},
		{"Micro-Method", endpoint},
		{"Micro-Topic", m.Header.Get(transport.HeaderTopic)},
		{headerID, id},
	} {
		if h[1] != "" {
			r.Header.Set(h[0], h[1])
		}
	}
	timeout := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), 1)
	}
	if timeout > 0 {
		r.Header.Set(headerNanos, strconv.FormatInt(int64(timeout), 10))
	}
	return r, nil
}

// read reads an answer, of go-micro's dialect or with an HTTP status.
func (c *plainConn) read(answer *http.Response, rsp *transport.Message) error {
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
	failed := first(answer.Header, headerError, "X-Micro-Error")
	if failed == "" && answer.StatusCode != http.StatusOK {
		var object struct{ Code int }
		if json.Unmarshal(rsp.Body, &object) != nil || object.Code != answer.StatusCode {
			return stranger(answer)
		}
		failed = string(bytes.TrimSpace(rsp.Body))
	}
	return c.readHeader(answer, rsp, failed)
}

// stranger is the error of an answer that no service gives. One that says that the request itself was of no use says also
// that no service has run the call: another program has the port by now. Any other may be of a proxy before a service.
func stranger(answer *http.Response) error {
	err := fmt.Errorf("%w: the peer is no service: it answered %.60q", transport.ErrProtocol, answer.Status)
	switch answer.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect,
		http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusNotImplemented:
		refusal := status.Refuse(status.Misdirected, "another program has the port")
		refusal.Remote = true
		return fmt.Errorf("%w: %w", err, refusal)
	}
	return err
}

func (c *plainConn) readHeader(answer *http.Response, rsp *transport.Message, failed string) error {
	if failed != "" {
		rsp.Body = rsp.Body[:0]
		if err := put(rsp, transport.HeaderError, clip(failed)); err != nil {
			return err
		}
	}
	if ct := answer.Header.Get("Content-Type"); ct != "" {
		kind, _, _ := strings.Cut(ct, ";")
		if err := put(rsp, transport.HeaderContentType, strings.TrimSpace(kind)); err != nil {
			return err
		}
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

// clip makes the text of an error fit for a metadata value. An object that is too long keeps its code.
func clip(text string) string {
	text = oneLine(text)
	if len(text) <= metadata.MaxValue {
		return text
	}
	e := status.Parse(text)
	e = &status.Error{ID: e.ID, Code: e.Code, Detail: e.Detail[:min(len(e.Detail), metadata.MaxValue/8)], Refused: e.Refused}
	short, err := json.Marshal(e)
	if err != nil || len(short) > metadata.MaxValue {
		return text[:metadata.MaxValue/2]
	}
	return string(short)
}

// Send fails: plain HTTP has calls alone.
func (c *plainConn) Send(context.Context, *transport.Message) error {
	return fmt.Errorf("%w: %s takes no upgrade, so there are calls to it and no streams: %w", transport.ErrNotSent, c.addr, errors.ErrUnsupported)
}

// Recv fails: plain HTTP has calls alone.
func (c *plainConn) Recv(context.Context, *transport.Message) error {
	return fmt.Errorf("transport/http: %s takes no upgrade, so there are calls to it and no streams: %w", c.addr, errors.ErrUnsupported)
}

// RemoteAddr is the address that was dialled.
func (c *plainConn) RemoteAddr() string { return c.addr }

// Close ends the calls under way and closes the connections.
func (c *plainConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.calls.Wait()
	c.http.CloseIdleConnections()
	return nil
}
