package http

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/registry"
)

// Limits of the broker's own listener, beside Options.MaxConns.
const (
	readHeaderTimeout = 5 * time.Second
	keepAlive         = 60 * time.Second
	maxHeader         = 32 << 10
	shutdownTime      = 500 * time.Millisecond // for connections that have sent nothing; the handlers have returned by then
)

// Mux is a listener that serves HTTP requests beside what it is there for: that of the http transport, so that a
// service's subscriptions stand on its own port.
type Mux interface {
	// HandleHTTP gives the requests that match says are h's to h. match does not read the body. The listener has checked
	// Host and Origin, and bounds the connections and the headers; h bounds the body and the time of reading it.
	HandleHTTP(match func(*http.Request) bool, h http.Handler)
	// Addr is the address that a peer dials.
	Addr() string
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
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", b.options.Address)
	if err != nil {
		return "", fmt.Errorf("%w: the http broker cannot listen: %w", broker.ErrUnavailable, err)
	}
	address, err := announced(b.options.Announce, l.Addr().String())
	if err != nil {
		_ = l.Close() // nobody has met it
		return "", err
	}
	checked := hostcheck.Wrap(http.HandlerFunc(b.receive), hostcheck.Options{Address: l.Addr().String(), AllowedHosts: []string{address}})
	b.listener = serve(netutil.LimitListener(l, b.options.MaxConns), checked, b.options.Logger)
	b.address = address
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

// server is the broker's own listener.
type server struct {
	http    *http.Server
	serving sync.WaitGroup
}

func serve(l net.Listener, h http.Handler, log *slog.Logger) io.Closer {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	s := &server{http: &http.Server{
		Handler:           h,
		Protocols:         &protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}
	s.serving.Go(func() {
		if err := s.http.Serve(l); err != nil && err != http.ErrServerClosed {
			log.Error("broker: the listener failed", "err", err)
		}
	})
	return s
}

// Close frees the address, gives answers that are being written a moment, and breaks what is left.
func (s *server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	s.serving.Wait()
	if err != nil {
		return fmt.Errorf("broker: closing the listener: %w", err)
	}
	return nil
}
