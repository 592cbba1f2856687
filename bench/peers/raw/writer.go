package main

import (
	"encoding/binary"
	"net"
	"runtime"
	"sync"
)

const chunkSize = 32 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// writer combines frames: one of those who have appended writes for all, the others go on. The frames stand in chunks that
// are pooled, so a connection at rest holds none.
type writer struct {
	conn net.Conn

	mu      sync.Mutex
	pending []*[chunkSize]byte
	used    int // of the last chunk
	writing bool
	err     error

	// Of who writes.
	taken []*[chunkSize]byte
	iov   [][]byte
}

// append queues a frame.
func (w *writer) append(id uint32, body []byte) {
	var h [head]byte
	binary.LittleEndian.PutUint32(h[:], uint32(len(body)))
	binary.LittleEndian.PutUint32(h[4:], id)
	w.mu.Lock()
	w.copy(h[:])
	w.copy(body)
	w.mu.Unlock()
}

func (w *writer) copy(b []byte) {
	for len(b) > 0 {
		if len(w.pending) == 0 || w.used == chunkSize {
			w.pending = append(w.pending, chunks.Get().(*[chunkSize]byte))
			w.used = 0
		}
		n := copy(w.pending[len(w.pending)-1][w.used:], b)
		w.used += n
		b = b[n:]
	}
}

// flush writes what is pending, unless another goroutine does already. With yield it lets others append first.
func (w *writer) flush(yield bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writing || len(w.pending) == 0 {
		return w.err
	}
	w.writing = true
	if yield {
		w.mu.Unlock()
		runtime.Gosched()
		w.mu.Lock()
	}
	for len(w.pending) > 0 && w.err == nil {
		w.pending, w.taken = w.taken[:0], w.pending
		last := w.used
		w.mu.Unlock()
		err := w.write(last)
		w.mu.Lock()
		w.err = err
	}
	w.writing = false
	return w.err
}

// write writes the taken chunks, the last up to the given length, with one system call where they fit.
func (w *writer) write(last int) error {
	iov := w.iov[:0]
	for i, c := range w.taken {
		if i == len(w.taken)-1 {
			iov = append(iov, c[:last])
		} else {
			iov = append(iov, c[:])
		}
	}
	w.iov = iov
	var err error
	if len(iov) == 1 {
		_, err = w.conn.Write(iov[0])
	} else {
		buffers := net.Buffers(iov)
		_, err = buffers.WriteTo(w.conn)
	}
	for _, c := range w.taken {
		chunks.Put(c)
	}
	return err
}
