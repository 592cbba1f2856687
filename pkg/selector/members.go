package selector

import "github.com/cb02dfca/micro/pkg/registry"

// place is where a node stands in the current Nodes.
type place struct {
	candidate *Candidate
	at        int
}

// apply makes the current set the one that c leads to, at the cost of what changes. A node that stays keeps its load; so
// does one that went while calls to it are under way, as it may come back. It is called with the lock held, as all below.
func (s *service) apply(c registry.Change) {
	now := s.current.Load()
	if now == nil {
		now = new(Nodes)
	}
	e := now.edit()
	for _, id := range c.Gone {
		s.drop(e, id)
	}
	if c.Reset {
		s.dropOthers(e, c.Put)
	}
	for i := range c.Put {
		s.put(e, &c.Put[i])
	}
	s.current.Store(e.done())
	s.tidy()
	s.announce()
}

// dropOthers drops what is not among nodes.
func (s *service) dropOthers(e *edit, nodes []registry.Node) {
	if len(s.places) == 0 {
		return
	}
	stay := make(map[string]struct{}, len(nodes))
	for i := range nodes {
		stay[nodes[i].ID] = struct{}{}
	}
	for id := range s.places {
		if _, ok := stay[id]; !ok {
			s.drop(e, id)
		}
	}
}

func (s *service) drop(e *edit, id string) {
	p, ok := s.places[id]
	if !ok {
		return
	}
	delete(s.places, id)
	if p.candidate.inflight.Load() > 0 {
		if s.left == nil {
			s.left = map[string]*load{}
		}
		s.left[id] = p.candidate.load
	}
	if moved := e.drop(p.at); moved != nil {
		s.places[moved.ID] = place{moved, p.at}
	}
	s.tell(p.candidate, nil)
}

func (s *service) put(e *edit, n *registry.Node) {
	p, known := s.places[n.ID]
	if known && p.candidate.Node.Equal(*n) {
		return
	}
	c := newCandidate(n, s.load(p.candidate, n))
	if known {
		e.set(p.at, c)
	} else {
		p.at = e.add(c)
	}
	s.places[n.ID] = place{c, p.at}
	s.tell(p.candidate, c)
}

// load gives the load of a node that was known, or is back; nil for one that is new.
func (s *service) load(known *Candidate, n *registry.Node) *load {
	l := s.left[n.ID]
	delete(s.left, n.ID)
	switch {
	case known != nil:
		l = known.load
	case l != nil && l.inflight.Load() == 0:
		return nil
	}
	if l != nil && l.address != n.Address {
		return nil
	}
	return l
}

func (s *service) tell(was, now *Candidate) {
	if s.follower != nil {
		s.follower.Change(was, now)
	}
}

// tidy forgets some of the loads that nobody uses any more.
func (s *service) tidy() {
	looks := 0
	for id, l := range s.left {
		if looks++; looks > 8 {
			return
		}
		if l.inflight.Load() == 0 {
			delete(s.left, id)
		}
	}
	if len(s.left) == 0 {
		s.left = nil
	}
}

// member gives the node with an id, nil where there is none.
func (s *service) member(id string) *Candidate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.places[id].candidate
}
