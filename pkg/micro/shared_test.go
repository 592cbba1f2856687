package micro_test

import (
	"context"
	"net/url"

	"github.com/cb02dfca/micro/pkg/registry"
)

// openShared gives an opener of a registry that its openers do not close.
func openShared(r registry.Registry) registry.Opener {
	return func(context.Context, *url.URL) (registry.Registry, error) { return shared{r}, nil }
}

type shared struct{ registry.Registry }

func (shared) Close() error { return nil }
