package commands

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// command describes one subcommand. A constructor gives it: newList, newCall.
type command struct {
	name    string
	aliases []string // work, and are not shown in the list of commands
	group   string   // the heading of the list of commands: "Discover"; empty hides it
	args    string   // the arguments, for the usage line: "SERVICE [ENDPOINT]"
	short   string   // one line, for the list of commands
	long    string   // paragraphs; may be empty
	// examples are whole command lines, each with an optional "  # remark".
	examples []string
	flags    []cli.Flag // made anew by each constructor: urfave/cli writes into them
	// min and max bound the arguments; max -1 is no bound. What stands after "--" is not counted where passThrough is.
	min, max int
	// passThrough gives what stands after "--" to invocation.rest, unread.
	passThrough bool
	formats     []string   // values of -o that this command has beside the usual ones
	exits       []exitCode // the exit codes beside 0, 1 and 2, for the help
	run         func(ctx context.Context, in *invocation) error
	sub         []*command // of the root, and of groups
}

// child finds a subcommand by name or alias.
func (c *command) child(name string) *command {
	for _, s := range c.sub {
		if s.name == name || slices.Contains(s.aliases, name) {
			return s
		}
	}
	return nil
}

// everyFlag gives the flags of the whole tree.
func (c *command) everyFlag() []cli.Flag {
	all := slices.Clone(c.flags)
	for _, s := range c.sub {
		all = append(all, s.everyFlag()...)
	}
	return all
}

// cli makes the form that urfave/cli runs.
func (c *command) cli(action cli.ActionFunc, onUsage cli.OnUsageErrorFunc) *cli.Command {
	out := &cli.Command{
		Name: c.name, Aliases: c.aliases, Usage: c.short, ArgsUsage: c.args, Category: c.group, Flags: c.flags,
		HideHelp: true, HideHelpCommand: true, Action: action, OnUsageError: onUsage,
	}
	for _, s := range c.sub {
		out.Subcommands = append(out.Subcommands, s.cli(action, onUsage))
	}
	return out
}

// checkArgs holds the count of arguments against min and max.
func (c *command) checkArgs(l *line) error {
	n := len(l.args)
	where := strings.Join(append([]string{"micro"}, l.path...), " ")
	form := strings.TrimSpace(where + " " + c.args)
	switch {
	case c.max == 0 && n > 0 && len(c.sub) > 0:
		return unknownCommand(l.path, l.args[0], c)
	case n < c.min:
		return usage("%s: %s", where, missing(c.args, n)).hint("usage", form).hint("more", where+" --help")
	case c.max >= 0 && n > c.max:
		what := "one argument too many"
		if n-c.max > 1 {
			what = fmt.Sprintf("%d arguments too many", n-c.max)
		}
		return usage("%s: %s: %q", where, what, l.args[c.max]).hint("usage", form).hint("more", where+" --help")
	}
	return nil
}

// missing names the first argument that is not there.
func missing(args string, have int) string {
	if names := strings.Fields(args); have < len(names) {
		return names[have] + " is missing"
	}
	return "an argument is missing"
}

func hidden(f cli.Flag) bool {
	v, ok := f.(cli.VisibleFlag)
	return ok && !v.IsVisible()
}

// placeholder gives what stands between back quotes in a flag's usage: its value's name in the help.
func placeholder(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	_, rest, _ := strings.Cut(d.GetUsage(), "`")
	name, _, found := strings.Cut(rest, "`")
	if !found {
		return ""
	}
	return name
}
