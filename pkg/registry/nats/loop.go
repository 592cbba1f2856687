package nats

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// The subjects. A claim to an id goes to the subject of that id, which its owner subscribes to.
func (r *Registry) querySubject() string         { return r.o.Prefix + ".query" }
func (r *Registry) watchSubject() string         { return r.o.Prefix + ".watch" }
func (r *Registry) nodeSubject(id string) string { return r.o.Prefix + ".node." + id }

// run reads all that comes, and does what is due, until Close.
func (r *Registry) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var w watching
	for {
		select {
		case <-r.life.Done():
			return
		case m := <-r.in:
			r.receive(m)
			continue // it wakes the loop where something is due earlier than planned
		case <-r.nudge:
		case <-timer.C:
		}
		r.subscribe(&w)
		timer.Reset(time.Until(r.tick(time.Now())))
	}
}

// wake makes the loop look at its times.
func (r *Registry) wake() {
	select {
	case r.nudge <- struct{}{}:
	default:
	}
}

// watching is the subscription to the watch subject, while anything is followed.
type watching struct {
	nc  *nats.Conn
	sub *nats.Subscription
}

// subscribe subscribes to the watch subject, before anything is asked, and ends that when nothing is followed any more.
func (r *Registry) subscribe(w *watching) {
	nc, follows := r.nc.Load(), r.view.following()
	switch stands := w.sub != nil && w.nc == nc; {
	case nc == nil || follows == stands:
	case follows:
		w.nc = nc
		w.sub, _ = nc.ChanSubscribe(r.watchSubject(), r.in) // an error: nc is closed, and another comes
	default:
		_ = w.sub.Unsubscribe()
		w.sub = nil
	}
}

// tick does what is due, and gives when there is something next.
func (r *Registry) tick(now time.Time) (next time.Time) {
	ask, next := r.view.tick(now, len(r.in) == 0)
	say, nextOwn := r.keeper.tick(now)
	nc := r.nc.Load()
	if nc == nil {
		return next
	}
	for _, m := range say {
		_ = nc.PublishMsg(m) // what is lost is said again with the next connection, and in a third of the lease
	}
	for _, q := range ask {
		_ = nc.PublishMsg(query(r.querySubject(), r.inbox+".q"+strconv.FormatUint(q.id, 10), q.service))
	}
	return sooner(next, nextOwn)
}

// sound reports whether NATS answers.
func (r *Registry) sound() bool {
	nc := r.nc.Load()
	if nc == nil {
		return false
	}
	ctx, stop := context.WithTimeout(r.life, r.conn.Timeout())
	defer stop()
	return nc.FlushWithContext(ctx) == nil
}

// receive takes one message.
func (r *Registry) receive(m *nats.Msg) {
	now := time.Now()
	switch subject := m.Subject; {
	case subject == r.watchSubject():
		r.heard(m, now)
	case subject == r.querySubject():
		r.keeper.answer(m)
	case strings.HasPrefix(subject, r.nodeSubject("")):
		r.keeper.claimed(strings.TrimPrefix(subject, r.nodeSubject("")), m)
	case strings.HasPrefix(subject, r.inbox+".c"):
		r.keeper.replied(number(subject, r.inbox+".c"), m)
	case strings.HasPrefix(subject, r.inbox+".q"):
		r.answered(number(subject, r.inbox+".q"), m, now)
	}
}

func number(subject, prefix string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimPrefix(subject, prefix), 10, 64)
	return n
}

// heard takes in what is published on the watch subject.
func (r *Registry) heard(m *nats.Msg, now time.Time) {
	if service := m.Header.Get(headerService); service != "" && !r.view.cares(service) {
		return
	}
	nodes, gone, err := told(m)
	r.view.hear(nodes, sourceOf(m), gone, now)
	if err != nil {
		r.o.Logger.Warn("somebody announces what is no node", "subject", m.Subject, "error", err)
	}
}

// answered takes in an answer to a question.
func (r *Registry) answered(id uint64, m *nats.Msg, now time.Time) {
	if nobody(m) {
		r.view.answered(id, true, now)
		return
	}
	nodes, err := record.DecodeAll(m.Data)
	r.view.hear(nodes, sourceOf(m), false, now)
	if err != nil {
		r.o.Logger.Warn("somebody answers with what is no node", "error", err)
	}
	r.view.answered(id, false, now)
}

// up is called with each connection that was made.
func (r *Registry) up(nc *nats.Conn) {
	another := r.nc.Swap(nc) != nc
	if another {
		_, _ = nc.ChanSubscribe(r.inbox+".*", r.in) // an error: nc is closed, and another comes
	}
	r.keeper.connected(nc, another)
	r.view.connected(time.Now())
	r.wake()
}

func (r *Registry) down(reason error) { r.view.disconnected(r.conn.Error(reason)) }

// failed is told of messages that were dropped, and of what this user may not do.
func (r *Registry) failed(_ *nats.Subscription, err error) {
	text := err.Error()
	about := func(what, subject string) bool { return strings.Contains(text, what+` to "`+subject) }
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
		r.o.Logger.Warn("messages of nats were dropped, asking for all nodes anew")
		r.view.dropped(time.Now())
	case !errors.Is(err, nats.ErrPermissionViolation):
	case about("Subscription", r.nodeSubject("")), about("Subscription", r.querySubject()):
		r.keeper.refused(r.conn.Error(err))
	case about("Subscription", r.inbox):
		r.keeper.refused(r.conn.Error(err))
		r.view.refused(r.conn.Error(err))
	case about("Subscription", r.watchSubject()), about("Publish", r.querySubject()):
		r.view.refused(r.conn.Error(err))
	}
}
