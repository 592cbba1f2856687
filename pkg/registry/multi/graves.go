package multi

import (
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// mourning is how long a copy of a dead node stays hidden: longer than the longest ttl of a network's cache.
const mourning = 2 * time.Minute

// graves remembers which nodes authorities without a Witness showed, and which of them are dead. Its methods may be
// called concurrently.
type graves struct {
	mu    sync.Mutex
	clock uint64 // counts questions and answers, to tell which came first
	shown map[string]sighting
	dead  map[string]*grave
}

// sighting is a node as an answer of an authority had it.
type sighting struct {
	node registry.Node
	at   uint64
}

type grave struct {
	node    registry.Node
	until   time.Time
	dropped map[int]bool // members that no longer had the copy
}

func newGraves() *graves {
	return &graves{shown: map[string]sighting{}, dead: map[string]*grave{}}
}

// ask gives the time of a question, for answered.
func (g *graves) ask() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clock++
	return g.clock
}

// answered takes an authority's answer to a question about a service, or about all. What was shown before the question
// was put, and is not in the answer, is dead, unless spared says otherwise.
func (g *graves) answered(asked uint64, service string, nodes []registry.Node, spared func(id string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clock++
	for _, n := range nodes {
		g.shown[n.ID] = sighting{n, g.clock}
		delete(g.dead, n.ID)
	}
	for id, s := range g.shown {
		if s.at < asked && (service == "" || s.node.Service == service) {
			delete(g.shown, id)
			if !spared(id) {
				g.bury(s.node)
			}
		}
	}
}

// changed takes two sets of an authority's watch that follow each other.
func (g *graves) changed(before, after []registry.Node, spared func(id string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	alive := make(map[string]bool, len(after))
	for _, n := range after {
		alive[n.ID] = true
		delete(g.dead, n.ID)
	}
	for _, n := range before {
		if !alive[n.ID] && !spared(n.ID) {
			g.bury(n)
		}
	}
}

// bury is called with the lock held. It also forgets the graves whose time is over.
func (g *graves) bury(n registry.Node) {
	now := time.Now()
	for id, old := range g.dead {
		if now.After(old.until) {
			delete(g.dead, id)
		}
	}
	if _, ok := g.dead[n.ID]; !ok {
		g.dead[n.ID] = &grave{node: n, until: now.Add(mourning), dropped: map[int]bool{}}
	}
}

// visited takes a set of another member's watch: a dead node that it does not have may come back there.
func (g *graves) visited(member int, service string, nodes []registry.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.dead) == 0 {
		return
	}
	has := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		has[n.ID] = true
	}
	for id, d := range g.dead {
		if !has[id] && (service == "" || d.node.Service == service) {
			d.dropped[member] = true
		}
	}
}

// hides reports whether a member's copy is of a dead node.
func (g *graves) hides(member int, n registry.Node) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	d, ok := g.dead[n.ID]
	return ok && !d.dropped[member] && time.Now().Before(d.until) && sameStart(d.node, n)
}

// sameStart reports whether two records with one id are of one run of a program. Its address does not tell, where the
// time of its start does: the records of one node may name different addresses of its machine.
func sameStart(a, b registry.Node) bool {
	x, y := a.Metadata[registry.MetaStarted], b.Metadata[registry.MetaStarted]
	if x != "" && y != "" {
		return x == y
	}
	return a.Address == b.Address
}
