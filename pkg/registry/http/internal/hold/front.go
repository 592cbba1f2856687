package hold

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	leases "github.com/cb02dfca/micro/pkg/registry/internal/lease"
	"github.com/cb02dfca/micro/pkg/status"
)

// A server that keeps its nodes in another registry puts these labels into their metadata there, and takes them off again.
const (
	leaseLabel = "registry.lease" // tells the owner, by a hash of his secret
	copyLabel  = "registry.copy"  // the copy of the server that put the node
)

// copies is the service of the hidden nodes by which copies know of each other, and ask each other: to let go of a node, or to renew it.
const (
	copies       = "micro.registry.copy"
	askKind      = "ask" // of a request: askLetGo or askRenew; a copy's own node has none
	askLetGo     = "let-go"
	askRenew     = "renew"
	askNode      = "node"
	askTTL       = "ttl"
	askLease     = 10 * time.Second
	askTime      = 2 * time.Second // for another copy to do as it is asked
	presenceTTL  = 3 * time.Second // far shorter than most leases: who holds a node that lapses has to be known for dead before
	presenceTime = presenceTTL / 3 // between two renewals of it
	visibleTime  = 2 * time.Second // for what was put to come back by the watch
	readyTime    = 2 * time.Second // for the first set
	succeedTime  = 5 * time.Second // for one try to put a node whose holder is gone
	fadingTime   = succeedTime     // how long a node shows that lapsed because its holder is gone: another copy puts it again
	releaseTime  = 10 * time.Second
	parallelAsks = 16 // requests to the registry at one time, of one client's that leaves
)

// front is a holder over another registry. It keeps no node: what it has is what it sees there, so that any number of copies may stand
// before the same one.
//
// There a node belongs to the copy that put it, which is the one that its owner happened to reach, and others cannot change it. So the
// record says whose it is, and a copy to which the owner comes with a node that another one holds asks that one to renew it, or to let it
// go: by a hidden node of the service copies, which all copies see. Where that one is no more, the node lapses, and is put the moment that it
// does; in between the copies show it on.
type front struct {
	r      registry.Registry
	name   string
	id     string // of this copy
	logger *slog.Logger
	hub    *hub.Hub
	life   context.Context
	end    context.CancelFunc
	busy   sync.WaitGroup

	mu     sync.Mutex
	away   bool
	news   chan struct{}            // closed, and made anew, with each change
	label  map[string]string        // of the nodes that are there, by id; empty: its owner is no client of a server
	holder map[string]string        // the copies that hold them
	alive  map[string]bool          // copies
	own    map[string]registry.Node // as this copy put them
	wanted map[string]wanted        // to be put when they go, if their holder is gone then
	fading map[string]faded         // nodes that show on, though they lapsed, because their holder is gone
	turn   map[string]chan struct{} // of ids that are being changed
}

// wanted is a node that another copy holds, and whose owner came to this one.
type wanted struct {
	node  registry.Node
	until time.Time
}

// faded is whose node that was, and until when it shows.
type faded struct {
	label string
	until time.Time
}

// isRefusal reports whether a registry does not take this server's login, or its login has no right to what it asks for.
func isRefusal(err error) bool {
	return errors.Is(err, &status.Error{Code: status.Unauthenticated}) || errors.Is(err, &status.Error{Code: status.PermissionDenied})
}

// newFront gives an error where the registry refuses the server's login. One that is away will come back.
func newFront(o Options) (*front, error) {
	f := &front{
		r: o.Registry, name: o.RegistryName, id: "copy-" + wire.Random(8), holder: map[string]string{}, alive: map[string]bool{}, logger: o.Logger,
		// A revision of one copy means nothing to another, which has to see that.
		hub:  hub.NewPending().Sharing().Remembering(history, rand.Uint64N(1<<52)),
		news: make(chan struct{}), label: map[string]string{}, own: map[string]registry.Node{}, wanted: map[string]wanted{},
		fading: map[string]faded{}, turn: map[string]chan struct{}{},
	}
	f.life, f.end = context.WithCancel(context.Background())
	waiting, cancel := context.WithTimeout(f.life, readyTime)
	defer cancel()
	var err error
	f.busy.Go(f.watch)
	first := make(chan struct{})
	f.busy.Go(func() {
		err = f.r.Register(waiting, message(f.id, nil), presenceTTL)
		close(first)
		if isRefusal(err) {
			cancel()
			return
		}
		f.present()
	})
	_ = f.until(waiting, f.hub.Known) // if it takes longer, clients are told so
	<-first
	if isRefusal(err) {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// present says that this copy is there.
func (f *front) present() {
	tick := time.NewTicker(presenceTime)
	defer tick.Stop()
	self := message(f.id, nil)
	for {
		select {
		case <-f.life.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(f.life), askTime)
			defer cancel()
			_ = f.r.Deregister(ctx, self) // or it lapses
			return
		case <-tick.C:
		}
		f.sweep(time.Now())
		ctx, cancel := context.WithTimeout(f.life, presenceTTL)
		_ = f.r.Register(ctx, self, presenceTTL) // the watch tells when the registry is away
		cancel()
	}
}

// sweep forgets the wanted nodes whose owners do not come any more.
func (f *front) sweep(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.wanted, func(_ string, w wanted) bool { return now.After(w.until) })
}

