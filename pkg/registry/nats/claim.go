package nats

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	leases "github.com/cb02dfca/micro/pkg/registry/internal/lease"
)

// Whoever holds an id subscribes to its subject. To take one, a registry subscribes to it as well, and then claims it there:
// NATS says at once that nobody else is there, or the others say which of them holds it. As each subscribes before it claims, of two that
// claim at the same time one hears of the other at least, and both settle it the same way. An owner that dies, or is cut off, is no
// subscriber any more. Two that were apart find each other by the claims that they repeat with each announcement.

// claim is what is published on the subject of an id.
type claim struct {
	Owner   string `json:"owner"`
	Since   int64  `json:"since"`            // when it began, nanoseconds of the wall clock
	Taken   bool   `json:"taken"`            // nobody stood against it before
	Service string `json:"service"`          // the node's
	Asking  bool   `json:"asking,omitempty"` // nothing is claimed, it is only asked who is there
}

// reply is the answer to a claim. Held is false of somebody who gives way.
type reply struct {
	Held    bool   `json:"held"`
	Service string `json:"service"`
	gone    bool   // nobody is there, or answers
	told    bool   // NATS has said so
}

const claimTries = 16

// In a cluster a subscription is known at the other servers a moment after it stands: what is published meanwhile at those does not
// come, and claims of two may miss each other. So an id is claimed again after spreadTime, and a new node announced, and claimed,
// again after spreadLater, for servers that are far apart.
const (
	spreadTime  = 50 * time.Millisecond
	spreadLater = time.Second
)

// claimTime is how long the holder of an id has to answer. One that does not, though NATS has its subscription, is a process
// that stands still: its nodes lapse.
const claimTime = time.Second

func conflict(id, service string) error { return &leases.ConflictError{ID: id, Service: service} }

// take claims an id for a node that is not held yet.
func (k *keeper) take(ctx context.Context, nc *nats.Conn, id, service string) (*held, error) {
	h := &held{since: time.Now().UnixNano()}
	h.node.ID, h.service = id, service
	var err error
	if h.sub, err = nc.ChanSubscribe(k.r.nodeSubject(id), k.r.in); err != nil {
		return nil, k.r.conn.Error(err)
	}
	k.mu.Lock()
	if k.query == nil {
		k.query, err = nc.ChanSubscribe(k.r.querySubject(), k.r.in)
	}
	k.own[id] = h
	k.mu.Unlock()
	if err != nil {
		k.drop(h)
		return nil, k.r.conn.Error(err)
	}
	if err := k.win(ctx, h); err != nil {
		k.drop(h)
		return nil, err
	}
	return h, nil
}

