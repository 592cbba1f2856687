package mucp

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ErrClosed is the error of a write after Close.
var ErrClosed = errors.New("mucp: closed")

// maxPending is how much may wait to be written, in bytes, before a further message has to wait. One is taken whatever its size.
const maxPending = 64 << 10

// keepBuffer is the largest storage, in bytes, that is kept for what is written next.
const keepBuffer = 256 << 10

// Writer writes messages to a connection: a message leaves in one write, and perhaps others with it. Its methods may be called
// concurrently.
type Writer struct {
	nc      net.Conn
	timeout time.Duration // of each write

	mu      sync.Mutex
	pending []byte
	spare   []byte // storage
	writing bool
	err     error         // why nothing is written any more
	room    chan struct{} // a hint: pending has become less, or err is set
	idle    chan struct{} // closed when nothing is being written; nil where nobody waits for that
}

// NewWriter gives a Writer to nc. A write that takes longer than timeout breaks the connection, as does one that fails.
func NewWriter(nc net.Conn, timeout time.Duration) *Writer {
	return &Writer{nc: nc, timeout: timeout, room: make(chan struct{}, 1)}
}

// Write writes the message that message appends to what it gets. Where too much is pending it waits for room first, until ctx ends.
// message runs once, under a lock, or not at all where there is an error. With wait the message has been written when Write returns,
// unless another goroutine is writing; else it is being written.
func (w *Writer) Write(ctx context.Context, wait bool, message func(dst []byte) []byte) error {
	w.mu.Lock()
	for w.err == nil && len(w.pending) >= maxPending {
		w.mu.Unlock()
		select {
		case <-w.room:
		case <-ctx.Done():
			return ctx.Err()
		}
		w.mu.Lock()
	}
	if w.err != nil {
		defer w.mu.Unlock()
		w.signal() // to the next who waits
		return w.err
	}
	w.pending = message(w.pending)
	if len(w.pending) < maxPending {
		w.signal()
	}
	begin := !w.writing
	w.writing = true
	w.mu.Unlock()
	switch {
	case begin && wait:
		w.flush()
	case begin:
		go w.flush()
	}
	return nil
}

// signal hints at room. The caller holds the lock.
func (w *Writer) signal() {
	select {
	case w.room <- struct{}{}:
	default:
	}
}

// flush writes until nothing is pending.
func (w *Writer) flush() {
	for {
		out := w.next()
		if out == nil {
			return
		}
		_ = w.nc.SetWriteDeadline(time.Now().Add(w.timeout)) // fails on a connection that has gone, as the write does
		if _, err := w.nc.Write(out); err != nil {
			w.fail(err)
		}
		w.keep(out)
	}
}

// next gives what is to be written now; nil where there is nothing.
func (w *Writer) next() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pending) == 0 || w.err != nil {
		w.writing = false
		if w.idle != nil {
			close(w.idle)
			w.idle = nil
		}
		return nil
	}
	out := w.pending
	w.pending, w.spare = w.spare[:0], nil
	w.signal()
	return out
}

// keep keeps the storage of what was written.
func (w *Writer) keep(out []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cap(out) <= keepBuffer {
		w.spare = out
	}
}

// fail breaks the connection: a part of a message may have been written.
func (w *Writer) fail(err error) {
	w.mu.Lock()
	w.err = err
	w.signal()
	w.mu.Unlock()
	w.nc.Close()
}

// Drain waits, until ctx ends, for what is being written.
func (w *Writer) Drain(ctx context.Context) {
	w.mu.Lock()
	if !w.writing {
		w.mu.Unlock()
		return
	}
	if w.idle == nil {
		w.idle = make(chan struct{})
	}
	idle := w.idle
	w.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// Close has further writes fail with ErrClosed. The connection is its owner's to close.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = ErrClosed
	}
	w.signal()
}

// AppendHeader appends the lines of h, sorted by their names, which are canonical.
func AppendHeader(dst []byte, h http.Header) []byte {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			dst = AppendLine(dst, name, value)
		}
	}
	return dst
}

// AppendLine appends the line of a header. What would end the line becomes a space.
func AppendLine(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	at := len(dst)
	dst = append(dst, value...)
	for i, c := range dst[at:] {
		if c < ' ' || c == 0x7f {
			dst[at+i] = ' '
		}
	}
	return append(dst, "\r\n"...)
}

// AppendLength appends the beginning of a response with status 200 whose body has length bytes. The other headers' lines follow, an empty line, and
// the body.
func AppendLength(dst []byte, length int) []byte {
	dst = append(dst, "HTTP/1.1 200 OK\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(length), 10)
	return append(dst, "\r\n"...)
}

// AppendResponse appends a response: lines are those of its headers, but for the length of its body.
func AppendResponse(dst []byte, status int, lines, body []byte) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(status)...)
	dst = append(dst, "\r\n"...)
	return appendMessage(dst, lines, body)
}

// AppendRequest appends a request with the method POST, as AppendResponse does a response. path begins with "/".
func AppendRequest(dst []byte, host, path string, lines, body []byte) []byte {
	return appendMessage(appendPost(dst, host, path), lines, body)
}

// AppendEnd appends a request without a body in the form that go-micro's clients give to the one that ends a stream: chunked. lines have the
// Micro-Error.
func AppendEnd(dst []byte, host, path string, lines []byte) []byte {
	dst = append(appendPost(dst, host, path), "Transfer-Encoding: chunked\r\n"...)
	dst = append(dst, lines...)
	return append(dst, "\r\n0\r\n\r\n"...)
}

func appendPost(dst []byte, host, path string) []byte {
	dst = append(append(append(dst, "POST "...), path...), " HTTP/1.1\r\n"...)
	return AppendLine(dst, "Host", host)
}

func appendMessage(dst, lines, body []byte) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(append(append(dst, "\r\n"...), lines...), "\r\n"...)
	return append(dst, body...)
}
