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

// front is a holder over another registry. It keeps no node: what it has is what it sees there, so that any number of copies may stand
// before the same one. What the watch says may be seconds old, where the registry is busy: it is never taken for a proof that this copy does not
// hold a node.
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
	own    map[string]owned         // what this copy put, and may have lapsed
	wanted map[string]wanted        // to be put when they go, if their holder is gone then
	fading map[string]faded         // nodes that show on, though they lapsed, because their holder is gone
	turn   map[string]chan struct{} // of ids that are being changed
}

// owned is a node as this copy put it.
type owned struct {
	node  registry.Node
	until time.Time // when it lapses there; zero: never
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
		news: make(chan struct{}), label: map[string]string{}, own: map[string]owned{}, wanted: map[string]wanted{},
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
	service := n.Service
	if f.free(n.ID, labelOf(o)) {
		if err := f.put(ctx, n, ttl); !errors.Is(err, registry.ErrConflict) {
			return err
		}
		f.disown(n.ID) // somebody else has it, perhaps since a moment ago
		f.wait(ctx, visibleTime, func() bool { _, there := f.label[n.ID]; return there })
		service = "" // of any
	}
	at, err := f.find(ctx, service, n.ID, labelOf(o))
	switch {
	case err != nil:
		return err
	case !at.there || at.holder() == f.id && at.label() == labelOf(o):
		return f.put(ctx, n, ttl)
	case at.label() != labelOf(o):
		return &leases.ConflictError{ID: n.ID, Service: n.Service}
	}
	return f.elsewhere(ctx, at, n, ttl)
}

// free reports whether this copy may put a node of the label without more ado: it holds it already, or nobody does, for all that it knows.
func (f *front) free(id, label string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if own, ok := f.own[id]; ok {
		return own.node.Metadata[leaseLabel] == label
	}
	found, there := f.label[id]
	return !there || found == label && f.holder[id] == f.id
}

// end is when a node lapses that is put now.
func end(ttl time.Duration) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return time.Now().Add(ttl)
}

// owns gives a node of the label that this copy put, as it put it.
func (f *front) owns(id, label string) (registry.Node, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	own, ok := f.own[id]
	return own.node, ok && own.node.Metadata[leaseLabel] == label
}

func (f *front) disown(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.own, id)
}

// put puts a node, and returns when the watch has it.
func (f *front) put(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := f.r.Register(ctx, n, ttl); err != nil {
		return err
	}
	f.mu.Lock()
	f.own[n.ID] = owned{n, end(ttl)}
	delete(f.wanted, n.ID)
	f.mu.Unlock()
	want := plainNode(n)
	f.wait(ctx, visibleTime, func() bool { // if it takes longer, it is there all the same
		now, ok := f.hub.Lookup(n.ID)
		return ok && now.Equal(want)
	})
	return nil
}

func (f *front) Guest(ctx context.Context, o Owner, n registry.Node) error {
	f.mu.Lock()
	_, there := f.label[n.ID]
	_, mine := f.own[n.ID]
	mine = mine || f.holder[n.ID] == f.id
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
	at, err := f.find(ctx, service, id, "")
	if err != nil {
		return f.told(err)
	}
	if at.there && at.label() == "" {
		return &leases.ConflictError{ID: id, Service: service} // its owner would put it again
	}
	return f.told(f.remove(ctx, service, id, at.label()))
}

func (f *front) remove(ctx context.Context, service, id, label string) error {
	give, err := f.take(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	own, mine := f.owns(id, label)
	mine = mine && (service == "" || own.Service == service)
	at, err := f.find(ctx, service, id, label)
	there := at.there && (service == "" || at.node.Service == service)
	switch {
	case err != nil:
		return err
	case there && at.label() != label:
		return &leases.ConflictError{ID: id, Service: service}
	case !there && !mine:
		f.forget(id, label)
		return nil
	case there:
		own, mine = at.node, mine || at.holder() == f.id
	}
	f.mu.Lock()
	delete(f.wanted, id)
	f.mu.Unlock()
	if mine {
		if err = f.r.Deregister(ctx, own); err != nil && !errors.Is(err, registry.ErrConflict) {
			return err
		}
		f.disown(id)
	}
	if !mine || err != nil || there && at.holder() != f.id { // it went over to another copy
		return f.letGo(ctx, own.Service, id, label, false)
	}
	f.wait(ctx, visibleTime, func() bool { _, there := f.label[id]; return !there }) // if it takes longer, it is gone all the same
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
	for id, own := range f.own {
		if _, shows := f.label[id]; !shows && own.node.Metadata[leaseLabel] == label {
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
				errs[i] = errors.Join(errs[i], f.remove(ctx, "", id, label))
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
