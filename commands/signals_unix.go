//go:build unix

package commands

import (
	"os"
	"syscall"
)

// leave ends the process by a signal that is caught no more, so that its parent is told by which.
func leave(s os.Signal) {
	if number, ok := s.(syscall.Signal); ok {
		_ = syscall.Kill(os.Getpid(), number) // of our own process: cannot fail
	}
}
