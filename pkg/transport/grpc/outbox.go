package grpc

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/cb02dfca/micro/pkg/transport"
)

// maxWaiting is how many bytes of messages wait to be sent before Send waits. One message is taken whatever its size.
const maxWaiting = 64 << 10

// outbox is the body of a stream's request: what one side puts, net/http reads.
type outbox struct {
	headers chan struct{} // closed when the request's headers have been written
	once    sync.Once
	more    chan struct{} // a hint: there is something to read
	room    chan struct{} // a hint: there is room
	gone    chan struct{} // closed when net/http reads no more

	mu     sync.Mutex
	buf    []byte
	at     int // what of buf was read
	ended  bool
	closed bool
}

func (o *outbox) init() {
	o.headers, o.gone = make(chan struct{}), make(chan struct{})
	o.more, o.room = make(chan struct{}, 1), make(chan struct{}, 1)
}

// opened notes that the headers have been written.
func (o *outbox) opened() { o.once.Do(func() { close(o.headers) }) }

// put adds a message, and waits for room until ctx ends. What comes after the end of the request is dropped: nobody reads it.
func (o *outbox) put(ctx context.Context, body []byte, pack bool) error {
	for {
		o.mu.Lock()
		switch {
		case o.closed || o.ended:
			o.mu.Unlock()
			return nil
		case len(o.buf)-o.at < maxWaiting:
			if o.at > 0 && len(o.buf)+len(body) > cap(o.buf) {
				o.buf = append(o.buf[:0], o.buf[o.at:]...)
				o.at = 0
			}
			o.buf = appendFrame(o.buf, body, pack)
			o.mu.Unlock()
			signal(o.more)
			return nil
		}
		o.mu.Unlock()
		select {
		case <-o.room:
		case <-o.gone:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", transport.ErrNotSent, ctx.Err())
		}
	}
}

// end says that no more is put.
func (o *outbox) end() {
	o.mu.Lock()
	o.ended = true
	o.mu.Unlock()
	signal(o.more)
}

// Read gives what is to be sent, and io.EOF after the last.
func (o *outbox) Read(p []byte) (int, error) {
	for {
		o.mu.Lock()
		n := copy(p, o.buf[o.at:])
		o.at += n
		if o.at == len(o.buf) {
			o.buf, o.at = o.buf[:0], 0
			if cap(o.buf) > 2*maxWaiting {
				o.buf = nil
			}
		}
		empty, ended, closed := len(o.buf) == 0, o.ended, o.closed
		o.mu.Unlock()
		switch {
		case closed:
			return 0, io.ErrClosedPipe
		case n > 0:
			signal(o.room)
			if empty && ended {
				return n, io.EOF
			}
			return n, nil
		case ended:
			return 0, io.EOF
		}
		select {
		case <-o.more:
		case <-o.gone:
		}
	}
}

// Close says that net/http reads no more.
func (o *outbox) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed, o.buf, o.at = true, nil, 0
		close(o.gone)
	}
	return nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
