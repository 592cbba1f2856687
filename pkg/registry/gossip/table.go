package gossip

import (
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

// When a set is asked for that is another than its owner announces.
const (
	lagTime    = 300 * time.Millisecond // the change may be on its way
	aheadTime  = 10 * time.Second       // an owner that is behind what is known of it: the announcement may be on its way
	firstAsk   = time.Second            // between two questions, doubled up to
	lastAsk    = 15 * time.Second
	maxPending = 32 // changes of a member that wait for one before them
)

// table is what a member knows: who lives, the set of each, and which node has an id. Its methods are called by memberlist, some with
// memberlist's own lock held: nothing here calls memberlist.
type table struct {
	hub *hub.Hub
	log *journal

	announce signal            // the own set, or the door, is another
	behind   signal            // a set may have to be asked for
	moved    signal            // a member came or went
	lost     func(addr string) // is told of a member that went

	mu      sync.Mutex
	self    *member
	members map[string]*member   // by name, self among them
	claims  map[string][]*member // by node id: the members that are not hidden and have it
	bytes   int                  // of all records
	own     map[string]*lease    // by node id
	touched map[string]struct{}  // ids of self's set, since version sent
	sent    uint64               // the version of self's set that the last change led to
	closed  bool
}

// member is one that lives.
type member struct {
	name    string
	node    memberlist.Node // to send to
	meta    meta
	set     map[string]entry // by node id
	size    int              // bytes of their records
	version uint64           // of set; 0 is the empty one
	hidden  bool             // a later one has its address
	pending map[uint64]change

	differs time.Time // since when set is not the one that is announced; zero: it is
	next    time.Time // not before then it is asked for again
	asked   int       // in a row
	nonce   uint64    // of the last question
}

// signal is a channel of one element.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) give() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// newTable gives the table of a member with a name, an address and a meta.
func newTable(at memberlist.Node, m meta, log *journal) *table {
	self := &member{name: at.Name, node: at, meta: m, set: map[string]entry{}}
	return &table{
		hub: hub.NewPending().Sharing(), log: log, announce: newSignal(), behind: newSignal(), moved: newSignal(),
		self: self, members: map[string]*member{at.Name: self}, claims: map[string][]*member{},
		own: map[string]*lease{}, touched: map[string]struct{}{}, lost: func(string) {},
	}
}

// join takes in that a member lives, or that its meta is another.
func (t *table) join(n *memberlist.Node) {
	m, err := decodeMeta(n.Meta)
	if err != nil || n.Name == t.self.name {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	at := t.members[n.Name]
	if at == nil {
		at = &member{name: n.Name, set: map[string]entry{}, pending: map[uint64]change{}}
		t.members[n.Name] = at
		t.moved.give()
	}
	at.node, at.meta = *n, m
	t.compare(at)
	t.rank(n.Address())
}

// leave takes in that a member is dead or has left.
func (t *table) leave(n *memberlist.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.members[n.Name]
	if at == nil || at == t.self {
		return
	}
	delete(t.members, n.Name)
	t.hide(at, true)
	t.bytes -= at.size
	t.rank(n.Address())
	if !t.closed {
		t.lost(n.Address())
	}
	t.moved.give()
}

// rank hides the members of an address but for the one that was started last. This member is never hidden.
func (t *table) rank(addr string) {
	var last *member
	var all []*member
	for _, m := range t.members {
		if m.node.Address() == addr {
			all = append(all, m)
			if last == nil || m.meta.start > last.meta.start {
				last = m
			}
		}
	}
	for _, m := range all {
		t.hide(m, m != last && m != t.self)
	}
}

// hide takes a member's nodes out of what is shown, or puts them back.
func (t *table) hide(m *member, hidden bool) {
	if m.hidden == hidden {
		return
	}
	m.hidden = hidden
	ids := make([]string, 0, len(m.set))
	for id := range m.set {
		t.claim(m, id, !hidden)
		ids = append(ids, id)
	}
	t.settle(ids)
}

// claim notes that a member has an id, or has it no more.
func (t *table) claim(m *member, id string, has bool) {
	var rest []*member
	for _, c := range t.claims[id] {
		if c != m {
			rest = append(rest, c)
		}
	}
	if has {
		rest = append(rest, m)
	}
	if t.claims[id] = rest; len(rest) == 0 {
		delete(t.claims, id)
	}
}

// store makes e what a member has under its id; nil takes it away.
func (t *table) store(m *member, id string, e *entry) {
	old, had := m.set[id]
	if had {
		m.size -= old.size
		t.bytes -= old.size
		delete(m.set, id)
	}
	if e != nil {
		m.size += e.size
		t.bytes += e.size
		m.set[id] = *e
	}
	if has := e != nil; has != had && !m.hidden {
		t.claim(m, id, has)
	}
}

// settle shows, for each id, the node of the member that has it, in one change. Where several have it the first one's stays;
// a node of this member that is another's is withdrawn.
func (t *table) settle(ids []string) {
	var put []registry.Node
	var gone []string
	for _, id := range ids {
		var best *member
		for _, m := range t.claims[id] {
			if best == nil || m.set[id].since < best.set[id].since || m.set[id].since == best.set[id].since && m.name < best.name {
				best = m
			}
		}
		if best == nil {
			gone = append(gone, id)
			continue
		}
		if _, mine := t.self.set[id]; mine && best != t.self {
			t.log.Warn("another member has a node of ours, which was registered later and is withdrawn", "node", id, "owner", best.name)
			t.drop(id)
		}
		put = append(put, best.set[id].node)
	}
	if len(put)+len(gone) > 0 {
		t.hub.Apply(put, gone)
	}
}

// state takes in the sets that another member knows, as one change.
func (t *table) state(sets []set) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ids []string
	for _, s := range sets {
		ids = append(ids, t.replace(s)...)
	}
	t.settle(compact(ids))
}

// take takes in the answer to a question.
func (t *table) take(s set) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.members[s.Owner]; m != nil && m.nonce != 0 && s.Nonce == m.nonce {
		t.settle(compact(t.replace(s)))
	}
}

