package link

import (
	"errors"
	"syscall"

	"github.com/cb02dfca/micro/internal/socket"
)

type vector = socket.Vector

// maxVector is how many chunks the system takes at once.
const maxVector = 1024

// writeRaw writes what the system takes at once, of all chunks by one call. It is what RawConn.Write calls; true tells it
// not to wait, false to call again when the system takes more.
func (w *writer) writeRaw(fd uintptr) bool {
	for {
		var n int
		var err error
		if len(w.batch) == 1 {
			n, err = socket.Write(fd, w.batch[0].data)
		} else {
			n, err = w.writeBatch(fd)
		}
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN) && w.waits:
			return false
		case errors.Is(err, syscall.EAGAIN):
			w.fault = errWouldBlock
		case err != nil:
			w.fault = err
		case !w.wrote(n):
			continue
		}
		return true
	}
}

// writeBatch writes the batch, as much as the system takes.
func (w *writer) writeBatch(fd uintptr) (int, error) {
	size := 0
	w.vec = w.vec[:0]
	for _, c := range w.batch[:min(len(w.batch), maxVector)] {
		w.vec, size = w.vec.With(c.data), size+len(c.data)
	}
	n, err := socket.Writev(fd, w.vec, size)
	clear(w.vec)
	return n, err
}
