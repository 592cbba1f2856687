package commands

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	registryhttp "github.com/cb02dfca/micro/pkg/registry/http"
	"github.com/cb02dfca/micro/pkg/transport"
)

// What the settings name is opened at the first request for it, and closed after the command.

// registryName is how the registry is called in messages, and what is opened.
func (in *invocation) registryName() string { return or(in.settings.registry, "default") }

// registryShown is registryName without a secret that a URL may hold.
func (in *invocation) registryShown() string { return redacted(in.registryName()) }

func redacted(name string) string { return opener.RedactedText(name) }

// openRegistry gives the registry.
func (in *invocation) openRegistry(ctx context.Context) (registry.Registry, error) {
	if in.reg != nil {
		return in.reg, nil
	}
	r, err := in.Backends.Registries.Open(ctx, in.registryName())
	if err != nil {
		return nil, in.openFailed("registry", in.registryName(), err)
	}
	in.reg = r
	in.onClose(r)
	in.warnInsecure("registry", in.registryName())
	in.warnClear()
	return r, nil
}

// warnClear says so where a registry's token goes over a network in the clear.
func (in *invocation) warnClear() {
	u, err := url.Parse(in.registryName())
	if err != nil || u.Scheme != "http" || !in.registryElsewhere() {
		return
	}
	if token, _ := in.Env(registryhttp.EnvToken); token != "" || u.Query().Get("token-file") != "" {
		in.warn("warning: the token goes to registry %s in the clear, for whoever is on the way to read: https is not", u.Host)
	}
}

// warnInsecure says so where a URL asks for a listener beyond loopback that lets in everybody.
func (in *invocation) warnInsecure(what, name string) {
	_, query, _ := strings.Cut(name, "?")
	values, err := url.ParseQuery(query)
	if on, boolErr := strconv.ParseBool(values.Get("insecure")); err == nil && boolErr == nil && on {
		in.warn("warning: insecure=true: whoever reaches a listener of %s %s beyond loopback is let in", what, redacted(name))
	}
}

// openTransport gives the transport that services are called by.
func (in *invocation) openTransport(ctx context.Context) (transport.Transport, error) {
	if in.tr != nil {
		return in.tr, nil
	}
	name := or(in.settings.transport, "http")
	t, err := in.Backends.Transports.Open(ctx, name)
	if err != nil {
		return nil, in.openFailed("transport", name, err)
	}
	in.tr = t
	in.warnInsecure("transport", name)
	if c, ok := t.(io.Closer); ok {
		in.onClose(c)
	}
	return t, nil
}

// otherTransports lets a client call each node by the transport that it names, unless a setting says by which; and an address
// by the one that it begins with.
func (in *invocation) otherTransports(address string) client.Option {
	if in.settings.transport != "" && afterScheme(address) == address {
		return client.WithTransports(nil)
	}
	return client.WithTransports(in.Backends.Transports)
}

// afterScheme gives the HOST:PORT of an address that may say by which transport: "ws://127.0.0.1:8080".
func afterScheme(address string) string {
	if _, host, named := strings.Cut(address, "://"); named {
		return host
	}
	return address
}

// checkAddress checks an address that is to be called: a host and a port, or what the transport, which is opened for that, takes for a name.
func (in *invocation) checkAddress(ctx context.Context, address string) error {
	t, err := in.openTransport(ctx)
	polyglot, _ := t.(transport.Polyglot)
	if scheme, _, named := strings.Cut(address, "://"); named && (polyglot == nil || !polyglot.Speaks(scheme)) {
		t, err = in.Backends.Transports.Open(ctx, scheme+"://")
		if err != nil {
			return usage("flag --address: %q: %s", address, trimPackage(err.Error())).because(err)
		}
		if c, ok := t.(io.Closer); ok {
			in.onClose(c)
		}
	}
	if err != nil {
		return err
	}
	if n, ok := t.(transport.Named); ok {
		return badName(n, afterScheme(address))
	}
	if !isHostPort(afterScheme(address)) {
		return usage("flag --address: %q is not HOST:PORT", redacted(address))
	}
	return nil
}

// badName is the failure of an address that a transport does not take.
func badName(t transport.Named, address string) error {
	if err := t.CheckName(address); err != nil {
		return usage("flag --address: %s", err).because(err)
	}
	return nil
}

// openBroker gives the broker. The registry that it stands on is opened when it asks for it.
func (in *invocation) openBroker(ctx context.Context) (broker.Broker, error) {
	if in.br != nil {
		return in.br, nil
	}
	name := or(in.settings.broker, "http")
	b, err := in.Backends.Brokers(in.openRegistry).Open(ctx, name)
	if err != nil {
		return nil, in.openFailed("broker", name, err)
	}
	in.br = b
	in.onClose(b)
	return b, nil
}

// openClient gives a client with the transport, and with the registry unless every call is to name an address.
func (in *invocation) openClient(ctx context.Context, withRegistry bool) (*client.Client, error) {
	t, err := in.openTransport(ctx)
	if err != nil {
		return nil, err
	}
	opts := []client.Option{client.WithTransport(t), in.otherTransports(""), client.WithTimeout(in.timeout)}
	if withRegistry {
		r, err := in.openRegistry(ctx)
		if err != nil {
			return nil, err
		}
		opts = append(opts, client.WithRegistry(r))
	}
	c, err := client.New(opts...)
	if err != nil {
		return nil, err
	}
	in.onClose(c)
	return c, nil
}

// dialer gives a client that calls addresses and asks no registry; the same one each time.
func (in *invocation) dialer(ctx context.Context) (*client.Client, error) {
	if in.dial != nil {
		return in.dial, nil
	}
	c, err := in.openClient(ctx, false)
	in.dial = c
	return c, err
}

// openFailed tells why something that a setting names cannot be opened. That is the setting's fault, unless it is away.
func (in *invocation) openFailed(what, name string, err error) error {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f
	case errIs(err, registry.ErrUnavailable, broker.ErrUnavailable) && what == "registry":
		return in.explainRegistry(err)
	case errIs(err, broker.ErrUnavailable):
		return fail(exitUnavailable, "broker %s is not answering: %s", redacted(name), dialReason(err)).because(err)
	case errIs(err, context.Canceled, context.DeadlineExceeded):
		return err
	case what == "registry" && isHostPort(name):
		return usage("registry %q: want a name or a URL", name).because(err).hint("did you mean", "--registry http://"+name)
	case errors.Is(err, opener.ErrUnknown):
		return usage("%s %q: %s", what, redacted(name), err).because(err).hint("more", "micro help environment")
	}
	return usage("%s %q: %s", what, redacted(name), trimPackage(err.Error())).because(err)
}

// isHostPort reports whether a setting is an address that lacks a scheme.
func isHostPort(name string) bool {
	host, port, err := net.SplitHostPort(name)
	_, numErr := strconv.ParseUint(port, 10, 16)
	return err == nil && numErr == nil && host != "" && !strings.Contains(host, "@")
}
