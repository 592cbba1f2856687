// Package multi joins registries to one.
//
// A node is known by its id: where several members know it, the one that is listed first has the word. A member that
// cannot start, or that fails later, is reported and done without; see [Registry.Status]. Register and Watch try to start
// it again, after a second and then after up to a minute.
//
// # Deaths
//
// A registry of the network learns late that a process was killed: when a ttl is over. One of this machine sees it at
// once. Such a member is an authority: what it saw die, no other member shows any more. An authority that implements
// [Witness] tells which nodes died. Of any other, a node that it showed and shows no longer counts as dead. The copies
// of a dead node stay hidden
//
//   - until an authority shows the id again;
//   - unless a copy is of a later start than the dead node: its metadata "started" differs or, where one of them has
//     none, its address;
//   - until the member that has the copy drops it, as a watch sees it, and shows it again;
//   - two minutes at most: who still announces the node by then is not dead.
//
// # Leases that end
//
// A node that no authority knows, as it runs on another machine, has a lease in each member. When one of them says that its
// registration is over, lapsed or withdrawn, its copies in the others are hidden as well, for as long as they last there. That is safe for this reason:
//
//   - Register puts a stamp on all copies, when they were registered together: [registry.MetaRegistered] in the metadata, which Get, List
//     and Watch take off. A renewal keeps it. When a member fails that had a copy, the others get theirs with another stamp at once. So a copy
//     that lapses because its owner was cut off from that member says otherwise than those that he goes on to renew, and hides none. The
//     owner has to find out before: the leases of the members have to be longer than his renewals are apart, and
//     a request that fails takes. Those of all backends are, 30 s, with the 10 s between two renewals of a service.
//   - What counts is told by a watch that had no error before: a member that comes back, and has lost all that it had, ends nothing.
//   - A copy that the member shows again, whose word was believed, ends the matter; so do a drop by the member that has the copy, and the two minutes.
//   - A member of [Hearsay], such as gossip and mdns, is not believed. Its copies are hidden.
//
// Nodes without a stamp are not hidden so: those that each member got by itself, those without a ttl, and those of a multi in
// which only one member is no authority. Who asks for a service, and watches none, has such members watched for a minute after each
// question: a death that was before the first question nobody tells him.
//
// # Waiting
//
// Get answers when the authorities have answered and some member knows a node; members that are not as fast are left
// behind. List waits for all members, or for its context. The first set of a Watch comes as Get's answer does, though
// after a second at the latest; what slower members know comes in the sets after it.
package multi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Member is one of the registries that are joined.
type Member struct {
	// Name is for reports: "local". Required.
	Name string
	// Registry is the member; or
	Registry registry.Registry
	// Open opens it. Exactly one of the two is given. It is called again where it fails.
	Open func(ctx context.Context) (registry.Registry, error)
	// Authority: what this member saw die is dead.
	Authority bool
	// Takes, where it is set, says which nodes are registered here: one for which it is false is the other members' alone.
	Takes func(registry.Node) bool
}

// takes reports whether a node is registered here.
func (m *Member) takes(n registry.Node) bool { return m.Takes == nil || m.Takes(n) }

// Witness is what an authority may implement to tell deaths from other reasons for which a node may be missing.
type Witness interface {
	// Died gives the node with that id as it last was, if the registry saw its owner die and nobody has registered the
	// id since. It does not block. The registry may forget deaths after two minutes.
	Died(id string) (registry.Node, bool)
}

// Hearsay is what a member's registry may implement with which the nodes' owners do not notice that others lose sight of them, since there is
// no server between them: what it shows no longer need not be dead.
type Hearsay interface {
	// Hearsay reports whether that is so.
	Hearsay() bool
}

// Options of Join. The zero value is good.
type Options struct {
	// Logger is told when a member fails and when it is back. Nil: nobody is.
	Logger *slog.Logger
}

// Registry is several registries joined. Its methods may be called concurrently.
type Registry struct {
	logger  *slog.Logger
	members []*member // in order
	graves  *graves

	life context.Context // ends with Close
	end  context.CancelFunc

	mu       sync.Mutex
	closed   bool
	busy     sync.WaitGroup      // goroutines that ask members
	own      map[string]*promise // ids that were registered here
	stamped  time.Time           // the last stamp
	attended map[string]*attention
}

var (
	_ registry.Registry      = (*Registry)(nil)
	_ registry.ChangeWatcher = (*Registry)(nil)
)

// member is a Member and how it fares.
type member struct {
	Member
	index int // in Registry.members

	mu       sync.Mutex
	find     error            // of Open, then of the last question; nil if it was answered
	register map[string]error // by node id: registrations that failed
}

// memberError is what a member said, with the member's name in the place of package registry's.
type memberError struct {
	member string
	err    error
}

func (e *memberError) Error() string {
	return e.member + ": " + strings.TrimPrefix(strings.TrimPrefix(e.err.Error(), "registry: "), e.member+": ")
}

