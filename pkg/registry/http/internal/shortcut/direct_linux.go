package shortcut

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// small is what a system call takes or gives in so short a time that Go's scheduler need not be told of it.
const small = 256 << 10

// Direct makes a TCP listener's connections read and write without telling Go's scheduler of the system calls. Their sockets do not block, so
// that there is nothing to tell; but where a process is idle most of the time, each such notice wakes the scheduler's monitor, a thread that
// then looks a few times whether anything blocks, at half of what a short request costs. Other listeners are as they were.
func Direct(l net.Listener) net.Listener {
	if _, ok := l.(*net.TCPListener); !ok {
		return l
	}
	return directListener{l}
}

type directListener struct{ net.Listener }

func (l directListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			return &direct{TCPConn: tcp, raw: raw}, nil
		}
	}
	return c, nil
}

type direct struct {
	*net.TCPConn
	raw syscall.RawConn
}

func (c *direct) Read(p []byte) (n int, err error) {
	if len(p) == 0 || len(p) > small {
		return c.TCPConn.Read(p)
	}
	var errno syscall.Errno
	err = c.raw.Read(func(fd uintptr) bool {
		n, errno = call(syscall.SYS_READ, fd, p)
		return errno != syscall.EAGAIN
	})
	switch {
	case err != nil:
		return 0, c.failed("read", err)
	case errno != 0:
		return 0, c.failed("read", os.NewSyscallError("read", errno))
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (c *direct) Write(p []byte) (n int, err error) {
	if len(p) == 0 || len(p) > small {
		return c.TCPConn.Write(p)
	}
	var errno syscall.Errno
	err = c.raw.Write(func(fd uintptr) bool {
		for n < len(p) {
			var took int
			took, errno = call(syscall.SYS_WRITE, fd, p[n:])
			switch n += took; {
			case errno == syscall.EAGAIN:
				return false
			case errno != 0:
				return true
			}
		}
		return true
	})
	switch {
	case err != nil:
		return n, c.failed("write", err)
	case errno != 0:
		return n, c.failed("write", os.NewSyscallError("write", errno))
	}
	return n, nil
}

// failed gives an error as net's own connections do.
func (c *direct) failed(op string, err error) error {
	if raw, ok := err.(*net.OpError); ok { // of net's, for raw access
		err = raw.Err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// call makes a system call again where a signal interrupts it.
func call(trap, fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch errno {
		case syscall.EINTR:
		case 0:
			return int(n), 0
		default:
			return 0, errno
		}
	}
}
