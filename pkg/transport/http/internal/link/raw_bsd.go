//go:build unix && !linux

package link

import (
	"errors"
	"syscall"

	"github.com/cb02dfca/micro/internal/socket"
)

// writeRaw writes what the system takes at once. It is what RawConn.Write calls; true tells it not to wait,
// false to call again when the system takes more.
func (w *writer) writeRaw(fd uintptr) bool {
	for {
		n, err := socket.Write(fd, w.batch[0].data)
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

// vector stays empty: chunks are written one by one.
type vector [][]byte
