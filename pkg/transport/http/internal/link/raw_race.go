//go:build linux && race

package link

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// The race detector has to be told what the system reads and writes, so that all calls go by packages that tell it: see raw_direct.go.

func readNow(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }

func writeNow(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }

type vector [][]byte

func (v vector) with(p []byte) vector { return append(v, p) }

func writevNow(fd uintptr, v vector, _ int) (int, error) { return unix.Writev(int(fd), v) }
