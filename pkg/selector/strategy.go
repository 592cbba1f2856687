package selector

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
)

// Strategy decides which node a call goes to. Programs may bring their own.
type Strategy interface {
	// Prepare is called once for each set of nodes, sorted by id and never empty, before the first Pick. The slice is
	// not changed afterwards and may be kept.
	Prepare(nodes []*Candidate) Picker
}

// Picker takes nodes from one set. Pick may be called concurrently.
type Picker interface {
	// Pick takes one of nodes: the prepared set, or a part of it in the same order, with at least two nodes. It keeps
	// nothing of the slice. The key is the call's own.
	Pick(nodes []*Candidate, key string) *Candidate
}

// pickFunc is a picker that needs no preparation.
type pickFunc func(nodes []*Candidate) *Candidate

func (f pickFunc) Prepare([]*Candidate) Picker                  { return f }
func (f pickFunc) Pick(nodes []*Candidate, _ string) *Candidate { return f(nodes) }

// Random takes any node with the same chance.
func Random() Strategy {
	return pickFunc(func(nodes []*Candidate) *Candidate { return nodes[rand.IntN(len(nodes))] })
}

// LeastConn takes the node with the fewest calls under way; of equals, any. It looks at every node: for many, [P2C] is
// nearly as even and far cheaper.
func LeastConn() Strategy {
	return pickFunc(func(nodes []*Candidate) *Candidate {
		// Starting anywhere keeps an idle service's calls from all going to its first node.
		start := rand.IntN(len(nodes))
		best := nodes[start]
		for _, part := range [][]*Candidate{nodes[start+1:], nodes[:start]} {
			for _, c := range part {
				if c.Inflight() < best.Inflight() {
					best = c
				}
			}
		}
		return best
	})
}

// P2C draws two different nodes and takes the one with fewer calls under way: the power of two choices (M. Mitzenmacher,
// The Power of Two Choices in Randomized Load Balancing, 2001). It is the default.
func P2C() Strategy {
	return pickFunc(func(nodes []*Candidate) *Candidate {
		i, j := rand.IntN(len(nodes)), rand.IntN(len(nodes)-1)
		if j >= i {
			j++
		}
		if nodes[j].Inflight() < nodes[i].Inflight() {
			return nodes[j]
		}
		return nodes[i]
	})
}

// RoundRobin takes the nodes in turn, from a random one on.
func RoundRobin() Strategy { return roundRobin{} }

type roundRobin struct{}

// Prepare starts a turn for each set: services that share a counter would skip each other's nodes.
func (roundRobin) Prepare(nodes []*Candidate) Picker {
	p := new(turn)
	p.next.Store(rand.Uint64N(uint64(len(nodes))))
	return p
}

type turn struct{ next atomic.Uint64 }

func (p *turn) Pick(nodes []*Candidate, _ string) *Candidate {
	return nodes[p.next.Add(1)%uint64(len(nodes))]
}

// ConsistentHash takes the same node for the same Query.Key, in every process, as long as the node is there; when a node
// comes or goes, only the keys that it takes or had move. A call without a key goes to any node.
//
// It is multi-probe consistent hashing (B. Appleton, M. O'Reilly, Multi-probe consistent hashing, 2015): a node is a few
// points on a circle, and a key goes to the node that follows one of its 21 probes most closely. The busiest node then
// has about a twentieth more than its share, for which one probe would take hundreds of points a node, and a set of
// 10,000 nodes is ready in milliseconds. More points than the paper's one keep two nodes that happen to stand close
// together from leaving the second idle.
func ConsistentHash() Strategy { return consistentHash{} }

const (
	probes = 21
	points = 8
)

type consistentHash struct{}

func (consistentHash) Prepare(nodes []*Candidate) Picker {
	circle := make([]spot, 0, points*len(nodes))
	for _, c := range nodes {
		for i := range uint64(points) {
			circle = append(circle, spot{c.point(i), c})
		}
	}
	slices.SortFunc(circle, func(a, b spot) int {
		return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.node.ID, b.node.ID))
	})
	return &hashPicker{size: len(nodes), circle: circle}
}

type spot struct {
	at   uint64
	node *Candidate
}

// point gives the i-th point of a node.
func (c *Candidate) point(i uint64) uint64 { return mix(c.hash + i*goldenRatio) }

type hashPicker struct {
	size   int
	circle []spot // sorted
}

func (p *hashPicker) Pick(nodes []*Candidate, key string) *Candidate {
	if key == "" {
		return nodes[rand.IntN(len(nodes))]
	}
	var best spot
	start := hash(key)
	for i := range uint64(probes) {
		probe := mix(start + i*goldenRatio)
		next := spot{}
		if len(nodes) == p.size {
			next = p.follow(probe)
		} else {
			next = nearest(nodes, probe)
		}
		// From here on "at" is how far the node is from the probe that came closest to it.
		if next.at -= probe; best.node == nil || next.at < best.at {
			best = next
		}
	}
	return best.node
}

// follow gives the first point at or after a place on the circle.
func (p *hashPicker) follow(place uint64) spot {
	i, _ := slices.BinarySearchFunc(p.circle, place, func(s spot, at uint64) int { return cmp.Compare(s.at, at) })
	return p.circle[i%len(p.circle)]
}

// nearest does what follow does, for a part of the set.
func nearest(nodes []*Candidate, place uint64) spot {
	best := spot{nodes[0].point(0), nodes[0]}
	for _, c := range nodes {
		for i := range uint64(points) {
			if at := c.point(i); at-place < best.at-place {
				best = spot{at, c}
			}
		}
	}
	return best
}

// goldenRatio is the odd number nearest to 2^64 divided by the golden ratio, whose multiples spread evenly.
const goldenRatio = 0x9e3779b97f4a7c15

// hash is FNV-1a of 64 bits (RFC 9923), mixed: alone it hardly changes its upper bits for names that differ at the end.
func hash(s string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return mix(h)
}

// mix is the finalizer of SplitMix64 (G. Steele and others, Fast Splittable Pseudorandom Number Generators, 2014).
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
