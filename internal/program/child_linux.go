package program

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// groupLeader makes the process lead a group, and has the kernel kill it when our process dies, however it dies.
func groupLeader() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// await waits until the process has ended and leaves it a zombie.
func (c *child) await() {
	for {
		err := unix.Waitid(unix.P_PID, c.proc.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
