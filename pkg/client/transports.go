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

// grpc is what the records of nodes that speak gRPC have under registry.MetaProtocol, and the scheme of the transport for them.
const grpc = "grpc"

// transports dials each address by the transport that it names: "ws://10.0.0.5:8080", or "10.0.0.5:8080" by the client's own, which
// may know further protocols: "mucp://10.0.0.5:8080".
type transports struct {
	transport.Transport // the client's own
	own                 string
	polyglot            transport.Polyglot // the client's own, where it is one
	openers             transport.Openers

	mu     sync.Mutex
	opened map[string]transport.Transport
}

func newTransports(own transport.Transport, openers transport.Openers) *transports {
	t := &transports{Transport: own, openers: openers, opened: make(map[string]transport.Transport)}
	if s, ok := own.(transport.Schemed); ok {
		t.own = s.Scheme()
	}
	t.polyglot, _ = own.(transport.Polyglot)
	return t
}

// address gives what is dialled for n.
func (t *transports) address(n *registry.Node) string {
	if len(t.openers) > 0 {
		scheme := t.secured(n.Metadata[registry.MetaTransport])
		// No record brings a client of TLS to speak in the clear: https and http, wss and ws.
		if scheme != "" && scheme != t.own && t.openers[scheme] != nil && t.own != scheme+"s" {
			return scheme + "://" + n.Address
		}
	}
	if len(n.Metadata) == 0 || n.Metadata[registry.MetaUpgrade] != "" {
		return n.Address // one of ours, or one who does not say
	}
	return t.foreign(n)
}

// foreign gives the address of a node that is not known to be one of this project: with its protocol, where the record names one
// that has to be dialled otherwise.
func (t *transports) foreign(n *registry.Node) string {
	protocol := n.Metadata[registry.MetaProtocol]
	switch {
	case protocol == "" || t.own == protocol || t.own == protocol+"s":
		return n.Address
	case protocol == grpc, t.speaks(protocol):
		return t.secured(protocol) + "://" + n.Address
	}
	return n.Address // to a stranger, as to one who does not say
}

// secured gives the scheme of gRPC with TLS to a client of TLS, in place of that without.
func (t *transports) secured(scheme string) string {
	if scheme == grpc && (t.own == "https" || t.own == "wss") {
		return grpc + "s"
	}
	return scheme
}

// speaks reports whether the client's own transport knows the protocol.
func (t *transports) speaks(protocol string) bool {
	return t.polyglot != nil && t.polyglot.Speaks(protocol)
}

// Dial implements transport.Transport.
func (t *transports) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	scheme, host, named := strings.Cut(addr, "://")
	switch {
	case !named, t.openers[scheme] == nil && t.speaks(scheme):
		return t.Transport.Dial(ctx, addr)
	case (scheme == grpc || scheme == grpc+"s") && t.own != scheme && t.openers[scheme] == nil:
		return nil, fmt.Errorf("%w: dial %s: the node speaks gRPC, for which the client has no transport: give client.WithTransports one of scheme %s",
			transport.ErrNotSent, host, scheme)
	case len(t.openers) == 0 && scheme != t.own:
		return t.Transport.Dial(ctx, addr) // which may be a name
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
// record names, where c has that one by [WithTransports] alone, or with the protocol that it names, where n is not of this project.
func (c *Client) AddressOf(n registry.Node) string { return c.others.address(&n) }
