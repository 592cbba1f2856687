package nats

import (
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
)

const (
	keepFollow = time.Minute      // how long a service is followed that nobody watches, after the last Get
	maxFollows = 1024             // services; beyond it those that nobody watches are dropped at once
	maxNodes   = 1 << 16          // that are kept of others
	keepGrave  = 10 * time.Second // how long the word that a node is gone outweighs what was said before
	returning  = 3 * time.Second  // after a connection was made, for owners to have theirs again too: natsconn tries at least that often
	overheard  = time.Second / 2  // NATS that takes longer to answer may have kept what owners said
	overslept  = 2 * time.Second  // a timer that is so late says that this process did not run
)

// view is what is known of the nodes of services that somebody asked for or watches: at first by a question, then by what owners
// announce. A node is kept for its lease, counted from its owner's last word; when most of that is over it is asked for again.
type view struct {
	r *Registry

	mu        sync.Mutex
	up        bool  // there is a connection
	away      error // why there is none, once that is known; or what the user may not do
	follows   map[string]*follow
	heard     map[string]*heard        // of others, by id
	graves    map[string]grave         // by id
	own       map[string]registry.Node // what stands here is known best here
	questions map[uint64]*question
	last      uint64    // the latest question's number
	sound     time.Time // NATS has answered, and what it was asked was asked then
	sounding  bool      // it is being asked
	unasked   []*asking // what the loop is to publish
	planned   time.Time // when the loop will next look at the times
	told      bool      // that nodes are left out
	starting  bool      // a goroutine waits for the first connection
}

// follow is one service that is followed, or all. Its set is pending until it is known, and failed while NATS is away.
type follow struct {
	service  string
	set      *hub.Hub
	users    int
	used     time.Time     // when there was the last of them
	question *question     // under way
	known    bool          // the set has been known
	synced   bool          // the set is what the owners said
	settled  chan struct{} // closed when synced changes, or when it will not
}

// heard is a node of another owner.
type heard struct {
	node registry.Node
	source
	last  time.Time // when its owner last spoke of it
	asked time.Time // whether it is still there; zero: not yet
}

// grave is a node that has gone.
type grave struct {
	source
	until time.Time
}

func newView(r *Registry) *view {
	return &view{
		r: r, follows: map[string]*follow{}, heard: map[string]*heard{}, graves: map[string]grave{},
		own: map[string]registry.Node{}, questions: map[uint64]*question{},
	}
}

// follow begins to use what is followed of a service, and to follow it where nobody did.
func (v *view) follow(service string) *follow {
	v.mu.Lock()
	defer v.mu.Unlock()
	f := v.follows[service]
	if f == nil {
		f = &follow{service: service, set: hub.NewPending().Sharing(), settled: make(chan struct{})}
		v.begin(f)
	}
	f.users++
	return f
}

// begin follows a service. What is followed of all is known of one at once.
func (v *view) begin(f *follow) {
	if len(v.follows) >= maxFollows {
		v.dropIdle(time.Now())
	}
	v.follows[f.service] = f
	all := v.follows[""]
	switch {
	case v.up && all != nil && all.synced:
		v.sync(f)
	case v.up:
		v.ask(f, time.Now())
	default:
		if v.away != nil {
			f.set.Fail(v.away)
		}
		v.start()
	}
}

// start sees to it that there is a first connection, or an error for those who watch.
func (v *view) start() {
	if v.starting || v.r.life.Err() != nil {
		return
	}
	v.starting = true
	v.r.work.Go(func() {
		_, err := v.r.conn.Get(v.r.life)
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.starting = false; err != nil && !v.up {
			v.fail(err)
		}
	})
}

// close ends the Registry's life: what began before is waited for, and nothing begins after.
func (v *view) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.r.end()
}

func (v *view) unfollow(f *follow) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f.users--
	f.used = time.Now()
	v.plan(f.used.Add(keepFollow))
}

// read gives a follow's nodes, or what is closed when they may be known; or why they will not be.
func (v *view) read(f *follow) (nodes []registry.Node, settled <-chan struct{}, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case f.synced:
		return f.set.List(), nil, nil
	case v.up && v.away != nil:
		return nil, nil, v.away
	}
	return nil, f.settled, nil
}