// message is a hidden node by which copies speak.
func message(id string, labels map[string]string) registry.Node {
	n := registry.Node{ID: id, Service: copies, Address: "127.0.0.1:1", Metadata: map[string]string{registry.MetaHidden: "true"}}
	maps.Copy(n.Metadata, labels)
	return n
}

// watch keeps the set. While the registry is away, what was known stays.
func (f *front) watch() {
	for c, err := range registry.WatchChanges(f.life, f.r, "") {
		f.mu.Lock()
		if f.away != (err != nil) {
			f.away = err != nil
			if f.away {
				f.logger.Warn("registry server does not reach its registry", "registry", f.name, "error", err)
			} else {
				f.logger.Info("registry server reaches its registry again", "registry", f.name)
			}
		}
		if err == nil {
			f.apply(c)
		}
		f.mu.Unlock()
	}
}

// apply takes in what changed. It is called with the lock held.
func (f *front) apply(c registry.Change) {
	put := make([]registry.Node, 0, len(c.Put))
	lapsed := f.lapsed(c.Gone)
	if c.Reset {
		for id := range f.wanted {
			if !f.alive[f.holder[id]] {
				lapsed = append(lapsed, id)
			}
		}
		clear(f.label)
		clear(f.holder)
		clear(f.alive)
		clear(f.fading)
	}
	var gone []string
	for _, id := range c.Gone {
		delete(f.label, id)
		delete(f.own, id)
		if _, shows := f.fading[id]; !shows {
			delete(f.holder, id)
			gone = append(gone, id)
		}
	}
	for _, n := range c.Put {
		if n.Service == copies {
			f.alive[n.ID] = true
			f.asked(n)
			continue
		}
		f.label[n.ID], f.holder[n.ID] = n.Metadata[leaseLabel], n.Metadata[copyLabel]
		delete(f.fading, n.ID)
		put = append(put, plainNode(n))
	}
	if c.Reset {
		f.hub.Replace(put)
		for id := range f.own {
			if _, still := f.label[id]; !still {
				delete(f.own, id)
			}
		}
	} else {
		f.hub.Apply(put, gone)
	}
	f.succeed(lapsed)
	close(f.news)
	f.news = make(chan struct{})
}

// lapsed gives those of the nodes that go whose holder is no more: their owners have not withdrawn them, and may have come to another copy,
// which puts them again. They show a while longer. It is called with the lock held.
func (f *front) lapsed(gone []string) (ids []string) {
	for _, id := range gone {
		delete(f.alive, id) // a copy goes before its nodes
	}
	for _, id := range gone {
		if _, there := f.label[id]; !there {
			continue
		}
		if label, holder := f.label[id], f.holder[id]; label != "" && holder != f.id && !f.alive[holder] {
			ids = append(ids, id)
			f.fading[id] = faded{label, time.Now().Add(fadingTime)}
		} else {
			delete(f.wanted, id)
		}
	}
	if len(ids) > 0 {
		f.busy.Go(func() {
			select {
			case <-f.life.Done():
			case <-time.After(fadingTime):
				f.fade(ids)
			}
		})
	}
	return ids
}

// fade takes away what nobody has put again.
func (f *front) fade(ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	var gone []string
	for _, id := range ids {
		if w, ok := f.fading[id]; ok && !w.until.After(now) {
			delete(f.fading, id)
			delete(f.holder, id)
			gone = append(gone, id)
		}
	}
	if len(gone) > 0 {
		f.hub.Apply(nil, gone)
		close(f.news)
		f.news = make(chan struct{})
	}
}

