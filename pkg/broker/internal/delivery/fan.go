package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/cb02dfca/micro/pkg/broker"
)

// Member is one subscriber, and how to reach it.
type Member struct {
	ID string
	// Send delivers the messages from first to end, in order, and gives what became of each: nil where all were
	// acknowledged. It returns soon after ctx has ended.
	Send func(ctx context.Context, first, end int) []Outcome
}

// Target is who gets a message once: a subscriber without a queue, or one member of a queue.
type Target struct {
	Queue   string
	Members []Member
}

// Group makes targets of members, given with their queues, in their order.
func Group(members []Member, queue func(i int) string) []Target {
	targets := make([]Target, 0, len(members))
	at := map[string]int{}
	for i, m := range members {
		q := queue(i)
		if q == "" {
			targets = append(targets, Target{Members: members[i : i+1]})
			continue
		}
		if n, ok := at[q]; ok {
			targets[n].Members = append(targets[n].Members, m)
			continue
		}
		at[q] = len(targets)
		targets = append(targets, Target{Queue: q, Members: []Member{m}})
	}
	return targets
}

// Fan delivers n messages to all targets at the same time and returns when each outcome is known, in the order of the
// targets. A message for which all members of a target are gone has no entry there.
func Fan(ctx context.Context, n int, targets []Target) []broker.Delivery {
	if len(targets) == 1 {
		return deliver(ctx, targets[0], n)
	}
	results := make([][]broker.Delivery, len(targets))
	var wg sync.WaitGroup
	for i := range targets {
		wg.Go(func() { results[i] = deliver(ctx, targets[i], n) })
	}
	wg.Wait()
	deliveries := make([]broker.Delivery, 0, len(targets))
	for _, r := range results {
		deliveries = append(deliveries, r...)
	}
	return deliveries
}

// deliver gives each member of t an equal part of the messages, in a random order of the members. What a member has not
// handled the next one is tried with, until all have been. The entry of a message that none took is that of one that
// could not: of a busy one before a dead one.
func deliver(ctx context.Context, t Target, n int) []broker.Delivery {
	k := len(t.Members)
	if k == 1 {
		return attempt(ctx, t, []int{0}, 0, n)
	}
	order := rand.Perm(k)
	each := (n + k - 1) / k
	if each == n {
		return attempt(ctx, t, order, 0, n)
	}
	parts := make([][]broker.Delivery, (n+each-1)/each)
	var wg sync.WaitGroup
	for p := range parts {
		turn := append(append(make([]int, 0, k), order[p:]...), order[:p]...)
		wg.Go(func() { parts[p] = attempt(ctx, t, turn, p*each, min((p+1)*each, n)) })
	}
	wg.Wait()
	all := make([]broker.Delivery, 0, len(parts))
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// attempt tries the members of t in the order of turn with the messages from first to end.
func attempt(ctx context.Context, t Target, turn []int, first, end int) []broker.Delivery {
	try := &tries{queue: t.Queue, of: len(t.Members)}
	return try.next(ctx, t.Members, turn, first, end)
}

// tries is what the members have said so far that did not handle a run of messages.
type tries struct {
	queue   string
	of      int
	refused int             // how many said so
	last    broker.Delivery // what is told where all do
	found   bool            // there is something to tell: not all were gone
}

func (t tries) next(ctx context.Context, members []Member, turn []int, first, end int) []broker.Delivery {
	if len(turn) == 0 || ctx.Err() != nil && t.found {
		return t.give(first, end)
	}
	m := members[turn[0]]
	if ctx.Err() != nil {
		t.last.Subscriber, t.last.Err, t.found = m.ID, fmt.Errorf("broker: not sent: %w", context.Cause(ctx)), true
		return t.give(first, end)
	}
	outs := m.Send(ctx, first, end)
	if outs == nil {
		return []broker.Delivery{{Subscriber: m.ID, Queue: t.queue, First: first, Last: end - 1}}
	}
	var all []broker.Delivery
	for i := first; i < end; {
		out, j := outs[i-first], i+1
		for j < end && out.Alike(outs[j-first]) {
			j++
		}
		switch {
		case !out.Refused:
			all = append(all, broker.Delivery{Subscriber: m.ID, Queue: t.queue, Err: out.Err, First: i, Last: j - 1})
		case out.Gone:
			all = append(all, t.next(ctx, members, turn[1:], i, j)...)
		default:
			all = append(all, t.refusedBy(m.ID, out.Err).next(ctx, members, turn[1:], i, j)...)
		}
		i = j
	}
	return all
}

// Alike reports whether two messages have the same outcome: the very same error.
func (o Outcome) Alike(other Outcome) bool {
	return o.Refused == other.Refused && o.Gone == other.Gone && (o.Err == nil && other.Err == nil || same(o.Err, other.Err))
}

// same compares errors that were put in several places; those of handlers may be of types that cannot be compared.
func same(a, b error) (equal bool) {
	defer func() { _ = recover() }() // of a comparison that panics: not the same
	return a == b
}

func (t tries) refusedBy(id string, err error) tries {
	t.refused++
	if !t.found || !errors.Is(t.last.Err, broker.ErrBusy) {
		t.last.Subscriber, t.last.Err = id, err
	}
	t.found = true
	return t
}

// give gives the entry of messages that nobody took.
func (t tries) give(first, end int) []broker.Delivery {
	if !t.found {
		return nil
	}
	d := t.last
	d.Queue, d.First, d.Last = t.queue, first, end-1
	if t.refused > 1 {
		d.Err = fmt.Errorf("%w (%d of %d members of queue %s were tried)", d.Err, t.refused, t.of, t.queue)
	}
	return []broker.Delivery{d}
}
