package multi

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// How long an answer is held back for members that have not answered, from the question on. Members that hold what
// they know in memory are in time for the first.
const (
	graceTime    = 2 * time.Millisecond   // some member knows nodes, and all authorities have answered
	patienceTime = 250 * time.Millisecond // some member knows nodes
	hangingTime  = time.Second            // a watch: some member has answered
)

// round is one question to all members: what they have answered so far.
type round struct {
	r       *Registry
	service string
	news    chan struct{} // of one element: an answer came

	mu      sync.Mutex
	answers []answer // by member
}

type answer struct {
	given bool
	err   error // the last thing that the member gave; nodes are older then
	nodes []registry.Node
}

func (r *Registry) newRound(service string) *round {
	return &round{r: r, service: service, news: make(chan struct{}, 1), answers: make([]answer, len(r.members))}
}

// give puts a member's answer in. Not found is an answer: none.
func (q *round) give(m *member, nodes []registry.Node, err error) {
	if errors.Is(err, registry.ErrNotFound) {
		nodes, err = nil, nil
	}
	q.mu.Lock()
	a := &q.answers[m.index]
	a.given, a.err = true, err
	if err == nil {
		a.nodes = nodes
	}
	q.mu.Unlock()
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// standing is how far a round is.
type standing struct {
	all         bool // every member has answered
	authorities bool // every authority has
	any         bool // some member has
	nodes       bool // some member knows nodes
	good        bool // some member's last answer is no error
}

func (q *round) standing() standing {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := standing{all: true, authorities: true}
	for i, a := range q.answers {
		s.all = s.all && a.given
		s.any = s.any || a.given
		s.nodes = s.nodes || len(a.nodes) > 0
		s.good = s.good || a.given && a.err == nil
		if q.r.members[i].Authority {
			s.authorities = s.authorities && a.given
		}
	}
	return s
}

// hold is how long after the question an answer is held back as things stand; ok is false while there is no end.
func (s standing) hold() (d time.Duration, ok bool) {
	switch {
	case s.all:
		return 0, true
	case s.nodes && s.authorities:
		return graceTime, true
	case s.nodes:
		return patienceTime, true
	}
	return 0, false
}

// merge gives the nodes that the members know, one for each id, sorted. hidden reports whether a dead node's copy was
// left out.
func (q *round) merge() (nodes []registry.Node, hidden bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	alive := map[string]bool{}
	for i, a := range q.answers {
		if q.r.members[i].Authority {
			for _, n := range a.nodes {
				alive[n.ID] = true
			}
		}
	}
	nodes = []registry.Node{}
	seen := map[string]bool{}
	for i, a := range q.answers {
		for _, n := range a.nodes {
			switch {
			case seen[n.ID]:
				continue
			case !alive[n.ID] && q.r.dead(i, n):
				hidden = true
				continue
			}
			seen[n.ID] = true
			nodes = append(nodes, n)
		}
	}
	registry.Sort(nodes)
	return nodes, hidden
}

// dead reports whether n, as a member that is no authority has it, is the copy of a dead node.
func (r *Registry) dead(member int, n registry.Node) bool {
	for _, m := range r.members {
		if w, ok := m.witness(); ok {
			if last, died := w.Died(n.ID); died && sameStart(last, n) {
				return true
			}
		}
	}
	return r.graves.hides(member, n)
}

func (m *member) witness() (Witness, bool) {
	if !m.Authority {
		return nil, false
	}
	w, ok := m.open().(Witness)
	return w, ok
}

// failures joins what the members' last answers say.
func (q *round) failures() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var errs []error
	for i, a := range q.answers {
		if a.err != nil {
			errs = append(errs, q.r.members[i].said(a.err))
		}
	}
	return errors.Join(errs...)
}

func equal(a, b []registry.Node) bool {
	return slices.EqualFunc(a, b, registry.Node.Equal)
}
