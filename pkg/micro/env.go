package micro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"strconv"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
	"github.com/cb02dfca/micro/pkg/registry/mdns"
	"github.com/cb02dfca/micro/pkg/transport"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// Drivers are the backends that a program imports, by URL scheme: what [FromEnv] may open beside the defaults, which are
// the registries default, local and mdns, the broker http and the transport http.
type Drivers struct {
	Registries registry.Openers
	Brokers    broker.Openers
	// Transports are also what the service's client calls those nodes by that name another one than the service's own.
	Transports transport.Openers
}

// The environment that [FromEnv] reads.
const (
	EnvService   = "MICRO_SERVICE"   // the service's name, in the place of the one given to New
	EnvVersion   = "MICRO_VERSION"   // its version
	EnvNode      = "MICRO_NODE"      // the node's id
	EnvAddress   = "MICRO_ADDRESS"   // where it listens
	EnvRegistry  = "MICRO_REGISTRY"  // the registry's URL
	EnvBroker    = "MICRO_BROKER"    // the broker's URL
	EnvTransport = "MICRO_TRANSPORT" // the transport's URL
	EnvListenFD  = "MICRO_LISTEN_FD" // the number of an inherited descriptor that listens already
)

// FromEnv configures a service from the environment, as `micro run` sets it for the programs that it starts: name,
// version, node, address, registry, broker, transport, and a listener that is open already. Only a program's main calls it; it
// overrides options that stand before it. What is not set stays as it is; what cannot be used is an error of New.
func FromEnv(d Drivers) Option {
	return func(o *options) {
		set := func(to *string, name string) {
			if v := os.Getenv(name); v != "" {
				*to = v
			}
		}
		set(&o.name, EnvService)
		set(&o.version, EnvVersion)
		set(&o.id, EnvNode)
		set(&o.address, EnvAddress)
		for _, f := range []func(*options) error{d.registry, d.broker, d.transport, inherit} {
			if err := f(o); err != nil {
				o.errs = append(o.errs, err)
			}
		}
	}
}

func (d Drivers) registry(o *options) error {
	raw := os.Getenv(EnvRegistry)
	if raw == "" {
		return nil
	}
	openers := registry.Openers{"default": DefaultRegistry, "local": local.Open, "mdns": mdns.Open}
	for scheme, open := range d.Registries {
		openers[scheme] = open
	}
	r, err := openers.Open(context.Background(), raw)
	if err != nil {
		return fmt.Errorf("%s: %w", EnvRegistry, err)
	}
	o.registry, o.scope, o.opened = r, "", append(o.opened, r)
	return nil
}

// broker leaves the opening to build: the HTTP broker stands on the registry.
func (d Drivers) broker(o *options) error {
	o.brokerURL, o.brokers = os.Getenv(EnvBroker), d.Brokers
	return nil
}

func (d Drivers) transport(o *options) error {
	openers := transport.Openers{"http": transporthttp.OpenBeside(d.Transports), "https": transporthttp.OpenBeside(d.Transports)}
	maps.Copy(openers, d.Transports)
	raw := os.Getenv(EnvTransport)
	if len(d.Transports) > 0 || raw != "" {
		o.transports = openers
	}
	if raw == "" {
		return nil
	}
	t, err := openers.Open(context.Background(), raw)
	if err != nil {
		return fmt.Errorf("%s: %w", EnvTransport, err)
	}
	if c, ok := t.(io.Closer); ok {
		o.opened = append(o.opened, c)
	}
	o.transport = t
	return nil
}

// inherit takes over the listening socket that the parent process opened.
func inherit(o *options) error {
	raw := os.Getenv(EnvListenFD)
	if raw == "" {
		return nil
	}
	fd, err := strconv.ParseUint(raw, 10, 16)
	if err != nil || fd < 3 {
		return fmt.Errorf("%s=%q: want a descriptor's number, 3 or more", EnvListenFD, raw)
	}
	f := os.NewFile(uintptr(fd), EnvListenFD)
	defer func() { _ = f.Close() }() // FileListener has a copy of its own
	nl, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("%s=%d: %w", EnvListenFD, fd, err)
	}
	o.inherited, o.opened = nl, append(o.opened, leftover{nl})
	return nil
}

// leftover closes an inherited listener that nobody came to use; the server has closed it otherwise.
type leftover struct{ net.Listener }

func (l leftover) Close() error {
	if err := l.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// wrapInherited makes a transport's listener of an inherited one.
func (s *Service) wrapInherited() (transport.Listener, error) {
	t, ok := s.transport.(interface {
		Serve(net.Listener) (transport.Listener, error)
	})
	if !ok {
		return nil, fmt.Errorf("%s: the transport takes no inherited listener", EnvListenFD)
	}
	return t.Serve(s.inherited)
}
