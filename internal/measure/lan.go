//go:build linux

package main

import (
	"context"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/netspace"
)

const (
	lanGroup = "Two machines: namespaces joined by a bridge, `--registry default?scope=lan`"
	lanName  = "default?scope=lan"
	lanRuns  = 100
)

// lan lists and calls a service of the other end of a bridge.
func (c *cell) lan(ctx context.Context) ([]figure, error) {
	lan, err := netspace.OpenLAN(2)
	if err != nil {
		return nil, err
	}
	defer lan.Close()
	if err := lan.Machines[0].Do(func() error {
		_, err := c.hello(ctx, "hello", "hello", "MICRO_REGISTRY="+lanName)
		return err
	}); err != nil {
		return nil, err
	}
	time.Sleep(2 * time.Second) // the announcements are over: what follows asks
	var figures []figure
	err = lan.Machines[1].Do(func() error {
		good, times, err := repeat(lanRuns, func() (bool, error) {
			return listsAll(c.command(ctx, nil, "micro", "list", "services", "--registry", lanName), []string{"hello"})
		})
		if err != nil {
			return err
		}
		figures = append(figures, complete(lanGroup, "`micro list services` shows the other machine's", good, lanRuns),
			times.within(lanGroup, "`micro list services`, exec to exit", 0.95, 0))
		good, times, err = repeat(lanRuns, func() (bool, error) {
			out, err := c.command(ctx, nil, "micro", "call", "hello", "Say.Hello", `{"name":"x"}`, "--registry", lanName).Output()
			return err == nil && strings.Contains(string(out), "Hello x"), nil
		})
		figures = append(figures, complete(lanGroup, "`micro call hello Say.Hello` is answered", good, lanRuns),
			times.within(lanGroup, "`micro call`, exec to exit", 0.95, 0))
		return err
	})
	return figures, err
}
