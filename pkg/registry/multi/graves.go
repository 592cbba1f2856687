package multi

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// mourning is how long a copy of a dead node stays hidden: longer than the longest ttl of a network's cache.
const mourning = 2 * time.Minute

// graves remembers which nodes authorities without a Witness showed, and which of them are dead. Its methods may be
// called concurrently.
type graves struct {
	mu      sync.Mutex
	clock   uint64 // counts questions and answers, to tell which came first
	changes uint64 // counts changes of dead
	shown   map[string]sighting
	dead    map[string]*grave
	sweep   time.Time // when to look next for graves whose time is over
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

	// Of a node whose registration ended, at members that are no authorities: which those are, and when the last one told.
	ended map[int]bool
	at    uint64
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
		g.rise(n.ID)
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

// changed takes in what an authority's watch told.
func (g *graves) changed(put, gone []registry.Node, spared func(id string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range put {
		g.rise(n.ID)
	}
	for _, n := range gone {
		if !spared(n.ID) {
			g.bury(n)
		}
	}
}

// version grows with each change of what hides says, but that of time.
func (g *graves) version() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changes
}

// rise is called with the lock held.
func (g *graves) rise(id string) {
	if g.dead[id] != nil {
		delete(g.dead, id)
		g.changes++
	}
}

// ids appends the ids of dead nodes.
func (g *graves) ids(to []string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.AppendSeq(to, maps.Keys(g.dead))
}

// bury is called with the lock held. Now and then it forgets the graves whose time is over.
func (g *graves) bury(n registry.Node) {
	now := time.Now()
	if now.After(g.sweep) {
		g.sweep = now.Add(mourning / 8)
		maps.DeleteFunc(g.dead, func(_ string, old *grave) bool { return now.After(old.until) })
	}
	if old := g.dead[n.ID]; old == nil || now.After(old.until) || old.ended != nil {
		g.changes++
		g.dead[n.ID] = &grave{node: n, until: now.Add(mourning), dropped: map[int]bool{}}
	}
}

// ended takes in that a node's registration has ended at a member that is no authority. Copies with the same stamp are dead, as their owner
// would have given them another one if he had merely lost that member.
func (g *graves) ended(member int, gone []registry.Node, spared func(id string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range gone {
		if n.Metadata[registry.MetaRegistered] == "" || spared(n.ID) {
			continue
		}
		old := g.dead[n.ID]
		if old != nil && (old.ended == nil || !sameStamp(old.node, n)) && time.Now().Before(old.until) {
			if old.ended == nil {
				continue // an authority's word says more
			}
			delete(g.dead, n.ID)
		}
		if old := g.dead[n.ID]; old == nil || time.Now().After(old.until) {
			g.bury(n)
			g.dead[n.ID].ended = map[int]bool{}
		}
		d := g.dead[n.ID]
		g.clock++
		d.ended[member], d.at = true, g.clock
	}
}

// shows takes in what such a member shows, as it was asked for at some time: a registration that had ended there has come again.
func (g *graves) shows(member int, asked uint64, nodes []registry.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.dead) == 0 {
		return
	}
	for _, n := range nodes {
		if d := g.dead[n.ID]; d != nil && d.ended[member] && d.at < asked {
			if delete(d.ended, member); len(d.ended) == 0 {
				g.rise(n.ID)
			}
		}
	}
}

// visited takes in what another member's watch knows of a service: a dead node that it does not have may come back there.
func (g *graves) visited(member int, service string, has func(id string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, d := range g.dead {
		if !d.dropped[member] && (service == "" || d.node.Service == service) && !has(id) {
			d.dropped[member] = true
			g.changes++
		}
	}
}

// hides reports whether a member's copy is of a dead node.
func (g *graves) hides(member int, n registry.Node) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	d, ok := g.dead[n.ID]
	if !ok || d.dropped[member] || !time.Now().Before(d.until) {
		return false
	}
	if d.ended != nil {
		return sameStamp(d.node, n)
	}
	return sameStart(d.node, n)
}

// sameStamp reports whether two copies say that they were registered together.
func sameStamp(a, b registry.Node) bool {
	stamp := a.Metadata[registry.MetaRegistered]
	return stamp != "" && stamp == b.Metadata[registry.MetaRegistered]
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
