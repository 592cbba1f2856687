package dns

import (
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// sightings remember when each record was first seen as it is, by this machine's monotonic clock: one that is not renewed within its
// ttl is over, whatever the clocks of machines say. They last from one look to the next.
type sightings struct {
	skew time.Duration

	mu sync.Mutex
	of map[string]map[string]*sighting // by service, and instance
}

type sighting struct {
	renewal string
	text    string // of node
	node    registry.Node
	since   time.Time // when the renewal was first seen
	ttl     time.Duration
	over    time.Time // when it is over though no ttl has gone by: of the first renewal that is seen, by its owner's clock
	first   bool
}

func newSightings(skew time.Duration) *sightings {
	return &sightings{skew: skew, of: map[string]map[string]*sighting{}}
}

// known gives the node that a record's text stood for when it was last seen.
func (s *sightings) known(service, instance string) func(text string) (registry.Node, bool) {
	return func(text string) (registry.Node, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if g := s.of[service][instance]; g != nil && g.text == text {
			return g.node, true
		}
		return registry.Node{}, false
	}
}

// see takes in a record, and gives how long it will hold if it is not renewed; not positive when it is over. watched reports whether
// that is known by having watched it for its ttl, and not by comparing clocks alone.
func (s *sightings) see(t *txt) (left time.Duration, watched bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.of[t.node.Service]
	if at == nil {
		at = map[string]*sighting{}
		s.of[t.node.Service] = at
	}
	now, name := time.Now(), t.rr.Hdr.Name
	g := at[name]
	switch renewal := t.renewal(); {
	case g == nil:
		g = &sighting{renewal: renewal, since: now, ttl: t.ttl, first: true, over: now.Add(t.until.Add(s.skew).Sub(now))}
		at[name] = g
	case g.renewal != renewal:
		*g = sighting{renewal: renewal, since: now, ttl: t.ttl}
	}
	g.text, g.node = t.text, t.node
	left = g.since.Add(g.ttl).Sub(now)
	watched = left <= 0
	if g.first {
		left = min(left, g.over.Sub(now))
	}
	return left, watched
}

// keep forgets the records of services that are not among their instances, and where all is set other services too.
func (s *sightings) keep(there map[string]map[string]bool, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for service, at := range s.of {
		instances, looked := there[service]
		if !looked && !all {
			continue
		}
		for name := range at {
			if !instances[name] {
				delete(at, name)
			}
		}
		if len(at) == 0 {
			delete(s.of, service)
		}
	}
}

// resume gives a new ttl to what was not over when the nameserver was last heard of: nothing could be renewed since.
func (s *sightings) resume(heard time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, at := range s.of {
		for _, g := range at {
			if g.since.Add(g.ttl).After(heard) && (!g.first || g.over.After(heard)) {
				g.since, g.first = now, false
			}
		}
	}
}
