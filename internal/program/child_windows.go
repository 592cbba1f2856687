package program

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

const (
	pipesHoldInline = false
	hasReport       = false
)

// child is a started process in a Job object of its own. Windows ends the job, and all that is in it, when its last
// handle is closed: when we die, too. What the process starts in the moment before it is put into the job stays out.
type child struct {
	proc *os.Process
	job  windows.Handle
}

func startChild(path string, argv []string, attr *os.ProcAttr) (*child, error) {
	job, err := newJob()
	if err != nil {
		return nil, err
	}
	proc, err := os.StartProcess(path, argv, attr)
	if err != nil {
		_ = windows.CloseHandle(job)
		return nil, err
	}
	c := &child{proc: proc, job: job}
	if err := c.join(); err != nil {
		_ = proc.Kill()
		_ = c.reap()
		return nil, err
	}
	return c, nil
}

func newJob() (windows.Handle, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return 0, fmt.Errorf("job object: %w", err)
	}
	var info windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	info.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	if err != nil {
		_ = windows.CloseHandle(job)
		return 0, fmt.Errorf("job object: %w", err)
	}
	return job, nil
}

// join puts the process into its job. That it has ended already is no error.
func (c *child) join() error {
	h, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(c.proc.Pid))
	if err != nil {
		return fmt.Errorf("job object: %w", err)
	}
	defer windows.CloseHandle(h)
	if err := windows.AssignProcessToJobObject(c.job, h); err != nil {
		return fmt.Errorf("job object: %w", err)
	}
	return nil
}

// await waits until the process has ended.
func (c *child) await() {
	h, err := windows.OpenProcess(windows.SYNCHRONIZE, false, uint32(c.proc.Pid))
	if err != nil {
		return // reap waits
	}
	defer windows.CloseHandle(h)
	_, _ = windows.WaitForSingleObject(h, windows.INFINITE)
}

// terminate kills: Windows has no request to end that every program hears.
func (c *child) terminate() { c.kill() }

// kill ends the job.
func (c *child) kill() { _ = windows.TerminateJobObject(c.job, 1) }

// reap gives how the process ended, and releases it.
func (c *child) reap() exit {
	defer windows.CloseHandle(c.job)
	state, err := c.proc.Wait()
	if err != nil {
		return exit{code: -1}
	}
	return exit{code: state.ExitCode()}
}

func readReport(*os.File) []byte { return nil }
