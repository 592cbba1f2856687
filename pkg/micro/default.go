package micro

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
	"github.com/cb02dfca/micro/pkg/registry/mdns"
	"github.com/cb02dfca/micro/pkg/registry/multi"
)

// DefaultRegistry opens the registry that a service has without options, "default": the files of this machine joined
// with mDNS. Its scope is this machine, or with "default://?scope=lan" the local network. A node whose address has no port, as over
// NATS and RabbitMQ, is in the files alone, and cannot be where the scope is the network.
func DefaultRegistry(ctx context.Context, u *url.URL) (registry.Registry, error) {
	return openDefault(ctx, u, slog.New(slog.DiscardHandler))
}

func openDefault(ctx context.Context, u *url.URL, logger *slog.Logger) (registry.Registry, error) {
	params, err := opener.Params(u, "scope")
	if err != nil {
		return nil, err
	}
	scope, takes := mdns.Host, portable
	switch params["scope"] {
	case "", "host":
	case "lan":
		scope, takes = mdns.LAN, nil // what the network is to find, and cannot, is an error
	default:
		return nil, fmt.Errorf("%s: scope is host or lan", u)
	}
	return multi.Join(ctx, multi.Options{Logger: logger},
		multi.Member{Name: "local", Authority: true, Open: func(context.Context) (registry.Registry, error) {
			return local.New(local.Options{Logger: logger})
		}},
		multi.Member{Name: "mdns", Takes: takes, Open: func(context.Context) (registry.Registry, error) {
			return mdns.New(mdns.Options{Scope: scope, Logger: logger})
		}},
	)
}

// portable reports whether a node has an address with a port, as mDNS has them. On this machine the files are enough for others, such as
// a subject of NATS.
func portable(n registry.Node) bool {
	_, _, err := net.SplitHostPort(n.Address)
	return err == nil
}