// win claims an id until nobody is left who could hold it. Whoever gives way does not speak for the rest. In a cluster, that nobody is
// there is asked twice: the other servers learn of a subscription a moment after it stands.
func (k *keeper) win(ctx context.Context, h *held) error {
	id, service := h.node.ID, h.service
	asked := false
	for range claimTries {
		said, err := k.ask(ctx, id, func(inbox string) *nats.Msg {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.claimMsg(h, inbox)
		})
		if err != nil {
			return err
		}
		again := said.told && !asked && k.r.clustered()
		k.mu.Lock()
		denied, lost := k.denied, k.own[id] != h
		h.taken = !lost && said.gone && !again
		k.mu.Unlock()
		switch {
		case denied != nil:
			return denied
		case said.Held || lost || k.r.view.foreign(id, ""):
			return conflict(id, service)
		case said.gone && !again:
			return nil
		case again:
			asked = true
			select {
			case <-time.After(spreadTime):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return conflict(id, service)
}

// clustered reports whether NATS is more than one server.
func (r *Registry) clustered() bool {
	nc := r.nc.Load()
	return nc != nil && nc.ConnectedClusterName() != ""
}

// held gives an ErrConflict where another owner holds a node.
func (k *keeper) held(ctx context.Context, id, service string) error {
	said, err := k.ask(ctx, id, func(inbox string) *nats.Msg {
		return message(k.r.nodeSubject(id), inbox, claim{Owner: k.r.owner, Asking: true})
	})
	if err == nil && (said.Held && said.Service == service || k.r.view.foreign(id, service)) {
		err = conflict(id, service)
	}
	return err
}

// ask publishes a claim, and gives the reply of whoever answers first.
func (k *keeper) ask(ctx context.Context, id string, claim func(inbox string) *nats.Msg) (reply, error) {
	k.mu.Lock()
	k.claim++
	number, answer := k.claim, make(chan reply, 1)
	k.claims[number] = answer
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.claims, number)
	}()
	if err := k.r.conn.Publish(ctx, claim(k.r.inbox+".c"+strconv.FormatUint(number, 10))); err != nil {
		return reply{}, err
	}
	late := time.NewTimer(claimTime)
	defer late.Stop()
	select {
	case said := <-answer:
		return said, nil
	case <-late.C:
		k.r.o.Logger.Warn("the holder of a node's id does not answer, and is taken for dead", "node", id)
		return reply{gone: true}, nil
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
}

// replied hands a reply to who waits for it.
func (k *keeper) replied(number uint64, m *nats.Msg) {
	none := nobody(m)
	said := reply{gone: none, told: none}
	if !said.gone && json.Unmarshal(m.Data, &said) != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case k.claims[number] <- said:
	default: // nobody waits any more, or there was a reply before
	}
}

// claimMsg claims an id that is held. It is called with the lock held.
func (k *keeper) claimMsg(h *held, inbox string) *nats.Msg {
	return message(k.r.nodeSubject(h.node.ID), inbox, claim{Owner: k.r.owner, Since: h.since, Taken: h.taken, Service: h.service})
}

func message(subject, reply string, value any) *nats.Msg {
	data, _ := json.Marshal(value) // of text and numbers
	return &nats.Msg{Subject: subject, Reply: reply, Data: data}
}

// claimed takes in that another claims an id, or asks who holds it.
func (k *keeper) claimed(id string, m *nats.Msg) {
	var c claim
	nc := k.r.nc.Load()
	if json.Unmarshal(m.Data, &c) != nil || c.Owner == "" || c.Owner == k.r.owner || nc == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.own[id]
	if h == nil {
		return
	}
	held := h.outweighs(c, k.r.owner)
	switch {
	case c.Asking:
	case !held:
		k.lose(h, c) // before it is said: who hears it finds nobody here
	case c.Taken: // two hold it: the other is told, and what it announced is put right
		h.next = time.Time{}
		k.r.wake()
	}
	if m.Reply != "" {
		_ = nc.PublishMsg(message(m.Reply, "", reply{Held: held, Service: h.service}))
	}
}

// outweighs reports whether h holds its id against another claim: one that nobody stood against, before one that is being made. Of two
// that are being made the earlier one holds. Of two that nobody stood against it is the later one, which found the other gone.
func (h *held) outweighs(c claim, owner string) bool {
	switch {
	case c.Asking:
		return h.listed && !h.leaving
	case h.leaving:
		return false
	case h.taken != c.Taken:
		return h.taken
	case h.since != c.Since:
		return (h.since < c.Since) != h.taken
	}
	return owner < c.Owner
}

// lose gives an own node up to another that holds its id.
func (k *keeper) lose(h *held, c claim) {
	if h.listed && !h.leaving {
		k.r.o.Logger.Warn("another owner has taken a node's id, ours is withdrawn", "node", h.node.ID, "service", h.service, "theirs", c.Service)
	}
	k.remove(h)
	if nc := k.r.nc.Load(); h.service != c.Service && h.listed && nc != nil {
		k.seq++
		h.seq = k.seq
		_ = nc.PublishMsg(news(k.r.watchSubject(), actionDelete, k.r.owner, &h.notice))
	}
}
