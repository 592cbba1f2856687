package http_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/http"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	for name, attach := range map[string]bool{"own listener": false, "attached": true} {
		t.Run(name, func(t *testing.T) {
			brokertest.Run(t, brokertest.Harness{
				New: func(t *testing.T) func() broker.Broker {
					reg := newRegistry(t)
					return func() broker.Broker {
						if !attach {
							return newBroker(t, reg, http.Options{})
						}
						p := newPort(t) // it is closed after the broker
						b := newBroker(t, reg, http.Options{})
						if err := b.Attach(p); err != nil {
							t.Fatal(err)
						}
						return b
					}
				},
				Can: brokertest.Capabilities{Report: true, Busy: true, Reroute: true, Status: true, Parallel: !attach, Several: true},
			})
		})
	}
}

func newRegistry(t testing.TB) *memory.Registry {
	reg := memory.New()
	t.Cleanup(func() { _ = reg.Close() })
	return reg
}

func newBroker(t testing.TB, reg registry.Registry, o http.Options) *http.Broker {
	t.Helper()
	b, err := http.New(reg, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// port is an HTTP server that is there for something else, and a Mux.
type port struct {
	*httptest.Server
	mu      sync.Mutex
	match   func(*nethttp.Request) bool
	handler nethttp.Handler
}

func newPort(t *testing.T) *port {
	p := &port{}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Server.Close)
	return p
}

func (p *port) HandleHTTP(match func(*nethttp.Request) bool, h nethttp.Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.match, p.handler = match, h
}

func (p *port) Addr() string { return p.Listener.Addr().String() }

func (p *port) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	p.mu.Lock()
	match, h := p.match, p.handler
	p.mu.Unlock()
	if h == nil || !match(r) {
		w.WriteHeader(nethttp.StatusTeapot)
		return
	}
	h.ServeHTTP(w, r)
}

func subscribe(t *testing.T, b broker.Broker, topic string, h broker.Handler, opts ...broker.SubscribeOption) broker.Subscription {
	t.Helper()
	s, err := b.Subscribe(t.Context(), topic, h, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publish(t *testing.T, b broker.Broker, topic, body string) broker.Report {
	t.Helper()
	r, err := b.Publish(t.Context(), &broker.Message{Topic: topic, Header: metadata.Of("content-type", "text/plain"), Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func only(t *testing.T, r broker.Report) broker.Delivery {
	t.Helper()
	if len(r.Deliveries) != 1 {
		t.Fatalf("deliveries %+v, want one", r.Deliveries)
	}
	return r.Deliveries[0]
}

func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

// register puts a node into the registry as another program would.
func register(t *testing.T, reg registry.Registry, id, address, topic, version string) {
	t.Helper()
	err := reg.Register(t.Context(), registry.Node{
		ID: id, Service: registry.BrokerService, Version: version, Address: address,
		Metadata: map[string]string{"broker": "http", "secure": "false", "topic": topic},
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
}

// onlyNode gives the one node that stands under the broker's name.
func onlyNode(t *testing.T, reg registry.Registry) registry.Node {
	t.Helper()
	nodes, err := reg.Get(t.Context(), registry.BrokerService)
	if err != nil || len(nodes) != 1 {
		t.Fatalf("nodes %+v, %v, want one", nodes, err)
	}
	return nodes[0]
}

// deadAddress is one that refuses connections.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// rawServer answers each request with what answer writes, and counts the requests.
func rawServer(t *testing.T, answer func(net.Conn)) (address string, requests *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests = new(atomic.Int32)
	var wg sync.WaitGroup
	done := make(chan struct{})
	t.Cleanup(func() { close(done); _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				stop := context.AfterFunc(t.Context(), func() { _ = c.Close() })
				defer stop()
				defer func() { _ = c.Close() }()
				if err := readRequest(c); err != nil {
					return
				}
				requests.Add(1)
				answer(c)
			})
		}
	})
	return l.Addr().String(), requests
}

// faulty is a registry whose failures a test chooses.
type faulty struct {
	*memory.Registry
	mu       sync.Mutex
	watchErr error         // yielded by WatchChanges in place of changes
	silent   bool          // WatchChanges yields nothing
	again    chan struct{} // closed to end the watches
	refuse   error         // of Register
	watches  int
	times    []time.Time // of registrations, without those for go-micro v1
}

func newFaulty(t *testing.T) *faulty {
	return &faulty{Registry: newRegistry(t), again: make(chan struct{})}
}

func (f *faulty) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	f.mu.Lock()
	if n.Service == registry.BrokerService {
		f.times = append(f.times, time.Now())
	}
	err := f.refuse
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Registry.Register(ctx, n, ttl)
}

func (f *faulty) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// cut ends the watches that run, each with an error first.
func (f *faulty) cut(err error) {
	f.set(func() {
		f.watchErr = err
		close(f.again)
		f.again = make(chan struct{})
	})
}

func (f *faulty) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return func(yield func(registry.Change, error) bool) {
		f.mu.Lock()
		f.watches++
		err, silent, again := f.watchErr, f.silent, f.again
		f.mu.Unlock()
		if silent {
			<-ctx.Done()
			return
		}
		if err != nil {
			yield(registry.Change{}, err)
			return
		}
		inner, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-again:
				cancel()
			case <-inner.Done():
			}
		}()
		for c, err := range f.Registry.WatchChanges(inner, service) {
			if !yield(c, err) {
				return
			}
		}
		if ctx.Err() == nil {
			f.mu.Lock()
			err := f.watchErr
			f.mu.Unlock()
			yield(registry.Change{}, err)
		}
	}
}

var errAway = fmt.Errorf("%w: test", registry.ErrUnavailable)

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func drain(r io.Reader) { _, _ = io.Copy(io.Discard, r) }

func isUnavailable(err error) bool { return errors.Is(err, broker.ErrUnavailable) }
