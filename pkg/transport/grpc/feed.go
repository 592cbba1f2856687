package grpc

import (
	"context"
	"sync"

	"github.com/cb02dfca/micro/pkg/transport"
)

// feed carries the messages of a stream from the goroutine that reads them to the one that receives them. One puts and one
// gets.
type feed struct {
	next chan *transport.Message
	free chan *transport.Message

	once  sync.Once
	ended chan struct{}
	err   error // set before ended is closed
}

func (f *feed) init() {
	f.next, f.free, f.ended = make(chan *transport.Message), make(chan *transport.Message, 2), make(chan struct{})
}

// spare gives a message to read into.
func (f *feed) spare() *transport.Message {
	select {
	case m := <-f.free:
		m.Reset()
		return m
	default:
		return new(transport.Message)
	}
}

// put hands m on, and reports whether it did before done was closed.
func (f *feed) put(m *transport.Message, done <-chan struct{}) bool {
	select {
	case f.next <- m:
		return true
	case <-done:
		return false
	}
}

// end says that nothing follows. The first end counts.
func (f *feed) end(err error) {
	f.once.Do(func() {
		f.err = err
		close(f.ended)
	})
}

// get gives the next message, whose storage and m's change places. After the end it gives that error, and where done is closed
// transport.ErrClosed.
func (f *feed) get(ctx context.Context, m *transport.Message, done <-chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case got := <-f.next:
		f.swap(m, got)
		return nil
	default:
	}
	select {
	case got := <-f.next:
		f.swap(m, got)
		return nil
	case <-f.ended:
		return f.err
	case <-done:
		return transport.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// swap gives got in m. What m had is read into later, if it is not too large to be kept.
func (f *feed) swap(m, got *transport.Message) {
	*m, *got = *got, *m
	if cap(got.Body) > keepStorage {
		got.Body = nil
	}
	select {
	case f.free <- got:
	default:
	}
}