// connected takes in that there is a connection, or another one: what was missed meanwhile is asked for.
func (v *view) connected(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.up, v.away = true, nil
	v.resync(now, now.Add(returning))
}

// dropped takes in that messages were lost.
func (v *view) dropped(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.up {
		v.resync(now, now)
	}
}

// resync asks for all that is followed. Leases begin anew, at a time, as owners could not be heard.
func (v *view) resync(now, leases time.Time) {
	for _, h := range v.heard {
		h.last, h.asked = leases, time.Time{}
	}
	for _, f := range v.follows {
		v.ask(f, now)
	}
	v.plan(now)
}

// disconnected takes in that the connection is lost.
func (v *view) disconnected(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.up = false
	v.fail(err)
}

// refused takes in that NATS does not let this user do what is needed.
func (v *view) refused(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fail(err)
}

func (v *view) fail(err error) {
	v.away = err
	clear(v.questions)
	v.unasked = nil
	for _, f := range v.follows {
		f.question, f.synced = nil, false
		f.set.Fail(err)
		f.settle()
	}
}

// settle wakes those who wait for the follow.
func (f *follow) settle() {
	close(f.settled)
	f.settled = make(chan struct{})
}

// sync makes what was heard the follow's set.
func (v *view) sync(f *follow) {
	f.set.Replace(v.nodes(f.service))
	f.question, f.known, f.synced = nil, true, true
	f.settle()
}

// nodes gives what is known of a service, or of all, in no order.
func (v *view) nodes(service string) (nodes []registry.Node) {
	for _, n := range v.own {
		if service == "" || service == n.Service {
			nodes = append(nodes, n)
		}
	}
	for id, h := range v.heard {
		if _, own := v.own[id]; !own && (service == "" || service == h.node.Service) {
			nodes = append(nodes, h.node)
		}
	}
	return nodes
}

// wants reports whether a service is followed, or all are.
func (v *view) wants(service string) bool { return v.follows[service] != nil || v.follows[""] != nil }

// cares reports whether anybody wants the nodes of a service.
func (v *view) cares(service string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.wants(service)
}

// show puts a node into the sets that have its service, or takes it out.
func (v *view) show(n registry.Node, gone bool) {
	for _, service := range [...]string{n.Service, ""} {
		f := v.follows[service]
		switch {
		case f == nil || !f.known:
		case gone:
			f.set.Remove(n.ID)
		default:
			f.set.Put(n)
		}
	}
}

// hear takes in what is said of nodes.
func (v *view) hear(nodes []registry.Node, s source, gone bool, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range nodes {
		if gone {
			v.bury(n, s, now)
		} else {
			v.take(n, s, now)
		}
	}
}

// take takes in that a node is there. The latest word holds, whoever's it is: owners settle among themselves whose an id is.
func (v *view) take(n registry.Node, s source, now time.Time) {
	old := v.heard[n.ID]
	g, buried := v.graves[n.ID]
	late := old != nil && old.owner == s.owner && old.seq > s.seq || buried && s.owner != "" && g.owner == s.owner && g.seq >= s.seq
	if late || !v.wants(n.Service) && old == nil {
		return
	}
	if old == nil && len(v.heard) >= maxNodes {
		if !v.told {
			v.told = true
			v.r.o.Logger.Warn("a node is left out: too many are announced", "node", n.ID, "service", n.Service, "nodes", len(v.heard))
		}
		return
	}
	if old != nil && old.node.Service != n.Service {
		v.forget(old)
	}
	if !v.wants(n.Service) {
		return
	}
	h := &heard{node: n, source: s, last: now}
	v.heard[n.ID] = h
	v.plan(h.due())
	if _, own := v.own[n.ID]; !own {
		v.show(n, false)
	}
}

// bury takes in that a node has gone. Only who announced it can say so.
func (v *view) bury(n registry.Node, s source, now time.Time) {
	v.graves[n.ID] = grave{source: s, until: now.Add(keepGrave)}
	v.plan(now.Add(keepGrave))
	if h := v.heard[n.ID]; h != nil && h.owner == s.owner && h.seq <= s.seq && h.node.Service == n.Service {
		v.forget(h)
	}
}

