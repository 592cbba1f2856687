package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// shutdownTime is how long the broker's own listener waits for connections when it is closed: the handlers have returned
// by then.
const shutdownTime = 500 * time.Millisecond

// Mux is a listener that serves HTTP requests beside what it is there for: that of the http transport, so that a
// service's subscriptions stand on its own port.
type Mux interface {
	// HandleHTTP gives the requests that match says are h's to h. match does not read the body. The listener has checked
	// Host and Origin, and bounds the connections and the headers; h bounds the body and the time of reading it.
	HandleHTTP(match func(*http.Request) bool, h http.Handler)
	// Addr is the address that a peer dials.
	Addr() string
}

// CallMux is a Mux on which calls arrive too: then batches of messages do, beside those that are posted.
type CallMux interface {
	Mux
	// HandleCalls gives the calls whose header has the key micro-subscription to route. It is called once, before any
	// call comes. Routes limit themselves how much runs at a time.
	HandleCalls(route transport.Router)
}

// Attach makes the broker receive on m instead of a listener of its own. It comes before the first Subscribe. The error
// wraps broker.ErrInvalid where it came late, or m's address is none to tell the registry.
func (b *Broker) Attach(m Mux) error {
	_, leave, err := b.gate.Enter(context.Background())
	if err != nil {
		return err
	}
	defer leave()
	b.listening.Lock()
	defer b.listening.Unlock()
	if b.address != "" {
		return fmt.Errorf("%w: the http broker listens at %s already: attach it before the first Subscribe, and once", broker.ErrInvalid, b.address)
	}
	address, err := announced(b.options.Announce, m.Addr())
	if err != nil {
		return err
	}
	m.HandleHTTP(isDelivery, http.HandlerFunc(b.receive))
	if cm, ok := m.(CallMux); ok {
		cm.HandleCalls(b.route)
		b.batches = true
	}
	b.address = address
	return nil
}

// listen gives the address for the registry, and opens the listener where there is none.
func (b *Broker) listen(ctx context.Context) (string, error) {
	b.listening.Lock()
	defer b.listening.Unlock()
	if b.address != "" {
		return b.address, nil
	}
	l, err := b.transport.Listen(ctx, b.options.Address)
	if err != nil {
		return "", fmt.Errorf("%w: the http broker cannot listen: %w", broker.ErrUnavailable, err)
	}
	mux, ok := l.(Mux)
	if !ok {
		return "", errors.Join(fmt.Errorf("%w: the http broker cannot receive messages on a %T: give it another transport, or Attach it", broker.ErrInvalid, l), l.Close())
	}
	address, err := announced(b.options.Announce, l.Addr())
	if err != nil {
		return "", errors.Join(err, l.Close())
	}
	mux.HandleHTTP(func(r *http.Request) bool { return r.Header.Get("Upgrade") == "" }, http.HandlerFunc(b.receive))
	b.listener = serve(l, b.route)
	b.address, b.batches = address, true
	return address, nil
}

// announced gives the address that the registry is told of a listener that is bound to bound.
func announced(announce, bound string) (string, error) {
	address := bound
	if announce != "" {
		host, port, err := net.SplitHostPort(announce)
		if err != nil {
			return "", fmt.Errorf("%w: address to announce %q: want host:port, port 0 for the listener's", broker.ErrInvalid, announce)
		}
		if _, own, err := net.SplitHostPort(bound); err == nil && port == "0" {
			port = own
		}
		address = net.JoinHostPort(host, port)
	}
	if err := registry.ValidHostPort(address); err != nil {
		return "", fmt.Errorf("%w: the http broker's address: %w", broker.ErrInvalid, err)
	}
	if ap, err := netip.ParseAddrPort(address); err == nil && ap.Addr().IsUnspecified() {
		return "", fmt.Errorf("%w: the http broker listens at %s, which nobody can dial: set Announce to the address that others reach", broker.ErrInvalid, address)
	}
	return address, nil
}

// server is the broker's own listener, and the connections on which batches come.
type server struct {
	listener transport.Listener
	serving  sync.WaitGroup

	mu     sync.Mutex
	conns  map[transport.Conn]struct{}
	closed bool
}

func serve(l transport.Listener, route transport.Router) io.Closer {
	s := &server{listener: l, conns: map[transport.Conn]struct{}{}}
	s.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if u, ok := c.(transport.UnaryServer); ok && s.add(c) {
				s.serving.Go(func() {
					defer s.remove(c)
					_ = u.ServeCalls(context.Background(), func(header metadata.MD) *transport.Route {
						if _, ok := header.Bytes(mdSubscription); !ok {
							return nowhere
						}
						return route(header)
					})
				})
				continue
			}
			_ = c.Close() // the peer finds that it is not served
		}
	})
	return s
}

// nowhere answers calls that are no batches.
var nowhere = &transport.Route{Serve: func(_ context.Context, _, rsp *transport.Message) {
	e := status.Refuse(status.NotFound, "this is a broker, which takes messages alone")
	e.ID = errorID
	fail(rsp, e)
}}

func (s *server) add(c transport.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.conns[c] = struct{}{}
	}
	return !s.closed
}

func (s *server) remove(c transport.Conn) {
	_ = c.Close() // nobody sends on it any more
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Close frees the address, gives answers that are being written a moment, and breaks what is left.
func (s *server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if sh, ok := s.listener.(transport.Shutdowner); ok {
		_ = sh.Shutdown(ctx) // its error says that the moment is over
	}
	err := s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close() // what was on it was given its moment
	}
	s.mu.Unlock()
	s.serving.Wait()
	if err != nil {
		return fmt.Errorf("broker: closing the listener: %w", err)
	}
	return nil
}