// asked does what another copy asks for. It is called with the lock held.
func (f *front) asked(n registry.Node) {
	id, kind := n.Metadata[askNode], n.Metadata[askKind]
	if _, mine := f.own[id]; !mine || kind == "" {
		return
	}
	f.busy.Go(func() {
		ctx, cancel := context.WithTimeout(f.life, askTime)
		defer cancel()
		give, err := f.take(ctx, id)
		if err != nil {
			return
		}
		defer give()
		f.mu.Lock()
		held, mine := f.own[id]
		f.mu.Unlock()
		if !mine || n.Metadata[leaseLabel] != held.Metadata[leaseLabel] { // it has gone meanwhile, or is another's
			return
		}
		if ttl, bad := time.ParseDuration(n.Metadata[askTTL]); kind == askRenew && bad == nil {
			err = f.r.Register(ctx, held, ttl)
		} else if err = f.r.Deregister(ctx, held); err == nil {
			f.disown(id)
		}
		if err != nil && f.life.Err() == nil {
			f.logger.Warn("registry server cannot do as another copy of it asks", "node", id, "ask", kind, "error", err)
		}
	})
}

func (f *front) disown(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.own, id)
}

// succeed puts those of the nodes that are wanted here, and that nobody holds. It is called with the lock held.
func (f *front) succeed(ids []string) {
	for _, id := range ids {
		w, ok := f.wanted[id]
		if _, there := f.label[id]; !ok || there {
			continue
		}
		delete(f.wanted, id)
		f.busy.Go(func() {
			ctx, cancel := context.WithTimeout(f.life, succeedTime)
			defer cancel()
			give, err := f.take(ctx, id)
			if err != nil {
				return
			}
			defer give()
			f.mu.Lock()
			_, mine := f.own[id]
			f.mu.Unlock()
			left := time.Until(w.until)
			if mine || left <= 0 { // its owner was faster, or does not come any more
				return
			}
			err = f.put(ctx, w.node, left)
			if err != nil && !errors.Is(err, registry.ErrConflict) && f.life.Err() == nil { // another copy may have been faster
				f.logger.Warn("registry server cannot take a node over", "node", id, "error", err)
			}
		})
	}
}

// plainNode gives a node without the labels of this file.
func plainNode(n registry.Node) registry.Node {
	if _, ok := n.Metadata[leaseLabel]; ok {
		n.Metadata = maps.Clone(n.Metadata)
		delete(n.Metadata, copyLabel)
		if delete(n.Metadata, leaseLabel); len(n.Metadata) == 0 {
			n.Metadata = nil
		}
	}
	return n
}

// labelled gives a node with the labels of its owner and of this copy.
func (f *front) labelled(n registry.Node, o Owner) registry.Node {
	n = n.Clone()
	if n.Metadata == nil {
		n.Metadata = map[string]string{}
	}
	n.Metadata[leaseLabel], n.Metadata[copyLabel] = labelOf(o), f.id
	return n
}

func labelOf(o Owner) string { return hex.EncodeToString(o[:16]) }

// take takes the turn to change a node.
func (f *front) take(ctx context.Context, id string) (give func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.turn[id] != nil {
		other := f.turn[id]
		f.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
		}
		f.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	mine := make(chan struct{})
	f.turn[id] = mine
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.turn, id)
		close(mine)
	}, nil
}

// until waits until a condition holds, which is looked at with the lock held after each change.
func (f *front) until(ctx context.Context, holds func() bool) error {
	for {
		f.mu.Lock()
		news, ok := f.news, holds()
		f.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		case <-f.life.Done():
			return registry.ErrClosed
		}
	}
}

// holds tells whose a node is: of the label, and so this copy's or another one's, or of somebody else. What the watch says may be a moment
// old: where sure is set, and before it is somebody else's, the registry is asked.
func (f *front) holds(ctx context.Context, service, id, label string, sure bool) (there, mine, other bool, err error) {
	f.mu.Lock()
	found, there := f.label[id]
	_, mine = f.own[id]
	f.mu.Unlock()
	if there && found == label && (mine || !sure) || !there && !sure {
		return there, mine, false, nil
	}
	if n, ok := f.hub.Lookup(id); ok && there {
		service = n.Service
	}
	find := func() ([]registry.Node, error) { return f.r.Get(ctx, service) }
	if service == "" { // who takes a node away may not know
		find = func() ([]registry.Node, error) { return f.r.List(ctx) }
	}
	nodes, err := find()
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		return there, mine, true, err
	}
	for _, now := range nodes {
		if now.ID != id {
			continue
		}
		if now.Metadata[leaseLabel] != label {
			return true, false, true, nil
		}
		waiting, cancel := context.WithTimeout(ctx, visibleTime)
		defer cancel()
		err := f.until(waiting, func() bool { found, mine = f.label[id], f.own[id].ID == id; return found == label })
		return true, mine, false, err
	}
	return false, false, false, nil
}

