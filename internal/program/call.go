package program

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// inlineBody is the size up to which a body is written before the process starts: POSIX lets no pipe hold less than
// 512 bytes, and every system of ours holds 4 KiB at least.
const inlineBody = 4 << 10

// call is one process from before its start until after its end. Its supervisor owns all but what mu guards.
type call struct {
	p       *Program
	req     Request
	environ []string

	stdin, stdout, stderr *os.File // our ends
	report                *os.File // the read end of the process's file descriptor 3

	out      []byte
	tooLarge bool
	last     string // the last line of standard error
	reported []byte
	exit     exit
	startErr error

	reading atomic.Int32  // of standard output and standard error, how many are open
	ended   chan struct{} // closed when none is
	written chan struct{} // closed when the body is read no more
	done    chan struct{} // closed when all above is final and the process is gone

	mu       sync.Mutex
	child    *child // nil before the start and after the end
	stopping bool   // SIGTERM was asked for
	escalate *time.Timer
	killed   chan struct{} // closed when SIGKILL was asked for
}

func newCall(p *Program, req Request) *call {
	c := &call{
		p: p, req: req,
		ended:   make(chan struct{}),
		written: make(chan struct{}),
		done:    make(chan struct{}),
		killed:  make(chan struct{}),
	}
	c.reading.Store(2)
	return c
}

// supervise sees the process from start to end.
func (c *call) supervise() {
	defer c.p.dismiss(c)
	defer c.p.o.Gate.leave()
	defer close(c.done)

	// Linux ties the parent-death signal to the thread that started the process, not to our process: the thread is kept
	// for as long as the process runs, so that nobody else can end it.
	runtime.LockOSThread()
	child, err := c.start()
	if err != nil {
		runtime.UnlockOSThread()
		c.startErr = err
		close(c.written)
		return
	}
	child.await()
	runtime.UnlockOSThread()

	c.drain(child)
	c.reported = readReport(c.report)
	c.exit = c.bury(child)
	<-c.ended
	<-c.written
}

// drain waits until standard output and standard error have ended: for WaitDelay after the end of the process, and
// where it was told to go for Grace, since then the others of its group were told as well. Then it ends the group.
func (c *call) drain(child *child) {
	delay := c.p.o.WaitDelay
	c.mu.Lock()
	if c.stopping {
		delay = c.p.o.Grace
	}
	c.mu.Unlock()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-c.ended:
	case <-c.killed:
	case <-timer.C:
	}
	child.kill()
}

// bury takes the process from the system's table. Until here it is a zombie where the system allows it, so that its id,
// which is the group's, is not in use anew when the group is signalled.
func (c *call) bury(child *child) exit {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.child = nil
	if c.escalate != nil {
		c.escalate.Stop()
	}
	// A descendant in a session of its own may hold the other ends for ever.
	closeAll(c.stdin, c.stdout, c.stderr, c.report)
	return child.reap()
}

// stop asks the group to end, and makes it end after Grace.
func (c *call) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return
	}
	c.stopping = true
	c.carryOut()
}

// kill ends the group now.
func (c *call) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isClosed(c.killed) {
		return
	}
	close(c.killed)
	c.carryOut()
}

// carryOut does to the process what stop and kill asked for. mu is held. It does nothing before the start, where begin
// comes back to it, and after the end.
func (c *call) carryOut() {
	switch {
	case c.child == nil:
		return
	case isClosed(c.killed):
		c.child.kill()
	case c.stopping:
		c.child.terminate()
		c.escalate = time.AfterFunc(c.p.o.Grace, func() {
			c.p.o.Logger.Warn("the handler did not end when told to: killing it",
				"endpoint", c.req.Endpoint, "topic", c.req.Topic, "request", c.req.ID, "grace", c.p.o.Grace)
			c.kill()
		})
	default:
		return
	}
	closeAll(c.stdin) // ends the write of the body
}

// begin publishes the started process, and ends it at once where that was asked for meanwhile.
func (c *call) begin(child *child) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.child = child
	c.carryOut()
}

// start starts the process and the goroutines that serve its pipes. When it returns no end of a pipe that belongs to
// the process is open here, and after an error none is.
func (c *call) start() (*child, error) {
	var theirs [4]*os.File
	defer func() { closeAll(theirs[1:]...) }()
	err := c.pipes(&theirs)
	if err == nil && len(c.req.Body) == 0 {
		theirs[0] = c.p.null
	} else {
		defer func() { closeAll(theirs[0]) }()
	}
	inline := len(c.req.Body) <= inlineBody && pipesHoldInline
	if err == nil && inline && c.stdin != nil {
		_, err = c.stdin.Write(c.req.Body)
		closeAll(c.stdin)
	}
	var child *child
	if err == nil {
		child, err = c.spawn(theirs[:])
	}
	if err != nil {
		closeAll(c.stdin, c.stdout, c.stderr, c.report)
		return nil, err
	}
	c.begin(child)
	go c.readStdout()
	go c.readStderr()
	if inline {
		close(c.written)
	} else {
		go c.writeStdin()
	}
	return child, nil
}

// pipes opens the pipes. After an error it leaves those that it opened for start to close.
func (c *call) pipes(theirs *[4]*os.File) (err error) {
	if len(c.req.Body) > 0 {
		if theirs[0], c.stdin, err = os.Pipe(); err != nil {
			return err
		}
	}
	if c.stdout, theirs[1], err = os.Pipe(); err != nil {
		return err
	}
	if c.stderr, theirs[2], err = os.Pipe(); err != nil {
		return err
	}
	if hasReport {
		c.report, theirs[3], err = os.Pipe()
	}
	return err
}

// spawn starts the process. A file that somebody still holds open for writing cannot be executed (ETXTBSY), and a fork
// elsewhere in this process may hold it for a moment: so it tries again, briefly.
func (c *call) spawn(files []*os.File) (*child, error) {
	if !hasReport {
		files = files[:3]
	}
	attr := &os.ProcAttr{Dir: c.p.o.Dir, Env: c.environ, Files: files}
	for wait := time.Millisecond; ; wait *= 2 {
		child, err := startChild(c.p.path, c.p.argv, attr)
		if err == nil || !errors.Is(err, syscall.ETXTBSY) || wait > 64*time.Millisecond {
			return child, err
		}
		time.Sleep(wait)
	}
}

// writeStdin writes the body. A program that does not read it, or not to the end, does nothing wrong.
func (c *call) writeStdin() {
	defer close(c.written)
	_, _ = c.stdin.Write(c.req.Body)
	closeAll(c.stdin)
}

func (c *call) readStdout() {
	defer c.readEnd()
	limit := c.p.o.MaxBody
	buf := make([]byte, 0, min(4<<10, limit+1))
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := c.stdout.Read(buf[len(buf):min(cap(buf), limit+1)])
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			c.tooLarge = true
			c.kill()
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
				c.p.o.Logger.Warn("reading the handler's answer", "error", err)
			}
			c.out = buf
			return
		}
	}
}

// readEnd counts a reader out.
func (c *call) readEnd() {
	if c.reading.Add(-1) == 0 {
		close(c.ended)
	}
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // closed twice, or by the time the process is gone: nothing to tell
		}
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
