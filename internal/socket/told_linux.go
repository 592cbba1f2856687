//go:build race

package socket

import "golang.org/x/sys/unix"

// Vector is chunks as the system takes them: at most 1024.
type Vector [][]byte

// With gives v with p behind it.
func (v Vector) With(p []byte) Vector { return append(v, p) }

// Writev writes v, which has size bytes, to a socket that does not wait.
func Writev(fd uintptr, v Vector, _ int) (int, error) { return unix.Writev(int(fd), v) }
