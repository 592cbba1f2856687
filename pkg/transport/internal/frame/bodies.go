package frame

import (
	"math/bits"
	"sync"
)

// Bodies is a Store for many connections. The zero value is ready. Its methods may be called concurrently.
type Bodies struct {
	bodies [bodyClasses]sync.Pool // by size: see class
	boxes  sync.Pool              // what bodies lie in, without them
}

var _ Store = (*Bodies)(nil)

// bodyClasses is how many sizes of bodies are told apart: each is twice the one before, from Large on.
const bodyClasses = 12

// class gives the class of storage of n bytes: it has at least Large<<class.
func class(n int) int {
	return min(max(bits.Len(uint(n)/Large)-1, 0), bodyClasses-1)
}

// Body implements Store.
func (b *Bodies) Body(n int) []byte {
	fits := class(max(n-1, 0)) + 1 // all of this class, and above it, do; of the one below some
	if n <= Large {
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

func (b *Bodies) take(class int) []byte {
	box, ok := b.bodies[class].Get().(*[]byte)
	if !ok {
		return nil
	}
	body := *box
	*box = nil
	b.boxes.Put(box)
	return body[:0]
}

// Keep implements Store.
func (b *Bodies) Keep(body []byte) {
	if cap(body) >= Large {
		box, home := b.Box(body[:0])
		home.Put(box)
	}
}

// Box puts body, of Large bytes at least, into what home keeps bodies in: putting box there is to Keep it.
func (b *Bodies) Box(body []byte) (box *[]byte, home *sync.Pool) {
	box, ok := b.boxes.Get().(*[]byte)
	if !ok {
		box = new([]byte)
	}
	*box = body
	return box, &b.bodies[class(cap(body))]
}
