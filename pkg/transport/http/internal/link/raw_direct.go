//go:build linux && !race

package link

import (
	"syscall"
	"unsafe"
)

// brief is how much, in bytes, is read or written without leave of the Go scheduler. A system call of package syscall gives its processor
// away for the case that it waits. One on a socket that does not wait only copies, as any other code does; all the same the scheduler's
// monitor comes upon many of them, and has another thread wake up, take the processor over, and find nothing to do: see docs/speed.md for
// what that costs. What is longer than this takes so long, a tenth of a millisecond and more, that others should have the processor.
const brief = 1 << 20

// readNow is syscall.Read of a socket that does not wait.
func readNow(fd uintptr, p []byte) (int, error) {
	if len(p) == 0 || len(p) > brief {
		return syscall.Read(int(fd), p)
	}
	return done(syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))))
}

// writeNow is syscall.Write to a socket that does not wait.
func writeNow(fd uintptr, p []byte) (int, error) {
	if len(p) == 0 || len(p) > brief {
		return syscall.Write(int(fd), p)
	}
	return done(syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))))
}

// vector is chunks as the system takes them.
type vector []syscall.Iovec

func (v vector) with(p []byte) vector {
	entry := syscall.Iovec{Base: unsafe.SliceData(p)}
	entry.SetLen(len(p))
	return append(v, entry)
}

// writevNow writes v, which has size bytes, to a socket that does not wait.
func writevNow(fd uintptr, v vector, size int) (int, error) {
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
