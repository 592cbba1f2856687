package commands

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/cb02dfca/micro/internal/terminal"
)

// Deps is what the program has from outside. Nothing below reads the process's arguments, streams, environment or clock
// by another way, so that a test runs the whole program with buffers. Nothing is opened before a command asks for it. The
// streams, Env, Now and Backends must be set.
type Deps struct {
	// Args are the command line's words without the program's name.
	Args []string

	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// StdinTTY, StdoutTTY and StderrTTY say which of the streams are terminals.
	StdinTTY, StdoutTTY, StderrTTY bool
	// StdinData says that standard input is a pipe or a file, from which a body may be read.
	StdinData bool
	// Width is the columns of the terminal; 0 where it is not known.
	Width int

	// Env looks a variable of the environment up.
	Env func(name string) (value string, found bool)
	// Environ gives the whole environment, as NAME=VALUE, for programs that are started.
	Environ func() []string
	// Now is the clock that ages are told by.
	Now func() time.Time

	// Backends is what URLs can name.
	Backends Backends
	// Version describes the binary; empty is read from the build.
	Version string
}

// System gives the Deps of this process. args do not include the program's name.
func System(args []string) Deps {
	return Deps{
		Args:  args,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		StdinTTY: terminal.IsTerminal(os.Stdin), StdoutTTY: terminal.IsTerminal(os.Stdout), StderrTTY: terminal.IsTerminal(os.Stderr),
		StdinData: carriesData(os.Stdin),
		Width:     terminal.Width(os.Stdout),
		Env:       os.LookupEnv,
		Environ:   os.Environ,
		Now:       time.Now,
		Backends:  DefaultBackends(),
	}
}

// carriesData reports whether f is a pipe, a socket or a file: not a terminal, not /dev/null, not closed.
func carriesData(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice == 0
}

// env gives a variable; an empty one counts as not set.
func (d *Deps) env(name string) string {
	v, _ := d.Env(name)
	return v
}

// interrupted reports whether a signal ended ctx: services that run until then end well by it.
func interrupted(ctx context.Context) bool {
	_, ok := context.Cause(ctx).(signalError)
	return ok
}
