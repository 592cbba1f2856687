package commands

import (
	"bytes"
	"context"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/pkg/client"
)

// TimeoutText tells of a call that ended after elapsed, and might have taken longer, as ctx has it too.
func TimeoutText(ctx context.Context, elapsed, within time.Duration) string {
	return timeoutFailure(ctx, &client.Error{Service: "echo", Endpoint: "Echo.Call", Elapsed: elapsed, Err: context.DeadlineExceeded}, within).what
}

// Line is a command line taken apart, as tests see it.
type Line struct {
	Argv, Path, Args, Rest []string
	HasRest                bool
	Err                    error
}

// TakeApart normalises args against the real tree.
func TakeApart(args []string) Line { return export(takeApart(tree(), args)) }

func export(l *line) Line {
	return Line{Argv: l.argv(), Path: l.path, Args: l.args, Rest: l.rest, HasRest: l.hasRest, Err: l.err}
}

// TakeApartSample normalises args against a small tree with a group and a command that passes through.
func TakeApartSample(args []string) Line { return export(takeApart(sampleTree(), args)) }

func sampleTree() *command {
	return &command{
		name: "micro", max: -1,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}}, &cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}},
			&cli.DurationFlag{Name: "timeout"}, &cli.StringFlag{Name: "registry-address"}, &cli.BoolFlag{Name: "quiet"},
		},
		sub: []*command{
			{name: "call", aliases: []string{"c"}, max: -1, flags: []cli.Flag{
				&cli.StringFlag{Name: "data", Aliases: []string{"d"}}, &cli.StringSliceFlag{Name: "header", Aliases: []string{"H"}},
				&cli.BoolFlag{Name: "include", Aliases: []string{"i"}}, &cli.IntFlag{Name: "count", Aliases: []string{"n"}},
				&cli.Float64Flag{Name: "rate"},
			}},
			{name: "run", max: -1, passThrough: true, flags: []cli.Flag{&cli.StringFlag{Name: "name"}, &cli.BoolFlag{Name: "once"}}},
			{name: "group", sub: []*command{{name: "add", max: -1}, {name: "remove", aliases: []string{"rm"}, max: -1}}},
		},
	}
}

// FlagKinds gives for each flag name of the real tree the commands in which it is a bool, and in which it has a value.
func FlagKinds() (bools, values map[string][]string) {
	bools, values = map[string][]string{}, map[string][]string{}
	root := tree()
	for _, c := range append([]*command{root}, root.sub...) {
		for _, f := range c.flags {
			for _, n := range f.Names() {
				if isBool(f) {
					bools[n] = append(bools[n], c.name)
				} else {
					values[n] = append(values[n], c.name)
				}
			}
		}
	}
	return bools, values
}

// CommandFlag is a flag of a command, as a word that sets it.
type CommandFlag struct {
	Command, Flag string
	Bool          bool
	Value         string
}

// CommandFlags gives every flag of every command of the real tree, the root's with each command.
func CommandFlags() []CommandFlag {
	var all []CommandFlag
	root := tree()
	for _, c := range root.sub {
		for i, f := range append(append([]cli.Flag{}, c.flags...), root.flags...) {
			if i >= len(c.flags) && lookup(c.flags, f.Names()[0]) != nil {
				continue // the command has its own
			}
			for _, n := range f.Names() {
				dashes := "--"
				if len(n) == 1 {
					dashes = "-"
				}
				all = append(all, CommandFlag{Command: c.name, Flag: dashes + n, Bool: isBool(f), Value: sampleValue(f)})
			}
		}
	}
	return all
}

func sampleValue(f cli.Flag) string {
	switch f.(type) {
	case *cli.DurationFlag:
		return "2s"
	case *cli.IntFlag, *cli.Float64Flag:
		return "7"
	}
	return "a=b"
}

// CommandNames gives the names of the commands, the hidden ones too.
func CommandNames() []string {
	var names []string
	for _, c := range tree().sub {
		names = append(names, c.name)
	}
	return names
}

// Shown gives the commands that the help lists.
func Shown() []string { return commandNames(tree()) }

// Age, CompareVersions and ShellQuote are what they are named after.
var (
	Age             = age
	CompareVersions = compareVersions
	ShellQuote      = shellQuote
)

// Interrupt gives a context and what ends it as SIGINT would.
func Interrupt(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	return ctx, func() { cancel(signalError{os.Interrupt}) }
}

// Explain gives the exit code and the text of an error of a call, as a command would end with it.
func Explain(ctx context.Context, d Deps, err error) (code int, text string) {
	in := &invocation{Deps: &d, settings: settings{timeout: defaultTimeout}}
	defer in.close()
	if _, openErr := in.openRegistry(ctx); openErr != nil {
		return -1, openErr.Error()
	}
	f := classify(ctx, in.explain(ctx, err))
	var b bytes.Buffer
	f.print(&b, palette{})
	return int(f.code), b.String()
}

// AdaptBatch gives how many messages may go together after n did that took d.
func AdaptBatch(most, n int, d time.Duration) int {
	b := batch{most: most}
	b.adapt(n, d)
	return b.most
}

// WhyUnavailable is whyUnavailable.
var WhyUnavailable = whyUnavailable
