//go:build unix

package program

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	pipesHoldInline = true
	hasReport       = true
)

// child is a started process, the leader of its group.
type child struct {
	proc  *os.Process
	state *os.ProcessState
}

func startChild(path string, argv []string, attr *os.ProcAttr) (*child, error) {
	attr.Sys = groupLeader()
	proc, err := os.StartProcess(path, argv, attr)
	if err != nil {
		return nil, err
	}
	return &child{proc: proc}, nil
}

// terminate asks the group to end. A stopped process could not hear it, so it is woken.
func (c *child) terminate() {
	_ = unix.Kill(-c.proc.Pid, unix.SIGTERM)
	_ = unix.Kill(-c.proc.Pid, unix.SIGCONT)
}

// kill ends the group.
func (c *child) kill() {
	_ = unix.Kill(-c.proc.Pid, unix.SIGKILL)
}

// reap gives how the process ended, and takes it from the system's table.
func (c *child) reap() exit {
	if c.state == nil {
		state, err := c.proc.Wait()
		if err != nil {
			return exit{code: -1}
		}
		c.state = state
	}
	ws, ok := c.state.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return exit{code: -1, signal: signalName(ws.Signal())}
	}
	return exit{code: c.state.ExitCode()}
}

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return "signal " + s.String()
}

// maxReport is the limit of what file descriptor 3 carries: what a pipe holds, for nobody reads it meanwhile.
const maxReport = 64 << 10

// readReport gives what the pipe holds, without waiting for its end: a descendant may hold it open.
func readReport(f *os.File) []byte {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	var buf []byte
	_ = raw.Read(func(fd uintptr) bool {
		var first [512]byte
		n, err := unix.Read(int(fd), first[:])
		for err == nil && n > 0 && len(buf) < maxReport {
			buf = append(buf, first[:n]...)
			n, err = unix.Read(int(fd), first[:])
		}
		return true
	})
	return buf
}