// forget takes a node out of all sets.
func (v *view) forget(h *heard) {
	delete(v.heard, h.node.ID)
	if _, own := v.own[h.node.ID]; !own {
		v.show(h.node, true)
	}
}

// put takes in an own node.
func (v *view) put(n registry.Node) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if old, ok := v.own[n.ID]; ok && old.Service != n.Service {
		v.show(old, true)
	}
	v.own[n.ID] = n
	v.show(n, false)
}

// drop takes in that an own node is no more. Another's of that id may show now.
func (v *view) drop(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, ok := v.own[id]
	if !ok {
		return
	}
	delete(v.own, id)
	v.show(n, true)
	if h := v.heard[id]; h != nil {
		v.show(h.node, false)
	}
}

// foreign reports whether go-micro has announced a node with that id. Those of this project's registries answer for themselves.
func (v *view) foreign(id, service string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	h := v.heard[id]
	return h != nil && h.owner == "" && (service == "" || service == h.node.Service)
}

// due is when to do something about a node: to ask whether it is still there, then to give it up.
func (h *heard) due() time.Time {
	if !h.asked.IsZero() {
		return h.last.Add(h.lease)
	}
	return h.last.Add(h.lease * 4 / 5)
}

// tick does what is due, and gives when there is something next. idle says that no message waits to be read.
func (v *view) tick(now time.Time, idle bool) (ask []*asking, next time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.up && !v.planned.IsZero() && now.Sub(v.planned) > overslept {
		v.resync(now, now) // owners may have spoken, and were not heard
	}
	next = now.Add(keepFollow)
	if v.up {
		next = sooner(next, v.tickQuestions(now, idle))
		next = sooner(next, v.tickLeases(now, idle))
	}
	for id, g := range v.graves {
		if !now.Before(g.until) {
			delete(v.graves, id)
		}
	}
	v.dropIdle(now.Add(-keepFollow))
	v.planned = next
	ask, v.unasked = v.unasked, nil
	return ask, next
}

// tickLeases asks for nodes that have not been heard of for most of their lease, and gives up those whose lease is over.
func (v *view) tickLeases(now time.Time, idle bool) (next time.Time) {
	services := map[string]bool{}
	for _, h := range v.heard {
		if due := h.due(); now.Before(due) {
			next = sooner(next, due)
			continue
		}
		switch {
		case h.asked.IsZero():
			h.asked = now
			services[h.node.Service] = true
			v.soundOut()
		case v.sound.Before(h.asked): // it may be NATS that is gone without a word
			v.soundOut()
			continue
		case idle:
			v.forget(h)
			continue
		default: // its owner's word may be among what waits
			next = sooner(next, now.Add(tickTime))
			continue
		}
		next = sooner(next, h.due())
	}
	for service := range services {
		v.question(nil, service, now)
	}
	return next
}

// soundOut asks NATS for a sign of life. That its owner is silent says nothing of a node as long as NATS is silent, too.
func (v *view) soundOut() {
	if v.sounding || v.r.life.Err() != nil {
		return
	}
	v.sounding = true
	v.r.work.Go(func() {
		begun, sound := time.Now(), v.r.sound()
		v.mu.Lock()
		defer v.mu.Unlock()
		v.sounding = false
		now := time.Now()
		switch {
		case !v.up:
		case sound && now.Sub(begun) > overheard:
			v.resync(now, now)
		case sound:
			v.sound = begun
			v.plan(now)
		default:
			v.plan(now.Add(maxWait))
		}
	})
}

// dropIdle forgets what nobody watches and nobody has asked for since a time.
func (v *view) dropIdle(since time.Time) {
	dropped := false
	for service, f := range v.follows {
		if f.users == 0 && !f.used.After(since) {
			delete(v.follows, service)
			f.set.Close()
			dropped = true
		}
	}
	if !dropped {
		return
	}
	for id, h := range v.heard {
		if !v.wants(h.node.Service) {
			delete(v.heard, id)
		}
	}
}

// following reports whether anything is followed.
func (v *view) following() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.follows) > 0
}

// plan makes the loop look at the times then.
func (v *view) plan(at time.Time) {
	if at.Before(v.planned) || v.planned.IsZero() {
		v.planned = at
		v.r.wake()
	}
}

// sooner is the earlier of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
