//go:build unix

package http

import (
	"errors"
	"net"
	"syscall"
)

// ended reports whether the peer of a connection on which nothing is awaited has closed it, as far as this machine has heard. Bytes that
// wait there are TLS's farewell, or no answer to anything.
func ended(nc net.Conn) bool {
	tcp := tcpOf(nc)
	if tcp == nil {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	quiet := false
	err = raw.Control(func(fd uintptr) { // and not Read, which would wait for whoever reads
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
	})
	return err != nil || !quiet
}
