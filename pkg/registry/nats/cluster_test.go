package nats_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/nats"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// TestCluster: each server of a cluster is killed and comes back in its turn while nodes are registered. None that was acknowledged is ever
// missing in a watch, wherever its owner and its watcher stand.
func TestCluster(t *testing.T) {
	t.Parallel()
	servers := testserver.NATSCluster(t, 3)
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.Addr)
	}
	url := "nats://" + strings.Join(addrs, ",") + "?ttl=10s"
	openURL := func() registry.Registry {
		r, err := registry.Openers{"nats": nats.Open}.Open(t.Context(), url)
		must(t, err)
		t.Cleanup(func() { _ = r.Close() })
		return r
	}
	watches := []<-chan registrytest.Set{registrytest.Follow(t, openURL(), "greeter")}
	for _, addr := range addrs { // each knows one server, and hears from that of the others
		watches = append(watches, registrytest.Follow(t, open(t, nats.Options{Servers: []string{addr}}), "greeter"))
	}
	var mu sync.Mutex
	var taken []string
	acked := func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(taken) }
	ctx, stop := context.WithCancel(t.Context())
	var registering sync.WaitGroup
	for p := range 2 {
		r := openURL()
		registering.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				n := node(fmt.Sprintf("n%d-%04d", p, i))
				for ctx.Err() == nil {
					err := r.Register(ctx, n, 0)
					if err == nil {
						mu.Lock()
						taken = append(taken, n.ID)
						mu.Unlock()
						break
					}
					if !errors.Is(err, registry.ErrUnavailable) && ctx.Err() == nil {
						t.Errorf("Register gave %v", err)
						return
					}
				}
				select {
				case <-time.After(10 * time.Millisecond): // so that there are not too many
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(func() { stop(); registering.Wait() })
	seen := make([]map[string]bool, len(watches))
	expect := func(what string, want []string) {
		t.Helper()
		for i, sets := range watches {
			registrytest.Expect(t, sets, fmt.Sprintf("all %d nodes, %s, in watch %d", len(want), what, i), func(s registrytest.Set) bool {
				if s.Err != nil {
					return false
				}
				now := map[string]bool{}
				for _, n := range s.Nodes {
					now[n.ID] = true
				}
				for id := range seen[i] {
					if !now[id] {
						t.Errorf("watch %d has lost node %s, %s", i, id, what)
					}
				}
				seen[i] = now
				return !slices.ContainsFunc(want, func(id string) bool { return !now[id] })
			})
		}
	}
	registrytest.Eventually(t, "nodes are registered", func() bool { return len(acked()) > 20 })
	for i, s := range servers {
		s.Stop("KILL")
		n := len(acked())
		registrytest.Eventually(t, "nodes are registered without a server", func() bool { return len(acked()) > n+20 })
		expect(fmt.Sprint("without server ", i), acked())
		s.MustStart(t)
		n = len(acked())
		registrytest.Eventually(t, "nodes are registered with all servers", func() bool { return len(acked()) > n+20 })
		expect(fmt.Sprint("with server ", i, " again"), acked())
	}
	stop()
	registering.Wait()
	for _, addr := range addrs {
		if nodes, err := open(t, nats.Options{Servers: []string{addr}}).Get(t.Context(), "greeter"); err != nil || len(nodes) < len(acked()) {
			t.Errorf("at %s there are %d nodes, %v; want %d", addr, len(nodes), err, len(acked()))
		}
	}
}

// Owners at different servers do not take each other's ids, neither one after the other nor at the same time.
func TestClusterConflict(t *testing.T) {
	t.Parallel()
	servers := testserver.NATSCluster(t, 2)
	one, other := open(t, nats.Options{Servers: []string{servers[0].Addr}}), open(t, nats.Options{Servers: []string{servers[1].Addr}})
	for i := range 50 {
		n := node(fmt.Sprint("n", i))
		must(t, one.Register(t.Context(), n, 0))
		if err := other.Register(t.Context(), n, 0); !errors.Is(err, registry.ErrConflict) {
			t.Errorf("the id of %s gave %v, want ErrConflict", n.ID, err)
		}
		m := node(fmt.Sprint("m", i))
		errs := make(chan error, 2)
		go func() { errs <- one.Register(t.Context(), m, 0) }()
		go func() { errs <- other.Register(t.Context(), m, 0) }()
		first, second := <-errs, <-errs
		if first == nil {
			first, second = second, first
		}
		if !errors.Is(first, registry.ErrConflict) || second != nil {
			t.Errorf("of two that register %s at the same time one got %v, and the other %v", m.ID, first, second)
		}
	}
}