func (f *front) Register(ctx context.Context, o Owner, n registry.Node, ttl time.Duration) error {
	return f.told(f.register(ctx, o, n, ttl))
}

// told gives the error of a request to a client: that the registry refuses this server is none of his faults, and none of his business.
func (f *front) told(err error) error {
	if !isRefusal(err) {
		return err
	}
	f.logger.Warn("registry server may not change its registry", "registry", f.name, "error", err)
	return fmt.Errorf("%w: the server may not change its own registry", registry.ErrUnavailable)
}

func (f *front) register(ctx context.Context, o Owner, n registry.Node, ttl time.Duration) error {
	if _, err := leases.Encode(n); err != nil {
		return err
	}
	if o == (Owner{}) {
		return status.New(status.Unimplemented, "a server before another registry registers no nodes that are wire.Nobody's")
	}
	give, err := f.take(ctx, n.ID)
	if err != nil {
		return err
	}
	defer give()
	n = f.labelled(n, o)
	label := labelOf(o)
	there, mine, other, err := f.holds(ctx, n.Service, n.ID, label, false)
	if err == nil && there && !mine {
		there, mine, other, err = f.holds(ctx, n.Service, n.ID, label, true)
	}
	switch {
	case err != nil:
		return err
	case other:
		return &leases.ConflictError{ID: n.ID, Service: n.Service}
	case there && !mine:
		return f.elsewhere(ctx, n, label, ttl)
	}
	if err = f.put(ctx, n, ttl); !errors.Is(err, registry.ErrConflict) {
		return err
	}
	// Somebody else has just put it.
	if _, _, other, late := f.holds(ctx, n.Service, n.ID, label, true); late != nil || other {
		return errors.Join(late, err)
	}
	return f.elsewhere(ctx, n, label, ttl)
}

// elsewhere puts a node of the label that another copy holds.
func (f *front) elsewhere(ctx context.Context, n registry.Node, label string, ttl time.Duration) error {
	now, ok := f.hub.Lookup(n.ID)
	same := ok && now.Equal(plainNode(n))
	f.mu.Lock()
	_, there := f.label[n.ID]
	dead := !f.alive[f.holder[n.ID]]
	if there && (same || dead) {
		f.wanted[n.ID] = wanted{n, time.Now().Add(ttl)}
	}
	f.mu.Unlock()
	switch {
	case !there:
		return f.put(ctx, n, ttl)
	case same && dead:
		return nil // it is there, and is to stay
	case dead:
		return fmt.Errorf("%w: %s is held by a copy of this server that is gone: it changes when its lease ends", registry.ErrUnavailable, n.ID)
	case same:
		f.busy.Go(func() {
			_ = f.ask(f.life, n.ID, map[string]string{leaseLabel: label, askKind: askRenew, askTTL: ttl.String()}, func() bool { return false })
		})
		return nil
	}
	if err := f.letGo(ctx, n.ID, label); err != nil {
		return err
	}
	return f.put(ctx, n, ttl)
}

// put puts a node, and returns when the watch has it.
func (f *front) put(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := f.r.Register(ctx, n, ttl); err != nil {
		return err
	}
	f.mu.Lock()
	f.own[n.ID] = n
	delete(f.wanted, n.ID)
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, visibleTime)
	defer cancel()
	want := plainNode(n)
	_ = f.until(ctx, func() bool { // if it takes longer, it is there all the same
		now, ok := f.hub.Lookup(n.ID)
		return ok && now.Equal(want)
	})
	return nil
}

// letGo asks the copy that holds a node to let go of it, and waits until it has.
func (f *front) letGo(ctx context.Context, id, label string) error {
	err := f.ask(ctx, id, map[string]string{leaseLabel: label, askKind: askLetGo}, func() bool { _, there := f.label[id]; return !there })
	if err != nil {
		return fmt.Errorf("%w: %s is held by another copy of this server, which does not let go: it lapses with its lease", registry.ErrUnavailable, id)
	}
	return nil
}

