package selector

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
)

// A node that failed is tried last for a while, which doubles with each failure in a row.
const (
	firstHold = time.Second
	maxHold   = 30 * time.Second
)

// Candidate is a node that may be chosen, with what is known of it from the calls of this process.
//
// What a strategy looks at shares one line of the processor's cache, and with no other node: of 10,000 hardly any is in
// that cache, so that each line costs more than all that is done with it.
type Candidate struct {
	*load
	own  load   // what load is, but where the record has changed: then that of the Candidate before
	hash uint64 // of the id
	registry.Node
}

// load outlives a Candidate: the same node keeps it when its record changes.
type load struct {
	inflight atomic.Int64
	failures atomic.Int32 // in a row
	probing  atomic.Bool  // one call is finding out whether the node has come back
	until    atomic.Int64 // held back until then
	done     func(error)
	address  string
	epoch    time.Time // times above count from it: on the monotonic clock, in a word that can be swapped
}

// newCandidate makes a candidate with the load that is known of the node, or with one of its own.
func newCandidate(n *registry.Node, known *load) *Candidate {
	c := &Candidate{Node: *n, hash: hash(n.ID), load: known}
	if known == nil {
		c.load = &c.own
		c.address, c.epoch, c.done = n.Address, time.Now(), c.own.report
	}
	return c
}

// Inflight is how many calls the node has been taken for that have not ended.
func (c *Candidate) Inflight() int64 { return c.inflight.Load() }

// well reports whether the node has not failed lately.
func (l *load) well() bool { return l.failures.Load() == 0 }

// ready reports whether the node may be chosen now: it has not failed lately, or the time has come for one call, this
// one, to try it again.
func (l *load) ready() bool {
	failures := l.failures.Load()
	if failures == 0 {
		return true
	}
	now, until := int64(time.Since(l.epoch)), l.until.Load()
	if now < until || !l.until.CompareAndSwap(until, now+int64(hold(failures))) {
		return false
	}
	l.probing.Store(true)
	return true
}

// report is the done of each Select that took the node.
func (l *load) report(err error) {
	l.inflight.Add(-1)
	switch verdict(err) {
	case answered:
		if l.failures.Load() != 0 {
			l.failures.Store(0)
			l.until.Store(0)
		}
	case failed:
		now := int64(time.Since(l.epoch))
		// Calls that were under way when the node failed fail as well, and say nothing new.
		if now < l.until.Load() && !l.probing.Swap(false) {
			return
		}
		l.until.Store(now + int64(hold(l.failures.Add(1))))
	}
}

func hold(failures int32) time.Duration {
	if failures > 5 {
		return maxHold
	}
	return min(firstHold<<(max(failures, 1)-1), maxHold)
}

type outcome int

const (
	answered outcome = iota // the node is there, whatever it answered
	failed                  // the node is gone, or is another service's by now, or turns calls away
	unclear                 // the caller gave up
)

func verdict(err error) outcome {
	if err == nil {
		return answered
	}
	// On the heap, for errors.As: not on the way of a call that succeeds.
	var s *status.Error
	var op *net.OpError
	switch {
	case errors.As(err, &s) && s.Remote:
		if s.Code == status.Misdirected || s.Code == status.Unavailable {
			return failed
		}
		return answered
	case errors.Is(err, context.Canceled):
		return unclear
	case errors.As(err, &op) && op.Op == "dial":
		return failed // also where connecting took too long, which package net calls a context.DeadlineExceeded
	case errors.Is(err, context.DeadlineExceeded), s != nil && s.Code == status.DeadlineExceeded:
		return unclear
	}
	return failed
}
