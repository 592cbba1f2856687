package selector

import (
	"math/rand/v2"
	"sync/atomic"
)

// Strategy decides which node a call goes to. Programs may bring their own.
type Strategy interface {
	// Picker makes the picker of a service.
	Picker() Picker
}

// Picker takes nodes of one service. Its methods may be called concurrently.
type Picker interface {
	// Pick takes one of nodes that ok takes; a nil ok takes all. It gives nil where there is none. The key is the call's
	// own. ok is asked only until Pick returns, and may be slow: it runs the call's filters.
	Pick(nodes *Nodes, key string, ok func(*Candidate) bool) *Candidate
}

// Follower is what a Picker implements beside that keeps something of the nodes for itself.
type Follower interface {
	// Change tells of one node: it comes, where was is nil; goes, where now is nil; or has another record. Each change is
	// told before the first Pick of a set with it, one at a time. Picks of the set before may still be under way, or come.
	Change(was, now *Candidate)
}

// PickFunc is a Strategy whose pickers keep nothing.
type PickFunc func(nodes *Nodes, key string, ok func(*Candidate) bool) *Candidate

// Picker gives f itself.
func (f PickFunc) Picker() Picker { return f }

// Pick calls f.
func (f PickFunc) Pick(nodes *Nodes, key string, ok func(*Candidate) bool) *Candidate {
	return f(nodes, key, ok)
}

// Random takes any node with the same chance.
func Random() Strategy {
	return PickFunc(func(nodes *Nodes, _ string, ok func(*Candidate) bool) *Candidate { return nodes.Any(ok) })
}

// few is how many nodes LeastConn looks at.
const few = 64

// LeastConn takes the node with the fewest calls under way; of equals, any. Of more than 64 nodes it takes the best of 64
// that it draws, which has at most a call or two more than the best of all; with filters, and when it avoids nodes that
// failed, of a handful.
func LeastConn() Strategy { return PickFunc(leastConn) }

func leastConn(nodes *Nodes, _ string, ok func(*Candidate) bool) *Candidate {
	switch {
	case nodes.Len() <= few:
		return leastOf(nodes, ok)
	case ok != nil:
		return leastOfSome(nodes, ok)
	}
	best := nodes.random()
	for range few - 1 {
		if best.Inflight() == 0 {
			break
		}
		best = lessBusy(best, nodes.random())
	}
	return best
}

// leastOfSome draws what ok takes. It does not look much longer for more than it took to find the first, which may be
// the only one.
func leastOfSome(nodes *Nodes, ok func(*Candidate) bool) *Candidate {
	best, looks := nodes.find(ok)
	if best == nil {
		return nil
	}
	for range 4 * (looks + 4) {
		if best.Inflight() == 0 {
			break
		}
		if c := nodes.random(); c.Inflight() < best.Inflight() && ok(c) {
			best = c
		}
	}
	return best
}

// leastOf looks at all. Starting anywhere keeps an idle service's calls from all going to its first node.
func leastOf(nodes *Nodes, ok func(*Candidate) bool) (best *Candidate) {
	n := nodes.Len()
	start := rand.IntN(n)
	for i := range n {
		if i += start; i >= n {
			i -= n
		}
		c := nodes.At(i)
		if (best == nil || c.Inflight() < best.Inflight()) && (ok == nil || ok(c)) {
			best = c
		}
	}
	return best
}

// P2C draws two different nodes and takes the one with fewer calls under way: the power of two choices (M. Mitzenmacher,
// The Power of Two Choices in Randomized Load Balancing, 2001). It is the default.
func P2C() Strategy { return PickFunc(p2c) }

func p2c(nodes *Nodes, _ string, ok func(*Candidate) bool) *Candidate {
	if ok != nil {
		return p2cOf(nodes, ok)
	}
	n := nodes.Len()
	if n == 1 {
		return nodes.At(0)
	}
	i, j := rand.IntN(n), rand.IntN(n-1)
	if j >= i {
		j++
	}
	return lessBusy(nodes.At(i), nodes.At(j))
}

// p2cOf draws two that ok takes, or one, as leastOfSome does.
func p2cOf(nodes *Nodes, ok func(*Candidate) bool) *Candidate {
	first, looks := nodes.find(ok)
	if first == nil {
		return nil
	}
	for range 4 * (looks + 4) {
		if c := nodes.random(); c != first && ok(c) {
			return lessBusy(first, c)
		}
	}
	return first
}

func lessBusy(a, b *Candidate) *Candidate {
	if b.Inflight() < a.Inflight() {
		return b
	}
	return a
}

// RoundRobin takes the nodes in turn, from a random one on. Where the node whose turn it is cannot be had, any other is
// taken with the same chance.
func RoundRobin() Strategy { return roundRobin{} }

type roundRobin struct{}

// Picker starts a turn for each service: services that share a counter would skip each other's nodes.
func (roundRobin) Picker() Picker {
	p := new(turn)
	p.next.Store(rand.Uint64() >> 1) // far from where it would begin anew
	return p
}

type turn struct {
	next atomic.Uint64
	_    [56]byte // who counts does not slow down who reads what lies beside
}

func (p *turn) Pick(nodes *Nodes, _ string, ok func(*Candidate) bool) *Candidate {
	if ok != nil {
		return nodes.Any(ok)
	}
	return nodes.At(int(p.next.Add(1) % uint64(nodes.Len())))
}
