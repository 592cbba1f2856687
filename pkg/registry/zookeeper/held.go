package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/lease"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

const (
	tries     = 5                // of what is done over when something came in between
	lookAfter = 10 * time.Second // or a third of the session's time: how often a node is looked after
)

// errAgain: something came in between.
var errAgain = errors.New("the node changes too fast")

// held is a node that ZooKeeper has, or may have. All but the first group is its goroutine's, which alone asks ZooKeeper for
// anything that is to do with it.
type held struct {
	k      *keeper
	id     string
	orders chan *order
	over   chan struct{} // closed when the goroutine takes no more orders
	path   string        // empty before there was one; changed under the keeper's lock

	node   registry.Node // as it was ordered last
	value  string
	wanted bool      // the node is to stand, else it is to go
	stood  bool      // it did, since it is wanted
	maybe  bool      // something of ours may stand
	until  time.Time // when it lapses; zero: never
	links  []*link   // the last is the session that it is to have; it may have one of the others until it got that

	seen  *epoch        // the connection on which it was looked after last
	again time.Time     // when that is to be done again
	wait  time.Duration // the one after the last failure; 0: it went well
}

// run carries out a first order and those that follow, until the node is gone.
func (h *held) run(first *order) {
	defer close(h.over)
	h.obey(first)
	for h.wanted || h.maybe {
		link := h.links[len(h.links)-1]
		up, changed := link.now()
		now := time.Now()
		if h.wanted && !h.until.IsZero() && !now.Before(h.until) {
			h.wanted, h.seen = false, nil
		}
		if up != nil && (up != h.seen || !now.Before(h.again)) {
			h.mend(up)
			if h.k.life.Err() == nil {
				continue
			}
		}
		timer := time.NewTimer(h.rest(up))
		select {
		case o := <-h.orders:
			h.obey(o)
		case <-changed:
		case <-timer.C:
		case <-h.k.life.Done():
			timer.Stop()
			h.k.drop(h, h.withdraw(h.k.force))
			return
		}
		timer.Stop()
	}
	h.k.drop(h, nil)
}

// rest is how long there is nothing to do.
func (h *held) rest(up *epoch) time.Duration {
	d := time.Hour
	if up != nil {
		d = min(d, time.Until(h.again))
	}
	if h.wanted && !h.until.IsZero() {
		d = min(d, time.Until(h.until))
	}
	return d
}

// obey carries out an order, and answers it.
func (h *held) obey(o *order) {
	fresh := !h.stood
	err := h.carry(o)
	if !o.ended.CompareAndSwap(false, true) {
		if err == nil && fresh && o.value != "" { // the caller has left, with an error
			h.wanted, h.seen = false, nil
		}
		return
	}
	o.done <- err
}

func (h *held) carry(o *order) error {
	if o.value == "" {
		return h.takeAway(o.ctx)
	}
	p := pathOf(h.k.r.o.Prefix, o.node.Service, o.node.ID)
	if h.path != p && h.maybe { // it moves
		if err := h.takeAway(o.ctx); err != nil {
			return err
		}
	}
	if !h.k.claim(p, h) {
		return &lease.ConflictError{ID: o.node.ID, Service: o.node.Service}
	}
	h.node, h.value, h.wanted = o.node, o.value, true
	h.use(h.k.link(o.ttl))
	if h.stood {
		h.extend(o.ttl) // its owner lives, whatever becomes of this
	}
	err := h.stand(o.ctx)
	switch {
	case err == nil:
		h.stood = true
		h.extend(o.ttl)
	case !h.stood:
		h.wanted, h.seen = false, nil // what may stand all the same goes
	}
	h.rests(err)
	return h.k.r.said(err)
}

// takeAway withdraws the node for good: where that fails it is tried again.
func (h *held) takeAway(ctx context.Context) error {
	h.wanted = false
	err := h.withdraw(ctx)
	if err != nil {
		h.rests(err)
	}
	return h.k.r.said(err)
}

