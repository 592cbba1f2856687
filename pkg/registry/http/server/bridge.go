package server

import (
	"crypto/sha256"
	"errors"
	"time"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/hold"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
)

// bridgeTime is how often nodes of the bridge are put again, where an owner had their place or the bridge failed.
const bridgeTime = 10 * time.Second

// bridge shows the nodes of another registry, until the server is closed.
func (s *Server) bridge() {
	b := &bridge{s: s, owner: sha256.Sum256([]byte(wire.Random(32))), shown: map[string]registry.Node{}, found: map[string]registry.Node{}}
	changes := make(chan registry.Change)
	s.busy.Go(func() {
		defer close(changes)
		for c, err := range registry.WatchChanges(s.life, s.o.Bridge, "") {
			if err != nil {
				s.o.Logger.Warn("registry server's bridge does not hear its registry", "error", err)
				continue
			}
			select {
			case changes <- c:
			case <-s.life.Done():
				return
			}
		}
	})
	tick := time.NewTicker(bridgeTime)
	defer tick.Stop()
	for {
		select {
		case <-s.life.Done():
			return
		case c, ok := <-changes:
			if !ok {
				return
			}
			b.take(c)
		case <-tick.C:
		}
		b.show()
	}
}

// bridge is what is found on the other side, and what is shown of it here. One goroutine uses it.
type bridge struct {
	s            *Server
	owner        hold.Owner
	found, shown map[string]registry.Node
}

func (b *bridge) take(c registry.Change) {
	if c.Reset {
		clear(b.found)
	}
	for _, id := range c.Gone {
		delete(b.found, id)
	}
	for _, n := range c.Put {
		b.found[n.ID] = n
	}
}

// show makes what is shown what is found, as far as that is for the server's clients and nobody has the place.
func (b *bridge) show() {
	for id, n := range b.shown {
		if _, still := b.found[id]; !still {
			if err := b.s.held.Deregister(b.s.life, b.owner, n.Service, id); err == nil || errors.Is(err, registry.ErrConflict) {
				delete(b.shown, id)
			}
		}
	}
	for id, n := range b.found {
		if b.s.open.Load() && hostcheck.Loopback(n.Address) {
			continue
		}
		if now, there := b.s.nodes.Lookup(id); there && now.Equal(n) {
			continue // shown already, or its owner registers here as well
		}
		err := b.s.held.Guest(b.s.life, b.owner, n)
		switch {
		case err == nil:
			b.shown[id] = n
		case !errors.Is(err, registry.ErrConflict) && b.s.life.Err() == nil:
			b.s.o.Logger.Warn("registry server's bridge cannot show a node", "node", id, "error", err)
		}
	}
}
