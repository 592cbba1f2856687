package http_test

import (
	"context"
	"sync"
	"testing"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/http"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/transport"
	thttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// On the port of a service, beside its calls: in batches, and by POST.
func TestSuiteOnTransport(t *testing.T) {
	for name, calls := range map[string]bool{"batches": true, "posts": false} {
		t.Run(name, func(t *testing.T) {
			brokertest.Run(t, brokertest.Harness{
				New: func(t *testing.T) func() broker.Broker {
					reg := newRegistry(t)
					return func() broker.Broker { return newAttached(t, reg, calls) }
				},
				Can: brokertest.Capabilities{Report: true, Busy: true, Reroute: true, Status: true, Parallel: calls, Several: true},
			})
		})
	}
}

// newAttached gives a broker on a port of the transport, with calls or without.
func newAttached(t testing.TB, reg registry.Registry, calls bool) *http.Broker {
	t.Helper()
	p := newService(t)
	b, err := http.New(reg, http.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // before its port
	var mux http.Mux = p
	if !calls {
		mux = struct{ http.Mux }{p}
	}
	if err := b.Attach(mux); err != nil {
		t.Fatal(err)
	}
	p.serve()
	return b
}

// service is a listener of the transport as a server of calls has it, and a CallMux.
type service struct {
	*thttp.Listener
	route transport.Router

	mu    sync.Mutex
	conns map[transport.Conn]struct{}
	work  sync.WaitGroup
}

func newService(t testing.TB) *service {
	t.Helper()
	tr, err := thttp.New(thttp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &service{Listener: l.(*thttp.Listener), conns: map[transport.Conn]struct{}{}}
	t.Cleanup(p.kill)
	return p
}

func (p *service) HandleCalls(route transport.Router) { p.route = route }

// serve answers the calls of the connections.
func (p *service) serve() {
	p.work.Go(func() {
		for {
			c, err := p.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns[c] = struct{}{}
			p.mu.Unlock()
			p.work.Go(func() {
				defer func() { _ = c.Close() }()
				if u, ok := c.(transport.UnaryServer); ok {
					_ = u.ServeCalls(context.Background(), p.route)
					return
				}
				p.converse(c)
			})
		}
	})
}

func (p *service) converse(c transport.Conn) {
	var calls sync.WaitGroup
	defer calls.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		req := new(transport.Message)
		if err := c.Recv(ctx, req); err != nil {
			return
		}
		if req.Kind != transport.Call {
			continue
		}
		calls.Go(func() {
			rsp := transport.Message{}
			p.route(req.Header).Serve(ctx, req, &rsp)
			_ = c.Send(ctx, &transport.Message{Kind: transport.Reply, ID: req.ID, Header: rsp.Header, Body: rsp.Body})
		})
	}
}

// kill ends the service as the end of its process would.
func (p *service) kill() {
	_ = p.Close()
	p.mu.Lock()
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
}