// replace makes a set that of its owner, if it is a later one, or the owner's answer, and gives the ids of nodes that may be
// others now.
func (t *table) replace(s set) (ids []string) {
	m := t.members[s.Owner]
	switch {
	case t.closed || m == nil:
		return nil // of one that does not live
	case m == t.self:
		t.outrun(s.Version)
		return nil
	case s.Version <= m.version && (s.Nonce == 0 || s.Nonce != m.nonce):
		return nil
	}
	if t.bytes-m.size+s.size() > maxTotal {
		t.log.complain("a member's nodes are left out: there are too many", "owner", m.name, "nodes", len(s.Nodes))
		return nil
	}
	next := make(map[string]*entry, len(s.Nodes))
	for i := range s.Nodes {
		next[s.Nodes[i].node.ID] = &s.Nodes[i]
	}
	for id := range m.set {
		if next[id] == nil {
			ids = append(ids, id)
			t.store(m, id, nil)
		}
	}
	for id, e := range next {
		ids = append(ids, id)
		t.store(m, id, e)
	}
	m.version, m.asked, m.next = s.Version, 0, time.Time{}
	m.nonce = 0
	return append(ids, t.catchUp(m)...)
}

// change takes in a change, and reports whether it was news.
func (t *table) change(c change) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.members[c.Owner]
	switch {
	case t.closed || m == nil:
		return false
	case m == t.self:
		t.outrun(c.Version)
		return false
	case c.Version <= m.version:
		return false
	}
	if _, known := m.pending[c.Prev]; known {
		return false
	}
	if len(m.pending) >= maxPending {
		clear(m.pending) // its set is asked for
	}
	m.pending[c.Prev] = c
	t.settle(compact(t.catchUp(m)))
	return true
}

// catchUp applies the changes that wait for a member's version, and gives the ids that they touch.
func (t *table) catchUp(m *member) (ids []string) {
	for again := true; again; {
		again = false
		for prev, c := range m.pending {
			switch {
			case c.Version <= m.version:
				delete(m.pending, prev)
			case prev <= m.version:
				delete(m.pending, prev)
				if !t.fits(m, c) {
					t.log.complain("a member's change is left out: there are too many nodes", "owner", m.name)
					continue
				}
				ids = append(ids, t.apply(m, c)...)
				again = true
			}
		}
	}
	t.compare(m)
	return ids
}

// fits reports whether a change keeps to the limits.
func (t *table) fits(m *member, c change) bool {
	more := 0
	for _, e := range c.Put {
		more += e.size
	}
	return len(m.set)+len(c.Put) <= maxNodes && m.size+more <= maxSet && t.bytes+more <= maxTotal
}

func (t *table) apply(m *member, c change) (ids []string) {
	for _, id := range c.Gone {
		t.store(m, id, nil)
		ids = append(ids, id)
	}
	for i := range c.Put {
		id := c.Put[i].node.ID
		t.store(m, id, &c.Put[i])
		ids = append(ids, id)
	}
	m.version = c.Version
	return ids
}

