package server_test

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/transport"
)

// directConn is a connection that is a transport.UnaryServer: the tests are its peer, and make its calls.
type directConn struct {
	started chan struct{} // closed when ServeCalls has begun
	closed  chan struct{}
	left    chan struct{} // closed by the server's own Close, after another's
	closes  atomic.Int32
	calls   sync.WaitGroup // under way
	err     error          // with which it ends

	ctx    context.Context
	router transport.Router
}

func newDirectConn() *directConn {
	return &directConn{started: make(chan struct{}), closed: make(chan struct{}), left: make(chan struct{}), err: io.EOF}
}

var _ transport.UnaryServer = (*directConn)(nil)

func (c *directConn) ServeCalls(ctx context.Context, route transport.Router) error {
	c.ctx, c.router = ctx, route
	close(c.started)
	select {
	case <-c.closed:
	case <-ctx.Done():
	}
	c.calls.Wait()
	return c.err
}

func (c *directConn) Send(context.Context, *transport.Message) error { return nil }
func (c *directConn) Recv(context.Context, *transport.Message) error { return transport.ErrClosed }
func (c *directConn) RemoteAddr() string                             { return "peer:1" }

func (c *directConn) Close() error {
	switch c.closes.Add(1) {
	case 1:
		close(c.closed)
	case 2:
		close(c.left)
	}
	return nil
}

// directListener yields one connection.
type directListener struct {
	conn   chan transport.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *directListener) Accept() (transport.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, transport.ErrClosed
	}
}
func (l *directListener) Addr() string { return "here:1" }
func (l *directListener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

// direct serves s on a connection of the test's own, and gives it.
func direct(t testing.TB, s *server.Server) *directConn {
	t.Helper()
	c := newDirectConn()
	stop := serveDirect(s, c)
	t.Cleanup(func() {
		_ = c.Close()
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return c
}

// serveDirect serves s on c until stop is called, which gives what Serve returned.
func serveDirect(s *server.Server, c *directConn) (stop func() error) {
	l := &directListener{conn: make(chan transport.Conn, 1), closed: make(chan struct{})}
	l.conn <- c
	stop = serve(s, l)
	<-c.started
	return stop
}

// with gives a call of an endpoint, with further headers of the framework.
func (c *directConn) with(endpoint, body string, header ...string) *directCall {
	m := call(endpoint, body, header...)
	d := &directCall{conn: c, route: c.router(m.Header), req: *m}
	return d
}

// directCall makes calls with one header, as an engine does: with storage that is used again.
type directCall struct {
	conn     *directConn
	route    *transport.Route
	contexts callctx.Slab
	md       metadata.MD
	values   *came
	req, rsp transport.Message
}

// came is what came with a call.
type came struct{ md metadata.MD }

func (c *came) Value(key any) any {
	if metadata.IsIncoming(key) {
		return &c.md
	}
	return nil
}

func (c *directConn) to(endpoint, contentType string, md metadata.MD) *directCall {
	d := &directCall{conn: c, md: md}
	d.req.Header = metadata.Of(transport.HeaderService, "greeter", transport.HeaderEndpoint, endpoint, transport.HeaderContentType, contentType)
	d.route = c.router(d.req.Header)
	return d
}

func (d *directCall) call(timeout time.Duration) {
	d.conn.calls.Add(1)
	defer d.conn.calls.Done()
	d.req.Timeout = timeout
	if d.values == nil {
		d.values = &came{d.md}
	}
	ctx := d.contexts.New(d.conn.ctx, callctx.Now()+int64(d.route.Timeout(timeout)), d.values)
	d.route.Serve(ctx, &d.req, &d.rsp)
	ctx.End(context.Canceled)
}
