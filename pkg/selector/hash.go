package selector

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
)

// ConsistentHash takes the same node for the same Query.Key, in every process, as long as the node is there; when a node
// comes or goes, only the keys that it takes or had move. A call without a key goes to any node.
//
// It is multi-probe consistent hashing (B. Appleton, M. O'Reilly, Multi-probe consistent hashing, 2015): a node is a few
// points on a circle, and a key goes to the node that follows one of its 21 probes most closely. The busiest node then
// has about a twentieth more than its share, for which one probe would take hundreds of points a node. More points than the
// paper's one keep two nodes that happen to stand close together from leaving the second idle.
func ConsistentHash() Strategy { return consistentHash{} }

const (
	probes = 21
	points = 8
)

type consistentHash struct{}

func (consistentHash) Picker() Picker {
	r := new(ring)
	r.circle.Store(newCircle(0))
	return r
}

// ring is a circle that changes: who picks reads it without a lock, and may see some points of a node before the others.
type ring struct {
	circle atomic.Pointer[circle]
	count  int // points; Change alone uses it
}

// circle is the points, cut into arcs of the same length: as points lie evenly, an arc has about ten, however many
// there are. An arc is not changed, but exchanged.
type circle struct {
	shift uint // of a place to its arc
	arcs  []atomic.Pointer[arc]
}

type arc []spot // sorted

type spot struct {
	at   uint64
	node *Candidate
}

// point gives the i-th point of a node.
func (c *Candidate) point(i uint64) uint64 { return mix(c.hash + i*goldenRatio) }

// newCircle makes an empty circle of 2^size arcs.
func newCircle(size int) *circle {
	return &circle{shift: uint(64 - size), arcs: make([]atomic.Pointer[arc], 1<<size)}
}

func (c *circle) arc(i int) arc {
	if a := c.arcs[i].Load(); a != nil {
		return *a
	}
	return nil
}

// Change puts the points of a node in, takes them out, or both.
func (r *ring) Change(was, now *Candidate) {
	c := r.circle.Load()
	switch {
	case was == nil:
		r.count += points
	case now == nil:
		r.count -= points
	}
	if size := sizeFor(r.count); size > 64-int(c.shift) || size+1 < 64-int(c.shift) {
		next := newCircle(size)
		for i := range c.arcs {
			for _, s := range c.arc(i) {
				next.put(s)
			}
		}
		r.circle.Store(next)
		c = next
	}
	for i := range uint64(points) {
		if was != nil {
			c.take(spot{was.point(i), was}, now)
		} else {
			c.put(spot{now.point(i), now})
		}
	}
}

// sizeFor gives the logarithm of the number of arcs for so many points: 8 to 16 of them stand in one.
func sizeFor(count int) int { return max(0, bits.Len(uint(count))-4) }

// put adds a spot. Of equal places the one with the lesser id comes first.
func (c *circle) put(s spot) {
	at := &c.arcs[s.at>>c.shift]
	var old arc
	if p := at.Load(); p != nil {
		old = *p
	}
	i := old.after(s.at)
	for i < len(old) && old[i].at == s.at && old[i].node.ID < s.node.ID {
		i++
	}
	next := make(arc, 0, len(old)+1)
	next = append(append(append(next, old[:i]...), s), old[i:]...)
	at.Store(&next)
}

// take takes a spot out, or puts now in its place.
func (c *circle) take(s spot, now *Candidate) {
	at := &c.arcs[s.at>>c.shift]
	next := slices.Clone(*at.Load())
	i := slices.Index(next, s)
	if now != nil {
		next[i].node = now
	} else {
		next = slices.Delete(next, i, i+1)
	}
	at.Store(&next)
}

// after gives the index of the first spot at or after a place.
func (a arc) after(place uint64) int {
	for i := range a {
		if a[i].at >= place {
			return i
		}
	}
	return len(a)
}

// patience is how many spots are looked at for a call, where many are not to be had, before the nodes that are are
// collected.
const patience = 4096

// Pick goes from each probe to the first node that ok takes: so a part of a set is as a set of its own.
func (r *ring) Pick(nodes *Nodes, key string, ok func(*Candidate) bool) *Candidate {
	if key == "" {
		return nodes.Any(ok)
	}
	c, start := r.circle.Load(), hash(key)
	best := spot{at: math.MaxUint64} // "at" is how far the node is from the probe that came closest to it
	left := patience
	for i := range uint64(probes) {
		if c.follow(probe(start, i), ok, &best, &left); left <= 0 {
			return nearest(nodes, start, ok)
		}
	}
	if best.node == nil && ok != nil {
		return nodes.Any(ok) // the circle is just being changed, or there is none
	}
	return best.node
}

// probe gives the i-th place from which a key's node is looked for.
func probe(start, i uint64) uint64 { return mix(start + i*goldenRatio) }

// follow looks for the first node at or after a place, as long as it is closer than the best. It counts the spots that it
// looks at.
func (c *circle) follow(place uint64, ok func(*Candidate) bool, best *spot, left *int) {
	i := int(place >> c.shift)
	a := c.arc(i)
	a = a[a.after(place):]
	for range len(c.arcs) + 1 {
		for _, s := range a {
			far := s.at - place
			if far >= best.at && best.node != nil {
				return
			}
			if *left--; *left <= 0 {
				return
			}
			if ok == nil || ok(s.node) {
				*best = spot{far, s.node}
				return
			}
		}
		if i++; i == len(c.arcs) {
			i = 0
		}
		a = c.arc(i)
	}
}

// nearest does what Pick does, for the few nodes that ok takes.
func nearest(nodes *Nodes, start uint64, ok func(*Candidate) bool) *Candidate {
	best := spot{at: math.MaxUint64}
	for _, c := range nodes.All() {
		if !ok(c) {
			continue
		}
		for i := range uint64(points) {
			at := c.point(i)
			for k := range uint64(probes) {
				if far := at - probe(start, k); best.node == nil || far < best.at {
					best = spot{far, c}
				}
			}
		}
	}
	return best.node
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