// use makes a link the one that the node is to have.
func (h *held) use(l *link) {
	if n := len(h.links); n > 0 && h.links[n-1] == l {
		h.k.release([]*link{l}) // it has it already
		return
	}
	h.links = append(h.links, l)
}

// extend lets the node live for a ttl from now on.
func (h *held) extend(ttl time.Duration) {
	if h.until = (time.Time{}); ttl > 0 {
		h.until = time.Now().Add(ttl)
	}
}

// mend looks after the node on a connection: whether it stands, or is gone, as it should.
func (h *held) mend(up *epoch) {
	var err error
	h.seen = up
	if h.wanted {
		err = h.stand(h.k.life)
	} else {
		err = h.withdraw(h.k.life)
	}
	switch {
	case errors.Is(err, registry.ErrConflict):
		h.k.r.o.Logger.Warn("ZooKeeper has a node of another owner in the place of ours", "zookeeper", h.k.r.host, "node", h.id, "error", err)
	case err != nil && h.k.life.Err() == nil && !errors.Is(err, registry.ErrUnavailable):
		h.k.r.o.Logger.Warn("ZooKeeper does not take a node again", "zookeeper", h.k.r.host, "node", h.id, "error", h.k.r.said(err))
	}
	h.rests(err)
}

// rests sets when the node is to be looked after again, after what had this error.
func (h *held) rests(err error) {
	switch {
	case err == nil:
		h.wait = 0
		h.again = time.Now().Add(min(lookAfter, h.links[len(h.links)-1].timeout/3))
		return
	case errors.Is(err, registry.ErrConflict):
		h.wanted, h.maybe, h.stood = false, false, false
		return
	}
	if h.wait = retry.Next(h.wait); refused(h.k.r.said(err)) {
		h.wait = refusedRetry
	}
	h.again = time.Now().Add(retry.Jitter(h.wait))
}

// attempt does something with a connection until nothing comes in between.
func (h *held) attempt(ctx context.Context, do func(l *link, e *epoch) error) error {
	l := h.links[len(h.links)-1]
	var err error
	for range tries {
		var e *epoch
		if e, err = l.ready(ctx); err != nil {
			return err
		}
		h.seen = e
		switch err = do(l, e); {
		case errors.Is(err, errAgain):
		case broken(err):
			e.lose(ctx)
		default:
			return err
		}
	}
	return h.k.r.unavailable(fmt.Errorf("%s: %w", h.path, err))
}

// stand puts the node where it stands no more, or not as it should. The error is an ErrConflict where another owner has its path.
func (h *held) stand(ctx context.Context) error {
	look := h.maybe // else it is new, as far as is known
	err := h.attempt(ctx, func(l *link, e *epoch) error {
		if look {
			if done, err := h.correct(l, e); done || err != nil {
				return err
			}
		}
		look = true
		return h.create(l, e)
	})
	if err == nil && len(h.links) > 1 {
		last := len(h.links) - 1
		h.k.release(h.links[:last])
		h.links = h.links[last:]
	}
	return err
}

// there is what stands at the node's path.
type there struct {
	data string
	stat *zk.Stat
}

func (h *held) get(l *link, e *epoch) (there, error) {
	return tell(l, e, func(c *zk.Conn) (there, error) {
		data, stat, err := c.Get(h.path)
		return there{string(data), stat}, err
	})
}

// correct looks at what stands at the node's path, and makes it what it should be. It reports whether something stands there.
func (h *held) correct(l *link, e *epoch) (bool, error) {
	at, err := h.get(l, e)
	switch {
	case errors.Is(err, zk.ErrNoNode):
		h.maybe = false
		return false, nil
	case err != nil:
		return true, err
	case !h.k.isMine(at.stat.EphemeralOwner):
		return true, &lease.ConflictError{ID: h.id, Service: h.node.Service}
	case at.stat.EphemeralOwner != e.session:
		return true, h.takeOver(l, e, at.stat.Version)
	case at.data == h.value:
		h.maybe = true
		return true, nil
	}
	h.maybe = true
	_, err = tell(l, e, func(c *zk.Conn) (*zk.Stat, error) { return c.Set(h.path, []byte(h.value), at.stat.Version) })
	if errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrBadVersion) {
		return true, errAgain
	}
	return true, err
}

