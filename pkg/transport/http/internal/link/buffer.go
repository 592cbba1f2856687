package link

import (
	"math/bits"
	"sync"

	"github.com/cb02dfca/micro/pkg/transport/http/internal/frame"
)

// The sizes of the buffers that are lent. A connection at rest holds none.
const (
	chunkSize  = 128 << 10 // what is gathered for one write
	readSize   = 128 << 10 // what is read at a time: a whole frame with its header and metadata, wherever it begins
	littleSize = 4 << 10   // of a connection that must hold a buffer while it waits: one over TLS
)

// Buffers lends storage to many connections: buffers, and the records of calls and of those who wait. The zero value is not ready: call
// NewBuffers.
type Buffers struct {
	chunks, reads, little, calls, desks, tickets sync.Pool

	bodies [bodyClasses]sync.Pool // by size: see class
	boxes  sync.Pool              // what bodies lie in, without them
}

// bodyClasses is how many sizes of bodies are told apart: each is twice the one before, from frame.Large on.
const bodyClasses = 12

// class gives the class of storage of n bytes: it has at least frame.Large<<class.
func class(n int) int {
	return min(max(bits.Len(uint(n)/frame.Large)-1, 0), bodyClasses-1)
}

// NewBuffers returns a lender of storage.
func NewBuffers() *Buffers {
	b := new(Buffers)
	for pool, size := range map[*sync.Pool]int{&b.chunks: chunkSize, &b.reads: readSize, &b.little: littleSize} {
		pool.New = func() any { b := make([]byte, size); return &b }
	}
	b.boxes.New = func() any { return new([]byte) }
	b.calls.New = func() any { return &call{answer: make(chan error, 1)} }
	b.tickets.New = func() any { return newTicket() }
	b.desks.New = func() any { return new(desk) }
	return b
}

var _ frame.Store = (*Buffers)(nil)

// Body implements frame.Store.
func (b *Buffers) Body(n int) []byte {
	fits := class(max(n-1, 0)) + 1 // all of this class, and above it, do; of the one below some
	if n <= frame.Large {
		fits = 0
	}
	for k := fits; k < min(fits+3, bodyClasses); k++ {
		if body := b.take(k); body != nil {
			return body
		}
	}
	body := b.take(min(max(fits-1, 0), bodyClasses-1))
	if cap(body) < n {
		b.Keep(body)
		return nil
	}
	return body
}

func (b *Buffers) take(class int) []byte {
	box, ok := b.bodies[class].Get().(*[]byte)
	if !ok {
		return nil
	}
	body := *box
	*box = nil
	b.boxes.Put(box)
	return body[:0]
}

// Keep implements frame.Store.
func (b *Buffers) Keep(body []byte) {
	if cap(body) < frame.Large {
		return
	}
	box := b.boxes.Get().(*[]byte)
	*box = body[:0]
	b.bodies[class(cap(body))].Put(box)
}
