package multi

import (
	"context"
	"errors"
	"fmt"
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

// tally is how the members have answered a question so far.
type tally struct {
	r    *Registry
	news chan struct{} // of one element: an answer came

	mu      sync.Mutex
	answers []answer // by member
}

type answer struct {
	given bool
	err   error // the last thing that the member gave; what it knows is older then
	some  bool  // it knows nodes
}

func newTally(r *Registry) tally {
	return tally{r: r, news: make(chan struct{}, 1), answers: make([]answer, len(r.members))}
}

// note is called with the lock held.
func (t *tally) note(m *member, some bool, err error) {
	a := &t.answers[m.index]
	a.given, a.err = true, err
	if err == nil {
		a.some = some
	}
	select {
	case t.news <- struct{}{}:
	default:
	}
}

// standing is how far a question is.
type standing struct {
	all         bool // every member has answered
	authorities bool // every authority has
	any         bool // some member has
	nodes       bool // some member knows nodes
	good        bool // some member's last answer is no error
}

func (t *tally) standing() standing {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := standing{all: true, authorities: true}
	for i, a := range t.answers {
		s.all = s.all && a.given
		s.any = s.any || a.given
		s.nodes = s.nodes || a.some
		s.good = s.good || a.given && a.err == nil
		if t.r.members[i].Authority {
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

// settle waits until no answer need be held back for members that are missing.
func (t *tally) settle(ctx context.Context, start time.Time, hold func(standing) (time.Duration, bool)) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if d, ok := hold(t.standing()); ok {
			left := time.Until(start.Add(d))
			if left <= 0 {
				return nil
			}
			timer.Reset(left)
		}
		select {
		case <-t.news:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-t.r.life.Done():
			return registry.ErrClosed
		}
	}
}

// failures joins what the members' last answers say.
func (t *tally) failures() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for i, a := range t.answers {
		if a.err != nil {
			errs = append(errs, t.r.members[i].said(a.err))
		}
	}
	return errors.Join(errs...)
}

// late notes which members have not answered.
func (t *tally) late(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, a := range t.answers {
		if !a.given {
			t.r.found(context.Background(), t.r.members[i], fmt.Errorf("no answer: %w", err))
		}
	}
}

// round is one question to all members: what they know.
type round struct {
	tally
	nodes [][]registry.Node // by member
}

func (r *Registry) newRound() *round {
	return &round{tally: newTally(r), nodes: make([][]registry.Node, len(r.members))}
}

// give puts a member's answer in. Not found is an answer: none.
func (q *round) give(m *member, nodes []registry.Node, err error) {
	if errors.Is(err, registry.ErrNotFound) {
		nodes, err = nil, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil {
		q.nodes[m.index] = nodes
	}
	q.note(m, len(nodes) > 0, err)
}

// merge gives the nodes that the members know, one for each id, sorted.
func (q *round) merge() []registry.Node {
	q.mu.Lock()
	defer q.mu.Unlock()
	alive := map[string]bool{}
	for i, known := range q.nodes {
		if q.r.members[i].Authority {
			for _, n := range known {
				alive[n.ID] = true
			}
		}
	}
	nodes := []registry.Node{}
	seen := map[string]bool{}
	for i, known := range q.nodes {
		for _, n := range known {
			if !seen[n.ID] && (alive[n.ID] || !q.r.dead(i, n)) {
				seen[n.ID] = true
				nodes = append(nodes, unstamped(n))
			}
		}
	}
	registry.Sort(nodes)
	return nodes
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

// tells reports whether what ends at this member has ended.
func (m *member) tells() bool {
	r := m.open()
	if m.Authority || r == nil {
		return false
	}
	h, ok := r.(Hearsay)
	return !ok || !h.Hearsay()
}

func (m *member) witness() (Witness, bool) {
	if !m.Authority {
		return nil, false
	}
	w, ok := m.open().(Witness)
	return w, ok
}
