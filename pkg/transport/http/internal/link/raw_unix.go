//go:build unix

package link

import (
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/cb02dfca/micro/internal/socket"
)

// errWouldBlock says that the system would have to wait.
var errWouldBlock = errors.New("link: would block")

// rawOf gives the door to tcp's socket; nil where there is none.
func rawOf(tcp *net.TCPConn) syscall.RawConn {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readRaw reads what is there. It is what RawConn.Read calls; false tells it to wait, without a buffer.
func (in *input) readRaw(fd uintptr) bool {
	for {
		buf := in.target()
		n, err := socket.Read(fd, buf)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			in.rest()
			in.n, in.fault = 0, errWouldBlock
			return in.probing
		case err != nil:
			in.n, in.fault = 0, err
		case n == 0:
			in.n, in.fault = 0, io.EOF
		default:
			in.n, in.fault = n, nil
		}
		return true
	}
}
