//go:build unix && (!linux || race)

package socket

import "syscall"

// Read is syscall.Read of a socket that does not wait.
func Read(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }

// Write is syscall.Write to a socket that does not wait.
func Write(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
