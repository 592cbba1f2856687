package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	registrymemory "github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/transport"
)

// wire is a transport whose connections are Callers, answered by a function.
type wire struct {
	answer func(ctx context.Context, req, rsp *transport.Message) error
	reads  bool        // on in a request, after its Call has returned, where it is lent
	refuse atomic.Bool // dialling
	dials  atomic.Int32
	open   atomic.Int32
}

func (w *wire) Dial(_ context.Context, addr string) (transport.Conn, error) {
	w.dials.Add(1)
	if w.refuse.Load() {
		return nil, fmt.Errorf("%w: refused", transport.ErrNotSent)
	}
	w.open.Add(1)
	return &wireConn{wire: w, addr: addr, closed: make(chan struct{})}, nil
}

func (w *wire) Listen(context.Context, string) (transport.Listener, error) {
	return nil, errors.ErrUnsupported
}

type wireConn struct {
	*wire
	addr    string
	once    sync.Once
	ended   atomic.Bool
	closed  chan struct{}
	mu      sync.Mutex
	running int
}

func (c *wireConn) Call(ctx context.Context, req, rsp *transport.Message) error {
	c.mu.Lock()
	ended := c.ended.Load()
	if !ended {
		c.running++
	}
	c.mu.Unlock()
	if ended {
		return fmt.Errorf("%w: %w", transport.ErrNotSent, transport.ErrClosed)
	}
	err := c.answer(ctx, req, rsp)
	req.Lent = req.Lent && c.reads
	c.mu.Lock()
	c.running--
	c.mu.Unlock()
	return err
}

func (c *wireConn) Usable() bool { return !c.ended.Load() }

func (c *wireConn) CloseIdle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running > 0 {
		return false
	}
	c.end()
	return true
}

func (c *wireConn) end() {
	c.once.Do(func() {
		c.ended.Store(true)
		c.open.Add(-1)
		close(c.closed)
	})
}

func (c *wireConn) Close() error                                   { c.end(); return nil }
func (c *wireConn) RemoteAddr() string                             { return c.addr }
func (c *wireConn) Send(context.Context, *transport.Message) error { return transport.ErrClosed }
func (c *wireConn) Recv(context.Context, *transport.Message) error { return io.EOF }

// text is a message whose storage is used again, and texts its codec, which allocates nothing.
type text struct{ data []byte }

type texts struct{}

func (texts) ContentType() string { return "text/plain" }

func (texts) Append(dst []byte, v any) ([]byte, error) {
	m, ok := v.(*text)
	if !ok {
		return dst, codec.Unsupported("texts: %T", v)
	}
	return append(dst, m.data...), nil
}

func (texts) Unmarshal(data []byte, v any) error {
	m := v.(*text)
	m.data = append(m.data[:0], data...)
	return nil
}

var plainText = metadata.Of(transport.HeaderContentType, "text/plain")

// echoed answers a call with its own body.
func echoed(_ context.Context, req, rsp *transport.Message) error {
	rsp.Header = append(rsp.Header[:0], plainText...)
	rsp.Body = append(rsp.Body[:0], req.Body...)
	return nil
}

// through is a client over a wire, with one node of "greeter" in a registry.
func through(tb testing.TB, w *wire, opts ...client.Option) *client.Client {
	tb.Helper()
	reg := registrymemory.New()
	if err := reg.Register(tb.Context(), registry.Node{ID: "greeter-1", Service: "greeter", Address: "wire:1"}, 0); err != nil {
		tb.Fatal(err)
	}
	c, err := client.New(append([]client.Option{client.WithTransport(w), client.WithRegistry(reg), client.WithCodecs(codec.Set{texts{}})}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
		_ = reg.Close()
		if n := w.open.Load(); n != 0 {
			tb.Errorf("%d connections are open after Close", n)
		}
	})
	return c
}

// passing is a middleware that does nothing.
func passing(next client.Invoker) client.Invoker {
	return func(ctx context.Context, req *client.Request) (*client.Response, error) { return next(ctx, req) }
}

func fourPairs(ctx context.Context) context.Context {
	return metadata.WithOutgoing(ctx, metadata.Of("trace-id", "4bf92f3577b34da6a3ce929d0e0e4736", "tenant", "acme", "zone", "eu-1", "user", "ada"))
}

// variants are what a call may pass through on its way.
var variants = []struct {
	name string
	opts []client.Option
	call []client.CallOption
	ctx  func(context.Context) context.Context
}{
	{"address", nil, []client.CallOption{client.Address("wire:1")}, nil},
	{"selector", nil, nil, nil},
	{"metadata", nil, nil, fourPairs},
	{"full", []client.Option{client.WithMiddleware(passing)}, nil, fourPairs},
	{"8 connections", []client.Option{client.WithMiddleware(passing), client.WithConnections(8)}, nil, fourPairs},
}

// TestCallAllocatesNothing: neither the options, the selection, the metadata, the timeout nor the middleware of a call cost
// an allocation.
func TestCallAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("with the race detector a sync.Pool drops what it is given")
	}
	for _, v := range variants {
		c := through(t, &wire{answer: echoed}, v.opts...)
		ctx, in, out := t.Context(), &text{[]byte("hello")}, &text{}
		if v.ctx != nil {
			ctx = v.ctx(ctx)
		}
		n := testing.AllocsPerRun(1000, func() {
			if err := c.Call(ctx, "greeter", "Say.Hello", in, out, v.call...); err != nil || string(out.data) != "hello" {
				t.Fatalf("%s: %q %v", v.name, out.data, err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations for each call", v.name, n)
		}
	}
}

// BenchmarkCallFramework is what a call costs in this package, selection included, over a connection that costs nothing.
func BenchmarkCallFramework(b *testing.B) {
	for _, v := range variants {
		b.Run(v.name, func(b *testing.B) {
			c := through(b, &wire{answer: echoed}, v.opts...)
			ctx, in, out := b.Context(), &text{make([]byte, 16)}, &text{}
			if v.ctx != nil {
				ctx = v.ctx(ctx)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := c.Call(ctx, "greeter", "Say.Hello", in, out, v.call...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
