//go:build linux && !race

package socket

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// brief is how much, in bytes, is read or written without telling the scheduler.
const brief = 1 << 20

// Read is syscall.Read of a socket that does not wait.
func Read(fd uintptr, p []byte) (int, error) {
	if len(p) == 0 || len(p) > brief {
		return syscall.Read(int(fd), p)
	}
	return done(syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))))
}

// Write is syscall.Write to a socket that does not wait.
func Write(fd uintptr, p []byte) (int, error) {
	if len(p) == 0 || len(p) > brief {
		return syscall.Write(int(fd), p)
	}
	return done(syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))))
}

// Vector is chunks as the system takes them: at most 1024.
type Vector []syscall.Iovec

// With gives v with p behind it.
func (v Vector) With(p []byte) Vector {
	entry := syscall.Iovec{Base: unsafe.SliceData(p)}
	entry.SetLen(len(p))
	return append(v, entry)
}

// Writev writes v, which has size bytes, to a socket that does not wait.
func Writev(fd uintptr, v Vector, size int) (int, error) {
	call := syscall.RawSyscall
	if size > brief {
		call = syscall.Syscall
	}
	return done(call(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v))))
}

func done(n, _ uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// conn is a connection whose system calls are those of this package.
type conn struct {
	*net.TCPConn
	raw syscall.RawConn
}

func direct(tcp *net.TCPConn) net.Conn {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return tcp
	}
	return &conn{TCPConn: tcp, raw: raw}
}

// NetConn gives what is below.
func (c *conn) NetConn() net.Conn { return c.TCPConn }

// transfer is a read or a write under way, with what RawConn calls: made once, as they would else be made for each.
type transfer struct {
	p           []byte
	n           int
	err         error
	read, write func(fd uintptr) bool
}

var transfers = sync.Pool{New: func() any {
	t := new(transfer)
	t.read, t.write = t.readOnce, t.writeAll
	return t
}}

// readOnce reads what is there. False waits for something to be there.
func (t *transfer) readOnce(fd uintptr) bool {
	for {
		t.n, t.err = Read(fd, t.p)
		if t.err != syscall.EINTR { //nolint:errorlint // it comes from the system
			return t.err != syscall.EAGAIN //nolint:errorlint // likewise
		}
	}
}

// writeAll writes what is left. False waits for room.
func (t *transfer) writeAll(fd uintptr) bool {
	for t.n < len(t.p) {
		n, err := Write(fd, t.p[t.n:])
		switch t.err = err; err { //nolint:errorlint // it comes from the system
		case nil:
			t.n += n
		case syscall.EINTR:
		default:
			return err != syscall.EAGAIN //nolint:errorlint // likewise
		}
	}
	return true
}

// end gives what became of t, with the error of package net's waiting, as op of net's own connections does.
func (c *conn) end(t *transfer, op string, waiting error) (int, error) {
	n, err := max(t.n, 0), t.err
	t.p, t.n, t.err = nil, 0, nil
	transfers.Put(t)
	switch {
	case waiting != nil:
		if e, ok := waiting.(*net.OpError); ok { //nolint:errorlint // it is net's own
			waiting = e.Err
		}
		err = waiting
	case err != nil:
		err = os.NewSyscallError(op, err)
	default:
		return n, nil
	}
	return n, &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return c.TCPConn.Read(p)
	}
	t := transfers.Get().(*transfer)
	t.p = p
	n, err := c.end(t, "read", c.raw.Read(t.read))
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return c.TCPConn.Write(p)
	}
	t := transfers.Get().(*transfer)
	t.p = p
	return c.end(t, "write", c.raw.Write(t.write))
}
