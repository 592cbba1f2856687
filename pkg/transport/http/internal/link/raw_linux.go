package link

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// writeRaw writes what the system takes at once, of all chunks by one call. It is what RawConn.Write calls; true tells it
// not to wait, false to call again when the system takes more.
func (w *writer) writeRaw(fd uintptr) bool {
	for {
		var n int
		var err error
		if len(w.batch) == 1 {
			n, err = syscall.Write(int(fd), w.batch[0].data)
		} else {
			n, err = unix.Writev(int(fd), w.vector())
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
