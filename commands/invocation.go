package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/terminal"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/transport"
)

// invocation is what a command's run function works with: what was asked for, and the ways out. It is used by one
// goroutine, but for note, verbose and waiting, which lock.
type invocation struct {
	*Deps
	settings
	cmd   *command
	root  *command
	args  []string     // the arguments; those after "--" are among them unless the command passes them through
	rest  []string     // what stands after "--", for a command that passes it through
	dash  bool         // there was a "--", perhaps with nothing after it
	flags *cli.Context // in.flags.String("node"): the command's own flags
	out   *printer
	err   palette // the colours of standard error

	mu     sync.Mutex // of standard error
	closes []io.Closer

	reg  registry.Registry
	tr   transport.Transport
	br   broker.Broker
	dial *client.Client

	described *messages // the form of the messages of what is called, where a descriptor tells it
}

// onClose has c closed when the command has ended; the last one first.
func (in *invocation) onClose(c io.Closer) { in.closes = append(in.closes, c) }

func (in *invocation) close() error {
	var errs []error
	for _, c := range slices.Backward(in.closes) {
		errs = append(errs, c.Close())
	}
	in.closes = nil
	return errors.Join(errs...)
}

// deadline bounds ctx by --timeout: for commands that ask something and end.
func (in *invocation) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, in.timeout)
}

// note tells a person something beside the answer, on standard error: only on a terminal, and not with --quiet.
func (in *invocation) note(format string, args ...any) {
	if in.StderrTTY && !in.quiet {
		in.say(format, args...)
	}
}

// warn tells something that matters in a log too; only --quiet silences it.
func (in *invocation) warn(format string, args ...any) {
	if !in.quiet {
		in.say(format, args...)
	}
}

// verbosely tells a step, with -v.
func (in *invocation) verbosely(format string, args ...any) {
	if in.verbose {
		in.say("* "+format, args...)
	}
}

func (in *invocation) say(format string, args ...any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	io.WriteString(in.Stderr, terminal.Safe(fmt.Sprintf(format, args...))+"\n")
}

// patience is how long a step may take before a person is told what is waited for.
const patience = 300 * time.Millisecond

// waiting tells what is waited for, on a terminal, when it takes longer than patience. The caller calls done when it
// goes on; then the line is wiped, where the terminal can do that.
func (in *invocation) waiting(format string, args ...any) (done func()) {
	if !in.StderrTTY || in.quiet {
		return func() {}
	}
	text := terminal.Line(fmt.Sprintf(format, args...))
	var ended, shown bool
	dumb := in.env("TERM") == "dumb"
	timer := time.AfterFunc(patience, func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		if !ended {
			line := in.err.faint("waiting for " + text + " ...")
			if dumb {
				line += "\n"
			}
			io.WriteString(in.Stderr, line)
			shown = !dumb
		}
	})
	return func() {
		timer.Stop()
		in.mu.Lock()
		defer in.mu.Unlock()
		if shown {
			io.WriteString(in.Stderr, "\r\x1b[K")
		}
		ended, shown = true, false
	}
}

// print writes the command's answer.
func (in *invocation) print(ctx context.Context, r result) error { return in.out.print(ctx, r) }