func (e *memberError) Unwrap() error { return e.err }

// said gives a member's error to a caller.
func (m *member) said(err error) error { return fmt.Errorf("registry: %w", &memberError{m.Name, err}) }

// New joins members, and owns them from here on: Close closes them, and so does New where it gives an error. It is an
// error if none starts, or if one is badly given.
func New(members ...Member) (*Registry, error) {
	return Join(context.Background(), Options{}, members...)
}

// Join is New with options, and with a context for the members' Open.
func Join(ctx context.Context, o Options, members ...Member) (*Registry, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Registry{logger: o.Logger, graves: newGraves(), own: map[string]*promise{}, attended: map[string]*attention{}}
	r.life, r.end = context.WithCancel(context.Background())
	if err := check(members); err != nil {
		return nil, errors.Join(err, r.discard(members))
	}
	var opening sync.WaitGroup
	for _, m := range members {
		started := &member{Member: m, register: map[string]error{}}
		r.members = append(r.members, started)
		if m.Registry == nil {
			opening.Go(func() { started.Registry, started.find = m.Open(ctx) })
		}
	}
	opening.Wait()
	var failed []error
	for i, m := range r.members {
		if m.index = i; m.find != nil {
			m.Registry = newLate(m.Member, m.find)
			failed = append(failed, &memberError{m.Name, m.find})
			r.logger.Warn("registry member did not start, doing without", "member", m.Name, "error", m.find)
		}
	}
	if len(failed) == len(r.members) {
		r.end()
		return nil, fmt.Errorf("registry: no member started: %w", errors.Join(failed...))
	}
	return r, nil
}

func check(members []Member) error {
	if len(members) == 0 {
		return errors.New("registry: multi has no members")
	}
	names := map[string]bool{}
	for i, m := range members {
		switch {
		case m.Name == "":
			return fmt.Errorf("registry: multi: member %d has no name", i)
		case names[m.Name]:
			return fmt.Errorf("registry: multi: member %q stands twice", m.Name)
		case (m.Registry == nil) == (m.Open == nil):
			return fmt.Errorf("registry: multi: member %q needs either Registry or Open", m.Name)
		}
		names[m.Name] = true
	}
	return nil
}

// discard closes members that will not be used.
func (r *Registry) discard(members []Member) error {
	r.end()
	var errs []error
	for _, m := range members {
		if m.Registry != nil {
			errs = append(errs, m.Registry.Close())
		}
	}
	return errors.Join(errs...)
}

// Status tells how one member fares.
type Status struct {
	Name    string
	Started bool  // false: Open has failed so far, and the member is done without
	Err     error // why it did not start, or what failed when it was last asked; nil: all is well
}

// Status tells how the members fare, in their order.
func (r *Registry) Status() []Status {
	out := make([]Status, 0, len(r.members))
	for _, m := range r.members {
		m.mu.Lock()
		errs := []error{m.find}
		for _, err := range m.register {
			errs = append(errs, err)
		}
		m.mu.Unlock()
		out = append(out, Status{Name: m.Name, Started: m.open() != nil, Err: errors.Join(errs...)})
	}
	return out
}

// Close closes all members. The errors of those that fail are joined.
func (r *Registry) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		r.busy.Wait()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	r.end()
	errs := make([]error, len(r.members))
	var closing sync.WaitGroup
	for i, m := range r.members {
		closing.Go(func() {
			if err := m.Registry.Close(); err != nil {
				errs[i] = m.said(err)
			}
		})
	}
	closing.Wait()
	r.busy.Wait()
	return errors.Join(errs...)
}

// begin says that count goroutines are about to ask members. It gives false after Close.
func (r *Registry) begin(count int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.busy.Add(count)
	return true
}

// found notes how m's last answer went.
func (r *Registry) found(ctx context.Context, m *member, err error) {
	if errors.Is(err, registry.ErrNotFound) {
		err = nil
	}
	if errors.Is(ctx.Err(), context.Canceled) || r.life.Err() != nil { // left behind: no fault of the member's
		return
	}
	m.mu.Lock()
	was := m.find
	m.find = err
	m.mu.Unlock()
	switch {
	case err != nil && was == nil:
		r.logger.Warn("registry member fails", "member", m.Name, "error", err)
	case err == nil && was != nil:
		r.logger.Info("registry member is back", "member", m.Name)
	}
}

// registered notes how m took a registration.
func (r *Registry) registered(m *member, id string, err error) {
	m.mu.Lock()
	_, was := m.register[id]
	delete(m.register, id)
	if err != nil {
		m.register[id] = fmt.Errorf("register %s: %w", id, err)
	}
	m.mu.Unlock()
	switch {
	case err != nil && !was:
		r.logger.Warn("registry member does not take the node", "member", m.Name, "node", id, "error", err)
	case err == nil && was:
		r.logger.Info("registry member takes the node again", "member", m.Name, "node", id)
	}
}
