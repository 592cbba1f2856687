package server

import (
	"context"
	"io"
	"sync"

	"github.com/cb02dfca/micro/pkg/transport"
)

// What a stream holds for a handler that does not read: beyond either, the peer feels back-pressure. One message is
// taken whatever its size.
const (
	inboxMessages = 64
	inboxBytes    = 1 << 20
)

// inbox is what a stream's peer has sent and the handler has not received. One goroutine puts and one gets; the others'
// methods may be called at any time.
type inbox struct {
	mu    sync.Mutex
	queue [inboxMessages]*transport.Message // a ring
	first int                               // of the queue
	count int                               // in the queue
	bytes int                               // in the queue
	given *transport.Message                // what get gave last
	free  []*transport.Message              // what the handler is done with, to be received into
	kept  int                               // bytes of storage in free
	ended bool
	err   error         // why it ended; nil for the peer's End
	more  chan struct{} // a hint: there is something to get
	room  chan struct{} // a hint: there is something to put, or no need to
}

func newInbox() *inbox {
	return &inbox{more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// spare gives a message to receive into.
func (b *inbox) spare() *transport.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.free)
	if n == 0 {
		return new(transport.Message)
	}
	m := b.free[n-1]
	b.free = b.free[:n-1]
	b.kept -= cap(m.Body)
	return m
}

// put adds a message, and waits for room until ctx ends. What comes after the end is dropped: nobody reads it.
func (b *inbox) put(ctx context.Context, m *transport.Message, full func()) {
	for !b.offer(m) {
		full()
		select {
		case <-b.room:
		case <-ctx.Done():
			return
		}
	}
}

// offer adds a message where there is room, and reports whether it needs no further try.
func (b *inbox) offer(m *transport.Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended:
		return true
	case b.count > 0 && (b.count >= inboxMessages || b.bytes+len(m.Body) > inboxBytes):
		return false
	}
	b.queue[(b.first+b.count)%inboxMessages] = m
	b.count++
	b.bytes += len(m.Body)
	signal(b.more)
	return true
}

// get gives the next message, which is valid until the following get, or how the stream ended. It waits until ctx ends.
func (b *inbox) get(ctx context.Context) (*transport.Message, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err // who has been cancelled does not work off what is left
		}
		if m, err, ok := b.take(); ok {
			return m, err
		}
		select {
		case <-b.more:
		case <-ctx.Done():
		}
	}
}

func (b *inbox) take() (m *transport.Message, err error, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recycle()
	switch {
	case b.count > 0:
		m, b.queue[b.first] = b.queue[b.first], nil
		b.first = (b.first + 1) % inboxMessages
		b.count--
		b.bytes -= len(m.Body)
		b.given = m
		signal(b.room)
		return m, nil, true
	case !b.ended:
		return nil, nil, false
	case b.err != nil:
		return nil, b.err, true
	}
	return nil, io.EOF, true
}

// recycle takes back what the handler received before. It keeps no more storage than the queue may have.
func (b *inbox) recycle() {
	m := b.given
	b.given = nil
	if m == nil || len(b.free) >= inboxMessages || b.kept+cap(m.Body) > inboxBytes {
		return
	}
	b.free = append(b.free, m)
	b.kept += cap(m.Body)
}

// end ends the stream of messages; the first end counts. What was put before is still there to get.
func (b *inbox) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.ended, b.err = true, err
	}
	signal(b.more)
	signal(b.room)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
