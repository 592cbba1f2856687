// Package program serves an executable as a handler: one process for each call.
//
// The contract is that of a filter. The request's body is the process's standard input, its standard output is the
// answer, its standard error is a log. Exit status 0 means success; [Program.Run] says what every other end means.
// What a caller sent reaches the process on standard input and in MICRO_* environment variables only, never on its
// command line, and no shell stands between.
//
// Each process leads a process group of its own (a Job object on Windows), and the group lives no longer than the
// call: when the process has ended, whatever it left in the group is killed. A program that wants to leave something
// running behind must start it in a session of its own, as setsid(1) does.
package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"
)

// The defaults and bounds of [Options].
const (
	DefaultTimeout   = 30 * time.Second
	DefaultGrace     = 10 * time.Second
	DefaultWaitDelay = 500 * time.Millisecond
	DefaultMaxBody   = 4 << 20
	DefaultQueue     = 100

	// MaxConcurrency bounds Options.Concurrency: a thread waits for each running process.
	MaxConcurrency = 1000
	// MaxLine is the limit of a logged line of standard error, in bytes; the rest of a longer line is dropped.
	MaxLine = 64 << 10
	// MaxDetail is the limit of what standard error gives to the caller, in bytes.
	MaxDetail = 512
	// LogRate is how many bytes of standard error a program logs in a second; each line counts 64 bytes more than it has.
	// Beyond it one line of a hundred is logged.
	LogRate = 5 << 20
)

// Errors of New, to be asked for with [errors.Is].
var (
	// ErrNotFound: there is no such program, or the interpreter that its first line names is not there.
	ErrNotFound = errors.New("program: not found")
	// ErrNotExecutable: the file is there, and cannot be executed.
	ErrNotExecutable = errors.New("program: not executable")
	// ErrInvalid: an option is wrong.
	ErrInvalid = errors.New("program: invalid")
)

// Options says what to run and within which limits. Path alone is required.
type Options struct {
	// Path is the executable: a path, or a name to be found in PATH. A name that PATH resolves to the current folder is
	// refused; "./name" means it.
	Path string
	// Args are the arguments, fixed for all calls.
	Args []string
	// Dir is the working directory. Empty: the current one.
	Dir string
	// Env are further variables, "NAME=value". The process gets them, the MICRO_* variables of its call, and from our own
	// environment PATH, HOME, LANG, LC_*, TZ and TMPDIR; nothing else (on Windows also what programs cannot start without).
	Env []string
	// Environ is our own environment, of which those are taken. Default: os.Environ().
	Environ []string
	// Service, Version and Node are told to the process: MICRO_SERVICE, MICRO_VERSION, MICRO_NODE.
	Service, Version, Node string
	// Timeout bounds a call, its wait in the queue included. Default DefaultTimeout. The call's own deadline holds where it
	// is sooner.
	Timeout time.Duration
	// Grace is the time between SIGTERM and SIGKILL. Default DefaultGrace. Windows has no SIGTERM, and kills at once.
	Grace time.Duration
	// WaitDelay is how long descendants that hold standard output or standard error open are waited for after the process
	// itself has ended. Default DefaultWaitDelay.
	WaitDelay time.Duration
	// MaxBody is the limit of an answer in bytes. Default DefaultMaxBody.
	MaxBody int
	// Gate bounds how many processes run at once. Programs may share one. Default: a gate of its own, of
	// NewGate(0, DefaultQueue).
	Gate *Gate
	// HideStderr keeps the last line of standard error out of the error that a caller gets.
	HideStderr bool
	// Logger gets each line of standard error, and what the program could not tell otherwise. Default: none.
	Logger *slog.Logger
}

// Program runs an executable once for each call. Its methods may be called concurrently.
type Program struct {
	o       Options
	path    string
	argv    []string
	environ []string
	null    *os.File // standard input of calls without a body
	flow    flow
	buffers sync.Pool // of *[]byte, for standard error

	mu      sync.Mutex
	live    map[*call]struct{}
	closing chan struct{} // closed by Close
	closed  bool
	running sync.WaitGroup // the supervisors of live
}

// New checks o and finds the executable; it starts nothing. The error wraps ErrNotFound, ErrNotExecutable or
// ErrInvalid. Close the program to release it.
func New(o Options) (*Program, error) {
	if err := complete(&o); err != nil {
		return nil, err
	}
	path, err := Find(o.Path)
	if err != nil {
		return nil, err
	}
	environ, err := baseEnviron(&o)
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("program: %w", err)
	}
	return &Program{
		o:       o,
		path:    path,
		argv:    append([]string{o.Path}, o.Args...),
		environ: environ,
		null:    null,
		live:    make(map[*call]struct{}),
		closing: make(chan struct{}),
	}, nil
}

// complete checks o and fills the defaults in.
func complete(o *Options) error {
	o.Args, o.Env = slices.Clone(o.Args), slices.Clone(o.Env)
	for _, d := range []struct {
		name  string
		value *time.Duration
		or    time.Duration
	}{{"timeout", &o.Timeout, DefaultTimeout}, {"grace", &o.Grace, DefaultGrace}, {"wait delay", &o.WaitDelay, DefaultWaitDelay}} {
		if *d.value < 0 {
			return fmt.Errorf("%w: %s %v, want more than 0", ErrInvalid, d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.or
		}
	}
	if o.Environ == nil {
		o.Environ = os.Environ()
	}
	if o.MaxBody < 0 {
		return fmt.Errorf("%w: limit of the answer is %d bytes, want more than 0", ErrInvalid, o.MaxBody)
	}
	if o.MaxBody == 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.Dir != "" {
		info, err := os.Stat(o.Dir)
		if err != nil {
			return fmt.Errorf("%w: working directory: %w", ErrInvalid, err)
		}
		if !info.IsDir() {
			return fmt.Errorf("%w: working directory %s is no directory", ErrInvalid, o.Dir)
		}
		if o.Dir, err = filepath.Abs(o.Dir); err != nil {
			return fmt.Errorf("%w: working directory: %w", ErrInvalid, err)
		}
	}
	if o.Gate == nil {
		gate, err := NewGate(0, DefaultQueue)
		if err != nil {
			return err
		}
		o.Gate = gate
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Path gives the absolute path of the executable.
func (p *Program) Path() string { return p.path }

// Close refuses new calls and those that wait, lets the running ones end until ctx ends, and then kills their groups.
// When it returns no process, goroutine or file of the program is left. Its error is ctx's where it had to kill. A
// second Close waits as well.
func (p *Program) Close(ctx context.Context) error {
	p.mu.Lock()
	first := !p.closed
	if first {
		p.closed = true
		close(p.closing)
	}
	p.mu.Unlock()

	ended := make(chan struct{})
	go func() {
		p.running.Wait()
		close(ended)
	}()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		err = ctx.Err()
		p.Kill()
		<-ended // SIGKILL cannot be refused
	}
	if first {
		_ = p.null.Close()
	}
	return err
}

// Kill ends the groups of the running calls, and does not wait for their end.
func (p *Program) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.live {
		c.kill()
	}
}

// admit enters c among the live calls, unless the program is closed.
func (p *Program) admit(c *call) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.live[c] = struct{}{}
	p.running.Add(1)
	return true
}

// dismiss takes c out again, when its process is gone.
func (p *Program) dismiss(c *call) {
	p.mu.Lock()
	delete(p.live, c)
	p.mu.Unlock()
	p.running.Done()
}

// defaultConcurrency is how many processes run at once unless told otherwise: scripts wait now and then, so twice as
// many as there are processors.
func defaultConcurrency() int { return min(2*runtime.NumCPU(), MaxConcurrency) }
