package link

import (
	"net"

	"golang.org/x/sys/unix"
)

// onlyOwnGroups takes away Linux's default, by which a socket gets the packets of every group that any socket of the
// machine has joined, on any interface (ip(7), IP_MULTICAST_ALL). Without it the interfaces that were asked for hold.
func onlyOwnGroups(c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0) })
}
