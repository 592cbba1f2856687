// Package commands is the micro binary: one file a subcommand, and what they share.
//
// # How to add a command
//
// Write a constructor that gives a *command (name, group, args, short, examples, flags, min, max, run) and list it in
// tree. Flags are urfave/cli's, made anew by each call; a flag that two commands share has the same kind in both, and a
// name of one letter means one thing everywhere. Flags may stand anywhere on the line; the global ones are the root's
// and are read into settings before run is called.
//
// The run function is run(ctx, in *invocation) error. in.args are the arguments, whose number was checked; in.rest is
// what stands after "--" where the command passes it through; in.flags reads the command's own flags; in.deadline
// bounds ctx by --timeout; in.openRegistry, in.openTransport, in.openClient and in.openBroker open what the settings
// name, at the first call, and it is closed after the command.
//
//   - To answer: return in.print(ctx, result{value: v, table: t}), where v is the JSON form. Of these two come all forms
//     of -o, and -q. An answer that comes bit by bit: s := in.out.stream(heads), then s.item for each, then s.close.
//   - To say something beside the answer, on standard error: in.note (on a terminal), in.warn, in.verbosely (with -v).
//   - To fail: return fail(exitNotFound, "service %q not found", name).hint("all", "micro list services"), usage(...)
//     for exit 2, exit(exitCheck) where the answer says it all, or any other error: classify gives it an exit code by
//     what it wraps. in.explain turns an error of a call into the text for it.
//   - Text from the network goes through internal/terminal; result, note and failure do that themselves.
package commands

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// tree makes the commands.
func tree() *command {
	return &command{name: "micro", flags: globalFlags(), max: -1, sub: []*command{
		newList(), newServices(), newDescribe(), newHealth(), newStats(),
		newCall(), newStream(), newPublish(), newSubscribe(), newRegistry(), newRun(), newGenerate(),
		newCompletion(), newVersion(), newHelp(),
	}}
}

// Main runs the program and gives its exit code. It prints, but never ends the process. ctx should be one of Signals.
func Main(ctx context.Context, d Deps) int {
	if len(d.Args) > 0 && d.Args[0] == completeWord {
		complete(ctx, &d)
		return int(exitOK)
	}
	root := tree()
	l := takeApart(root, versionFlag(d.Args))
	s, settingsErr := readSettings(&d, l)
	in := &invocation{Deps: &d, settings: s, cmd: l.cmd, root: root, args: l.args, rest: l.rest, dash: l.hasRest,
		err: newPalette(&d, s, d.StderrTTY)}
	err := l.err
	if err == nil {
		err = settingsErr
	}
	if err == nil {
		err = in.start(ctx, l)
	}
	if closeErr := in.close(); err == nil && closeErr != nil {
		in.warn("warning: %s", trimPackage(closeErr.Error()))
	}
	return int(in.finish(ctx, err))
}

// versionFlag reads "micro --version" as "micro version": to the commands --version is a flag with a value.
func versionFlag(args []string) []string {
	if len(args) == 1 && args[0] == "--version" {
		return []string{"version"}
	}
	return args
}

// start hands the line to urfave/cli, which sets the flags and calls the command.
func (in *invocation) start(ctx context.Context, l *line) error {
	switch {
	case len(l.path) == 0 && len(l.args) > 0: // they stand after "--"
		return unknownCommand(nil, l.args[0], in.root)
	case len(l.path) == 0 || in.help:
		return in.printHelp(l.path, in.cmd)
	}
	if err := in.cmd.checkArgs(l); err != nil {
		return err
	}
	var err error
	if in.out, err = newPrinter(in.Deps, in.settings, in.cmd.formats); err != nil {
		return err
	}
	onUsage := func(_ *cli.Context, err error, _ bool) error { return usage("%s", err).because(err) }
	action := func(c *cli.Context) error {
		if in.cmd.run == nil {
			return in.printHelp(l.path, in.cmd)
		}
		in.flags = c
		return in.cmd.run(c.Context, in)
	}
	app := &cli.App{
		Name: "micro", Usage: "services: find, call and serve them", HideHelp: true, HideVersion: true, Compiled: time.Unix(0, 0),
		Reader: in.Stdin, Writer: in.Stdout, ErrWriter: in.Stderr, Flags: in.root.flags, DisableSliceFlagSeparator: true,
		ExitErrHandler:  func(*cli.Context, error) {},
		CommandNotFound: func(*cli.Context, string) {}, // the line was checked: cannot be
		OnUsageError:    onUsage, Action: action,
	}
	for _, c := range in.root.sub {
		app.Commands = append(app.Commands, c.cli(action, onUsage))
	}
	return app.RunContext(ctx, append([]string{"micro"}, l.argv()...))
}

// finish reports an error and gives the exit code.
func (in *invocation) finish(ctx context.Context, err error) exitCode {
	if err == nil {
		return exitOK
	}
	f := classify(ctx, err)
	switch {
	case f.quiet, f.code == exitInterrupted && interrupted(ctx), f.code == exitTerminated:
	case in.output == "json" || in.output == "jsonl":
		f.printJSON(in.Stderr)
	default:
		if in.quiet {
			f.hints = nil
		}
		f.print(in.Stderr, in.err)
	}
	return f.code
}

// commandNames gives the names that are shown, in the order of the tree.
func commandNames(root *command) []string {
	var names []string
	for _, c := range root.sub {
		if c.group != "" {
			names = append(names, c.name)
		}
	}
	return names
}

// spelt gives a command's words as typed: "micro list".
func spelt(path []string) string { return strings.Join(append([]string{"micro"}, path...), " ") }

// errIs is errors.Is for several targets.
func errIs(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
}

func count(n int, unit string) string { return fmt.Sprintf("%d%s", n, unit) }
