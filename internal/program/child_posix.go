//go:build unix && !linux

package program

import "syscall"

// groupLeader makes the process lead a group. These systems have no parent-death signal: a process outlives us where we
// are killed by SIGKILL.
func groupLeader() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// await waits until the process has ended.
func (c *child) await() {
	c.state, _ = c.proc.Wait() // an error leaves state nil, and reap meets it again
}
