package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/cb02dfca/micro/pkg/broker"
)

// Member is one subscriber, and how to reach it. Send returns soon after ctx has ended.
type Member struct {
	ID   string
	Send func(ctx context.Context) Outcome
}

// Target is who gets a message once: a subscriber without a queue, or one member of a queue.
type Target struct {
	Queue   string
	Members []Member
}

// Group makes targets of members, given with their queues, in their order.
func Group(members []Member, queue func(i int) string) []Target {
	var targets []Target
	at := map[string]int{}
	for i, m := range members {
		q := queue(i)
		if n, ok := at[q]; ok && q != "" {
			targets[n].Members = append(targets[n].Members, m)
			continue
		}
		at[q] = len(targets)
		targets = append(targets, Target{Queue: q, Members: []Member{m}})
	}
	return targets
}

// Fan delivers to all targets at the same time and returns when each is known, in their order. A target all of whose
// members are gone has no entry.
func Fan(ctx context.Context, targets []Target) []broker.Delivery {
	results := make([]broker.Delivery, len(targets))
	known := make([]bool, len(targets))
	var wg sync.WaitGroup
	for i := range targets {
		wg.Go(func() { results[i], known[i] = deliver(ctx, targets[i]) })
	}
	wg.Wait()
	deliveries := results[:0]
	for i, d := range results {
		if known[i] {
			deliveries = append(deliveries, d)
		}
	}
	return deliveries
}

// deliver tries the members in a random order until one has taken the message, handled or not. Where none did, the
// entry is that of one that could not: a busy one before a dead one.
func deliver(ctx context.Context, t Target) (broker.Delivery, bool) {
	last, found := broker.Delivery{Queue: t.Queue}, false
	refused := 0
	for _, i := range rand.Perm(len(t.Members)) {
		m := t.Members[i]
		if ctx.Err() != nil {
			if !found {
				last.Subscriber, last.Err, found = m.ID, fmt.Errorf("broker: not sent: %w", context.Cause(ctx)), true
			}
			break
		}
		out := m.Send(ctx)
		if !out.Refused {
			return broker.Delivery{Subscriber: m.ID, Queue: t.Queue, Err: out.Err}, true
		}
		if out.Gone {
			continue
		}
		refused++
		if !found || !errors.Is(last.Err, broker.ErrBusy) {
			last.Subscriber, last.Err = m.ID, out.Err
		}
		found = true
	}
	if refused > 1 {
		last.Err = fmt.Errorf("%w (%d of %d members of queue %s were tried)", last.Err, refused, len(t.Members), t.Queue)
	}
	return last, found
}
