package micro

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
	"github.com/cb02dfca/micro/pkg/registry/mdns"
	"github.com/cb02dfca/micro/pkg/registry/multi"
)

// DefaultRegistry opens the registry that a service has without options, "default": the files of this machine joined
// with mDNS. Its scope is this machine, or with "default://?scope=lan" the local network.
func DefaultRegistry(ctx context.Context, u *url.URL) (registry.Registry, error) {
	return openDefault(ctx, u, slog.New(slog.DiscardHandler))
}

func openDefault(ctx context.Context, u *url.URL, logger *slog.Logger) (registry.Registry, error) {
	params, err := opener.Params(u, "scope")
	if err != nil {
		return nil, err
	}
	scope := mdns.Host
	switch params["scope"] {
	case "", "host":
	case "lan":
		scope = mdns.LAN
	default:
		return nil, fmt.Errorf("%s: scope is host or lan", u)
	}
	return multi.Join(ctx, multi.Options{Logger: logger},
		multi.Member{Name: "local", Authority: true, Open: func(context.Context) (registry.Registry, error) {
			return local.New(local.Options{Logger: logger})
		}},
		multi.Member{Name: "mdns", Open: func(context.Context) (registry.Registry, error) {
			return mdns.New(mdns.Options{Scope: scope, Logger: logger})
		}},
	)
}