// ask asks the copy that holds a node, and waits until that is done.
func (f *front) ask(ctx context.Context, id string, labels map[string]string, done func() bool) error {
	labels[askNode] = id
	request := message("ask-"+wire.Random(8), labels)
	if err := f.r.Register(ctx, request, askLease); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
		defer cancel()
		_ = f.r.Deregister(ctx, request) // or it lapses
	}()
	waiting, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return f.until(waiting, done)
}

func (f *front) Guest(ctx context.Context, o Owner, n registry.Node) error {
	f.mu.Lock()
	_, there := f.label[n.ID]
	_, mine := f.own[n.ID]
	f.mu.Unlock()
	if there && !mine {
		return &leases.ConflictError{ID: n.ID, Service: n.Service} // of another copy's bridge, perhaps
	}
	return f.Register(ctx, o, n, 0)
}

func (f *front) Deregister(ctx context.Context, o Owner, service, id string) error {
	return f.told(f.remove(ctx, service, id, labelOf(o)))
}

func (f *front) Evict(ctx context.Context, service, id string) error {
	f.mu.Lock()
	label, there := f.label[id]
	f.mu.Unlock()
	if there && label == "" {
		return &leases.ConflictError{ID: id, Service: service} // its owner would put it again
	}
	return f.told(f.remove(ctx, service, id, label))
}

func (f *front) remove(ctx context.Context, service, id, label string) error {
	give, err := f.take(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	there, mine, other, err := f.holds(ctx, service, id, label, true)
	n, known := f.hub.Lookup(id)
	switch {
	case err != nil:
		return err
	case !there || known && service != "" && n.Service != service:
		f.forget(id, label)
		return nil
	case other:
		return &leases.ConflictError{ID: id, Service: service}
	}
	f.mu.Lock()
	delete(f.wanted, id)
	held := f.own[id]
	f.mu.Unlock()
	if mine {
		err = f.r.Deregister(ctx, held)
	}
	if !mine || errors.Is(err, registry.ErrConflict) { // it went over to another copy
		return f.letGo(ctx, id, label)
	}
	if err != nil {
		return err
	}
	f.disown(id)
	waiting, cancel := context.WithTimeout(ctx, visibleTime)
	defer cancel()
	_ = f.until(waiting, func() bool { _, there := f.label[id]; return !there }) // if it takes longer, it is gone all the same
	return nil
}

// forget drops a node that has lapsed, and that its owner wants no more.
func (f *front) forget(id, label string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w, ok := f.wanted[id]; ok && w.node.Metadata[leaseLabel] == label {
		delete(f.wanted, id)
	}
	if w, ok := f.fading[id]; ok && w.label == label {
		delete(f.fading, id)
		delete(f.holder, id)
		f.hub.Apply(nil, []string{id})
	}
}

// Release goes on when the client does not wait for it: it leaves.
func (f *front) Release(ctx context.Context, o Owner) error {
	label := labelOf(o)
	f.mu.Lock()
	var ids []string
	for id, l := range f.label {
		if l == label {
			ids = append(ids, id)
		}
	}
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	var removing sync.WaitGroup
	errs := make([]error, parallelAsks)
	for i, part := range slices.Collect(slices.Chunk(ids, len(ids)/parallelAsks+1)) {
		removing.Go(func() {
			for _, id := range part {
				if n, ok := f.hub.Lookup(id); ok {
					errs[i] = errors.Join(errs[i], f.remove(ctx, n.Service, id, label))
				}
			}
		})
	}
	removing.Wait()
	return f.told(errors.Join(errs...))
}

func (f *front) Nodes() *hub.Hub { return f.hub }

// Epoch is the same for all copies over the same registry.
func (f *front) Epoch() string {
	sum := sha256.Sum256([]byte("registry\x00" + f.name))
	return hex.EncodeToString(sum[:wire.EpochBytes])
}

func (f *front) Kept() bool { return true }

func (f *front) State() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return "away"
	}
	return ""
}

func (f *front) Failed() <-chan struct{} { return nil }

func (f *front) Err() error { return nil }

// Close leaves the registry open, and the nodes in it.
func (f *front) Close() error {
	f.end()
	f.hub.Close()
	f.busy.Wait()
	return nil
}
