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
	queue []*transport.Message
	bytes int
	ended bool
	err   error         // why it ended; nil for the peer's End
	more  chan struct{} // a hint: there is something to get
	room  chan struct{} // a hint: there is something to put, or no need to
}

func newInbox() *inbox {
	return &inbox{more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
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
	case len(b.queue) > 0 && (len(b.queue) >= inboxMessages || b.bytes+len(m.Body) > inboxBytes):
		return false
	}
	b.queue = append(b.queue, m)
	b.bytes += len(m.Body)
	signal(b.more)
	return true
}

// get gives the next message, or how the stream ended. It waits until ctx ends.
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
	switch {
	case len(b.queue) > 0:
		m, b.queue[0] = b.queue[0], nil
		b.queue = b.queue[1:]
		b.bytes -= len(m.Body)
		signal(b.room)
		return m, nil, true
	case !b.ended:
		return nil, nil, false
	case b.err != nil:
		return nil, b.err, true
	}
	return nil, io.EOF, true
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