// outrun makes the own version later than one that somebody believes it to be.
func (t *table) outrun(version uint64) {
	if version > t.self.version && version < maxVersion {
		t.self.version = version + 1
		t.sent = t.self.version // no change leads to it: all ask for the set
		t.announce.give()
	}
}

// compare notes whether a member's set is the one that is announced.
func (t *table) compare(m *member) {
	switch {
	case m.version == m.meta.version:
		m.differs, m.asked, m.next = time.Time{}, 0, time.Time{}
		return
	case m.differs.IsZero(), m.version > m.meta.version:
		m.differs = time.Now()
	}
	t.behind.give()
}

// question is what is to be asked of whom.
type question struct {
	node memberlist.Node
	want want
}

// questions gives what is to be asked now, and when to look again; the zero time where nothing lacks.
func (t *table) questions(now time.Time, nonce func() uint64) (ask []question, again time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.members {
		if m == t.self || m.differs.IsZero() {
			continue
		}
		due := m.differs.Add(lagTime)
		if m.version > m.meta.version {
			due = m.differs.Add(aheadTime)
		}
		if m.next.After(due) {
			due = m.next
		}
		if !due.After(now) {
			m.nonce = nonce()
			due = now.Add(retry.Jitter(min(firstAsk<<min(m.asked, 8), lastAsk)))
			m.next = due
			m.asked++
			ask = append(ask, question{m.node, want{From: t.self.name, Nonce: m.nonce}})
		}
		if again.IsZero() || due.Before(again) {
			again = due
		}
	}
	return ask, again
}

// known gives the sets for one whom this member meets, its own first.
func (t *table) known() []set {
	t.mu.Lock()
	defer t.mu.Unlock()
	sets, bytes := []set{t.setOf(t.self)}, t.self.size
	for _, m := range t.members {
		if m == t.self || m.version == 0 || bytes+m.size > maxState {
			continue // what is left out its owner is asked for
		}
		bytes += m.size
		sets = append(sets, t.setOf(m))
	}
	return sets
}

// mine gives the own set, as the answer to a question.
func (t *table) mine(nonce uint64) set {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.setOf(t.self)
	s.Nonce = nonce
	return s
}

func (t *table) setOf(m *member) set {
	s := set{Owner: m.name, Version: m.version, Nodes: make([]entry, 0, len(m.set))}
	for _, e := range m.set {
		s.Nodes = append(s.Nodes, e)
	}
	return s
}

// find gives a member to send to.
func (t *table) find(name string) (memberlist.Node, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.members[name]; m != nil && m != t.self {
		return m.node, true
	}
	return memberlist.Node{}, false
}

// atMost gives the other members; none where they are more.
func (t *table) atMost(most int) (others []memberlist.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.members)-1 > most {
		return nil
	}
	for _, m := range t.members {
		if m != t.self {
			others = append(others, m.node)
		}
	}
	return others
}

// others is how many members there are beside this one.
func (t *table) others() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.members) - 1
}

// admits reports whether there is room for a member, or it is one.
func (t *table) admits(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.members[name] != nil || len(t.members) < maxMembers
}

// present reports whether a member has an address.
func (t *table) present(addr string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.members {
		if m != t.self && m.node.Address() == addr {
			return true
		}
	}
	return false
}

// doorHeld reports whether a member, this one among them, has the door at a port of loopback.
func (t *table) doorHeld(port uint16) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.members {
		if m.meta.door == port {
			return true
		}
	}
	return false
}

// holdDoor says that this member has the door at a port.
func (t *table) holdDoor(port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.self.meta.door = port
	t.announce.give()
}

// meta is what is to be said of this member.
func (t *table) meta() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.self.meta.version = t.self.version
	return t.self.meta.encode()
}

// news gives the change of the own set since the last one; ok is false where there is none, or it is surely too large.
func (t *table) news() (c change, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c = change{Owner: t.self.name, Prev: t.sent, Version: t.self.version}
	size := 0
	for id := range t.touched {
		if e, has := t.self.set[id]; has {
			c.Put = append(c.Put, e)
			size += e.size
		} else {
			c.Gone = append(c.Gone, id)
			size += len(id)
		}
	}
	clear(t.touched)
	t.sent = c.Version
	return c, c.Version > c.Prev && size < maxPacket
}

// close forgets all, and ends the watches.
func (t *table) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for id := range t.own {
		t.end(id)
	}
	t.hub.Close()
}

func compact(ids []string) []string {
	seen := make(map[string]struct{}, len(ids))
	out := ids[:0]
	for _, id := range ids {
		if _, twice := seen[id]; !twice {
			seen[id] = struct{}{}
			out = append(out, id)
		}
	}
	return out
}