// takeOver gives the node to another session of the keeper, in one step.
func (h *held) takeOver(l *link, e *epoch, version int32) error {
	h.maybe = true
	_, err := tell(l, e, func(c *zk.Conn) (struct{}, error) {
		rsp, err := c.Multi(&zk.DeleteRequest{Path: h.path, Version: version},
			&zk.CreateRequest{Path: h.path, Data: []byte(h.value), Acl: h.k.r.acl(), Flags: zk.FlagEphemeral})
		for _, r := range rsp {
			if err == nil {
				err = r.Error
			}
		}
		return struct{}{}, err
	})
	if errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrBadVersion) || errors.Is(err, zk.ErrNodeExists) {
		return errAgain
	}
	return err
}

// create puts the node at its path, and makes the folders that lead there.
func (h *held) create(l *link, e *epoch) error {
	h.maybe = true
	_, err := tell(l, e, func(c *zk.Conn) (string, error) {
		return c.Create(h.path, []byte(h.value), zk.FlagEphemeral, h.k.r.acl())
	})
	switch {
	case err == nil || broken(err):
		return err
	case errors.Is(err, zk.ErrNodeExists):
		err = errAgain
	case errors.Is(err, zk.ErrNoNode):
		if err = h.folder(l, e, path.Dir(h.path)); err == nil {
			err = errAgain
		}
	}
	h.maybe = false
	return err
}

// folder makes a folder, and those that lead to it. A service's goes some time after its last node: it is a "container".
func (h *held) folder(l *link, e *epoch, dir string) error {
	make := func(c *zk.Conn) (string, error) {
		if dir == path.Dir(h.path) {
			return c.CreateContainer(dir, nil, zk.FlagContainer, h.k.r.acl())
		}
		return c.Create(dir, nil, zk.FlagPersistent, h.k.r.acl())
	}
	_, err := tell(l, e, make)
	if errors.Is(err, zk.ErrNoNode) {
		if err := h.folder(l, e, path.Dir(dir)); err != nil {
			return err
		}
		_, err = tell(l, e, make)
	}
	if errors.Is(err, zk.ErrNodeExists) {
		return nil
	}
	return err
}

// withdraw takes the node away. Where that fails it may be tried again.
func (h *held) withdraw(ctx context.Context) error {
	if h.maybe {
		if err := h.attempt(ctx, h.remove); err != nil {
			return err
		}
	}
	h.maybe, h.stood = false, false
	return nil
}

// remove takes away what is ours at the node's path.
func (h *held) remove(l *link, e *epoch) error {
	at, err := h.get(l, e)
	switch {
	case errors.Is(err, zk.ErrNoNode), err == nil && !h.k.isMine(at.stat.EphemeralOwner):
		return nil
	case err != nil:
		return err
	}
	_, err = tell(l, e, func(c *zk.Conn) (struct{}, error) { return struct{}{}, c.Delete(h.path, at.stat.Version) })
	switch {
	case errors.Is(err, zk.ErrNoNode):
		return nil
	case errors.Is(err, zk.ErrBadVersion):
		return errAgain
	}
	return err
}

// acl is who may do what with what is written: with a login the user all, and others read; else everybody all, as go-micro has it.
func (r *Registry) acl() []zk.ACL {
	if r.o.Username == "" {
		return zk.WorldACL(zk.PermAll)
	}
	return append(zk.AuthACL(zk.PermAll), zk.WorldACL(zk.PermRead)...)
}
