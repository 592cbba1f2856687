package selector

import (
	"fmt"
	"slices"
	"time"
)

// bleakTime is how long after a look at all nodes, which have all failed, the next call does not look for a better one.
const bleakTime = 10 * time.Millisecond

// wish is what a call that does not take any node wants of one. Wishes are used again, so that it costs nothing.
type wish struct {
	query Query
	well  bool // the node has not failed lately
	ok    func(*Candidate) bool
}

func newWish() *wish {
	w := new(wish)
	w.ok = w.takes
	return w
}

func (w *wish) takes(c *Candidate) bool {
	return (!w.well || c.well()) && !slices.Contains(w.query.Avoid, c.ID) && w.matches(c)
}

func (w *wish) matches(c *Candidate) bool {
	for _, f := range w.query.Filters {
		if !f(c.Node) {
			return false
		}
	}
	return true
}

// pick takes a node for q. It looks at no more nodes than the strategy does, but for those that are drawn in vain: that do
// not match, were tried, or have failed lately.
func (s *service) pick(now *Nodes, q *Query) (*Candidate, error) {
	free := len(q.Filters) == 0 && len(q.Avoid) == 0 && q.Node == ""
	if free {
		if c := s.draw(now, q.Key); s.takes(c, now) {
			return c, nil
		}
	}
	w := s.wishes.Get().(*wish)
	w.query, w.well = *q, free
	c, err := s.grant(now, w)
	w.query = Query{}
	s.wishes.Put(w)
	return c, err
}

// takes reports whether a node that was drawn is taken: it has not failed lately, or there is none that is better.
func (s *service) takes(c *Candidate, now *Nodes) bool {
	return c.ready() || now.Len() == 1 || s.hopeless()
}

// draw takes any node.
func (s *service) draw(now *Nodes, key string) *Candidate {
	if now.Len() == 1 {
		return now.At(0)
	}
	if c := s.picker.Pick(now, key, nil); c != nil {
		return c
	}
	return now.random() // the strategy does not know them yet
}

// grant takes a node for a wish: of those that it leaves one that has not failed lately, or whose turn it is to be tried
// again; else any.
func (s *service) grant(now *Nodes, w *wish) (*Candidate, error) {
	if w.query.Node != "" {
		return s.only(now, w)
	}
	if w.well {
		if c := s.picker.Pick(now, w.query.Key, w.ok); c != nil {
			return c, nil
		}
		if now.Len() > few {
			s.bleak.Store(int64(time.Since(s.began) + bleakTime))
		}
		return s.draw(now, w.query.Key), nil
	}
	c := s.picker.Pick(now, w.query.Key, w.ok)
	if c == nil {
		return nil, refusal(now, w)
	}
	if c.ready() || s.hopeless() {
		return c, nil
	}
	w.well = true
	if well := s.picker.Pick(now, w.query.Key, w.ok); well != nil {
		return well, nil
	}
	return c, nil
}

// hopeless reports whether all nodes had failed a moment ago.
func (s *service) hopeless() bool {
	until := s.bleak.Load()
	return until != 0 && int64(time.Since(s.began)) < until
}

// only takes the node that the call names.
func (s *service) only(now *Nodes, w *wish) (*Candidate, error) {
	c := s.member(w.query.Node)
	switch {
	case c == nil || !w.matches(c):
		return nil, fmt.Errorf("%w: none of the %d nodes of %q", ErrNoneMatch, now.Len(), w.query.Service)
	case slices.Contains(w.query.Avoid, c.ID):
		return nil, fmt.Errorf("%w: %d of %q", ErrExhausted, 1, w.query.Service)
	}
	return c, nil
}

// refusal says why there is no node for a call.
func refusal(now *Nodes, w *wish) error {
	matching := 0
	for _, c := range now.All() {
		if w.matches(c) {
			matching++
		}
	}
	if matching == 0 {
		return fmt.Errorf("%w: none of the %d nodes of %q", ErrNoneMatch, now.Len(), w.query.Service)
	}
	return fmt.Errorf("%w: %d of %q", ErrExhausted, matching, w.query.Service)
}
