package main

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

// mux has many calls under way on a connection. A frame is four bytes of length, four of the call's number, and the body.
type mux struct{}

const head = 8

func (mux) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call {
		return worker.Place{}, worker.ErrUnfit
	}
	return accept(func(conn net.Conn) {
		w, r := &writer{conn: conn}, &reader{conn: conn, buf: make([]byte, readBuffer)}
		var body []byte // of frames that are larger than the reader's buffer
		for {
			// The answers of all frames that one read brought go out together.
			if !r.whole() && w.flush(false) != nil {
				return
			}
			size, id, err := r.head()
			if err != nil {
				return
			}
			if size <= len(r.buf)-head {
				in, err := r.body(size)
				if err != nil {
					return
				}
				w.append(id, in)
				continue
			}
			body = grow(body, size)
			if r.into(body) != nil {
				return
			}
			w.append(id, body)
		}
	})
}

func grow(b []byte, size int) []byte {
	if cap(b) < size {
		return make([]byte, size)
	}
	return b[:size]
}

func (mux) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	conns := make([]*link, c.Conns)
	for i := range conns {
		conn, err := net.Dial("tcp", at.Address)
		if err != nil {
			return nil, err
		}
		conns[i] = &link{w: &writer{conn: conn}, r: &reader{conn: conn, buf: make([]byte, readBuffer)}}
	}
	var ops []worker.Op
	for i := range c.Callers {
		l, payload := conns[i%len(conns)], worker.Payload(c.Payload)
		slot := l.slot()
		ops = append(ops, func() error {
			body, err := l.call(slot, payload)
			if err != nil {
				return err
			}
			return worker.Check(body, payload)
		})
	}
	for _, l := range conns {
		go l.read()
	}
	return ops, nil
}

// link is a client's connection. The slots of its callers are all there before its reader starts.
type link struct {
	w        *writer
	r        *reader
	slots    []*slot
	underWay atomic.Int32
}

// slot is where a caller waits for its answer.
type slot struct {
	id   uint32
	body []byte
	done chan error
}

func (l *link) slot() *slot {
	s := &slot{id: uint32(len(l.slots)), done: make(chan error, 1)}
	l.slots = append(l.slots, s)
	return s
}

func (l *link) call(s *slot, payload []byte) ([]byte, error) {
	others := l.underWay.Add(1) > 1
	defer l.underWay.Add(-1)
	l.w.append(s.id, payload)
	if err := l.w.flush(others); err != nil {
		return nil, err
	}
	err := <-s.done
	return s.body, err
}

// read hands answers to their callers, until the connection ends.
func (l *link) read() {
	for {
		size, id, err := l.r.head()
		if err == nil && int(id) >= len(l.slots) {
			err = net.ErrClosed
		}
		if err != nil {
			for _, s := range l.slots {
				select {
				case s.done <- err:
				default:
				}
			}
			return
		}
		s := l.slots[id]
		s.body = grow(s.body, size)
		s.done <- l.r.into(s.body)
	}
}

// reader reads frames through a buffer.
type reader struct {
	conn       net.Conn
	buf        []byte
	start, end int
}

// whole reports whether the next frame is in the buffer.
func (r *reader) whole() bool {
	have := r.end - r.start
	return have >= head && have >= head+int(binary.LittleEndian.Uint32(r.buf[r.start:]))
}

// head takes the next frame's head.
func (r *reader) head() (size int, id uint32, err error) {
	b, err := r.body(head)
	if err != nil {
		return 0, 0, err
	}
	return int(binary.LittleEndian.Uint32(b)), binary.LittleEndian.Uint32(b[4:]), nil
}

// body takes the next size bytes, which fit into the buffer. They are valid until the next read.
func (r *reader) body(size int) ([]byte, error) {
	if r.end-r.start < size {
		if r.start > 0 {
			r.end = copy(r.buf, r.buf[r.start:r.end])
			r.start = 0
		}
		n, err := io.ReadAtLeast(r.conn, r.buf[r.end:], size-r.end)
		r.end += n
		if err != nil {
			return nil, err
		}
	}
	b := r.buf[r.start : r.start+size]
	r.start += size
	return b, nil
}

// into takes the next len(b) bytes. What the buffer does not have is read into b itself.
func (r *reader) into(b []byte) error {
	n := copy(b, r.buf[r.start:r.end])
	r.start += n
	if missing := len(b) - n; missing >= len(r.buf) {
		_, err := io.ReadFull(r.conn, b[n:])
		return err
	} else if missing > 0 {
		rest, err := r.body(missing)
		copy(b[n:], rest)
		return err
	}
	return nil
}
