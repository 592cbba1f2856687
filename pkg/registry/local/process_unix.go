//go:build unix

package local

import (
	"os"

	"golang.org/x/sys/unix"
)

// running reports whether there is a process of that number. In doubt there is.
func running(pid int) bool { return unix.Kill(pid, 0) != unix.ESRCH }

// processSpace names the namespace of process numbers, on Linux (pid_namespaces(7)).
func processSpace() string {
	name, _ := os.Readlink("/proc/self/ns/pid")
	return name
}
