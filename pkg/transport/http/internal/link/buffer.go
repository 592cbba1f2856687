package link

import (
	"sync"

	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
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
	frame.Bodies

	chunks, reads, little, calls, desks, tickets sync.Pool
}

// NewBuffers returns a lender of storage.
func NewBuffers() *Buffers {
	b := new(Buffers)
	for pool, size := range map[*sync.Pool]int{&b.chunks: chunkSize, &b.reads: readSize, &b.little: littleSize} {
		pool.New = func() any { b := make([]byte, size); return &b }
	}
	b.calls.New = func() any { return &call{answer: make(chan error, 1)} }
	b.tickets.New = func() any { return newTicket() }
	b.desks.New = func() any { return new(desk) }
	return b
}
