//go:build unix

package commands

import (
	"os"

	"golang.org/x/sys/unix"
)

// readerGone reports whether the other end of a pipe or a socket is closed: poll(2) tells it unasked.
func readerGone(f *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(f.Fd())}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0
}
