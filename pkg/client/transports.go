package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/transport"
)

// transports dials each address by the transport that it names: "ws://10.0.0.5:8080", or "10.0.0.5:8080" by the client's own.
type transports struct {
	transport.Transport // the client's own
	own                 string
	openers             transport.Openers

	mu     sync.Mutex
	opened map[string]transport.Transport
}

func newTransports(own transport.Transport, openers transport.Openers) *transports {
	t := &transports{Transport: own, openers: openers, opened: make(map[string]transport.Transport)}
	if s, ok := own.(transport.Schemed); ok {
		t.own = s.Scheme()
	}
	return t
}

// address gives what is dialled for n.
func (t *transports) address(n *registry.Node) string {
	scheme := n.Metadata[registry.MetaTransport]
	if scheme == "" || scheme == t.own || t.openers[scheme] == nil {
		return n.Address // to a stranger, as to one who does not say
	}
	if t.own == scheme+"s" { // https and http, wss and ws
		return n.Address // no record brings a client of TLS to speak in the clear
	}
	return scheme + "://" + n.Address
}

// Dial implements transport.Transport.
func (t *transports) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	scheme, host, named := strings.Cut(addr, "://")
	if !named {
		return t.Transport.Dial(ctx, addr)
	}
	by, err := t.open(ctx, scheme)
	if err != nil {
		return nil, fmt.Errorf("%w: dial %s: %w", transport.ErrNotSent, addr, err)
	}
	return by.Dial(ctx, host)
}

// open gives the transport of a scheme, which is opened once.
func (t *transports) open(ctx context.Context, scheme string) (transport.Transport, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if scheme == t.own {
		return t.Transport, nil
	}
	if by := t.opened[scheme]; by != nil {
		return by, nil
	}
	by, err := t.openers.Open(ctx, scheme)
	if err != nil {
		return nil, err
	}
	t.opened[scheme] = by
	return by, nil
}

// close closes what was opened. The connections have ended.
func (t *transports) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, by := range t.opened {
		if c, ok := by.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	t.opened = nil
	return errors.Join(errs...)
}

// AddressOf gives the address under which c dials n, for the option [Address]: with the scheme of the transport that n's
// record names, where c has that one by [WithTransports] alone.
func (c *Client) AddressOf(n registry.Node) string { return c.address(&n) }

func (c *Client) address(n *registry.Node) string {
	if c.others == nil {
		return n.Address
	}
	return c.others.address(n)
}
