package unsent

import (
	"net"

	"golang.org/x/sys/unix"
)

// limit has the system take no more bytes while it has that many to send.
func limit(tc *net.TCPConn, bytes int) {
	raw, err := tc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
	})
}
