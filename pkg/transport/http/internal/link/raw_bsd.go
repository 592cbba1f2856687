//go:build unix && !linux

package link

import (
	"errors"
	"syscall"
)

// writeRaw writes what the system takes at once. It is what RawConn.Write calls; true tells it not to wait,
// false to call again when the system takes more.
func (w *writer) writeRaw(fd uintptr) bool {
	for {
		n, err := writeNow(fd, w.batch[0].data)
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

func readNow(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }

func writeNow(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
