package selector

import (
	"iter"
	"math/rand/v2"
	"slices"
)

// Nodes is a service's candidates at one time, never none where a [Picker] gets them, in no order that means anything.
// It is not changed, and may be kept.
type Nodes struct {
	chunks [][]*Candidate // full but for the last
	count  int
}

// chunk is how many candidates stand together. A change copies the chunks that it touches and the list of chunks: about
// two hundred pointers in 10,000.
const chunk = 128

// Len is how many there are.
func (n *Nodes) Len() int { return n.count }

// At gives one by its place, from 0 to Len()-1.
func (n *Nodes) At(i int) *Candidate { return n.chunks[uint(i)/chunk][uint(i)%chunk] }

// All gives each with its place.
func (n *Nodes) All() iter.Seq2[int, *Candidate] {
	return func(yield func(int, *Candidate) bool) {
		for i := range n.count {
			if !yield(i, n.At(i)) {
				return
			}
		}
	}
}

// Any gives one that ok takes, each of these with the same chance; nil where there is none. A nil ok takes all. Where ok
// takes one in k, it is asked about k times.
func (n *Nodes) Any(ok func(*Candidate) bool) *Candidate {
	if ok == nil {
		return n.random()
	}
	c, _ := n.find(ok)
	return c
}

func (n *Nodes) random() *Candidate { return n.At(rand.IntN(n.count)) }

// find does what Any does, and tells how many it looked at.
func (n *Nodes) find(ok func(*Candidate) bool) (c *Candidate, looks int) {
	for looks = 1; looks <= n.count; looks++ {
		if c := n.random(); ok(c) {
			return c, looks
		}
	}
	// So many draws in vain are likely only where ok takes hardly any, or none.
	start := rand.IntN(n.count)
	for i := range n.count {
		if c := n.At((start + i) % n.count); ok(c) {
			return c, looks + i
		}
	}
	return nil, looks + n.count
}

// edit makes Nodes of others. It copies a chunk before it changes it, once.
type edit struct {
	Nodes
	own []bool // by chunk
}

func (n *Nodes) edit() *edit {
	e := &edit{own: make([]bool, len(n.chunks))}
	e.chunks, e.count = slices.Clone(n.chunks), n.count
	return e
}

// chunkOf gives the chunk of a place, to be changed.
func (e *edit) chunkOf(i int) []*Candidate {
	k := i / chunk
	if !e.own[k] {
		e.own[k] = true
		e.chunks[k] = slices.Clone(e.chunks[k])
	}
	return e.chunks[k]
}

func (e *edit) set(i int, c *Candidate) { e.chunkOf(i)[i%chunk] = c }

// add gives the place of one more.
func (e *edit) add(c *Candidate) int {
	i := e.count
	if i%chunk == 0 {
		e.chunks, e.own = append(e.chunks, nil), append(e.own, true)
	}
	e.chunks[i/chunk] = append(e.chunkOf(i), c)
	e.count++
	return i
}

// drop takes the one at a place away. It gives the one that stands there now: the last, which fills the gap; nil where
// there is none.
func (e *edit) drop(i int) (moved *Candidate) {
	e.count--
	last := e.chunkOf(e.count)
	if i < e.count {
		moved = last[e.count%chunk]
		e.set(i, moved)
	}
	last[e.count%chunk] = nil
	k := e.count / chunk
	if e.chunks[k] = last[:e.count%chunk]; len(e.chunks[k]) == 0 {
		e.chunks, e.own = e.chunks[:k], e.own[:k]
	}
	return moved
}

// done gives what was made. The edit is not used afterwards.
func (e *edit) done() *Nodes { return &Nodes{chunks: e.chunks, count: e.count} }
