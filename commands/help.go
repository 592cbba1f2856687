package commands

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/suggest"
)

// groups are the headings of the list of commands, in order.
var groups = [...]string{"Discover", "Talk", "Serve", "Set up"}

func newHelp() *command {
	return &command{
		name: "help", group: "Set up", args: "[COMMAND | TOPIC]", short: "show help for a command or a topic", max: 2,
		long: "Topics: " + strings.Join(topicNames(), ", ") + ".",
		examples: []string{
			"micro help call", "micro help exit-codes",
		},
		run: runHelp,
	}
}

func runHelp(_ context.Context, in *invocation) error {
	if len(in.args) == 0 {
		return in.printHelp(nil, in.root)
	}
	if text, found := topic(in.args[0]); found && len(in.args) == 1 {
		_, err := io.WriteString(in.Stdout, text)
		return err
	}
	cmd, path := in.root, []string(nil)
	for _, word := range in.args {
		next := cmd.child(word)
		if next == nil {
			f := usage("no command and no topic %q", word)
			if near := suggest.Closest(word, append(commandNames(in.root), topicNames()...)); near != "" {
				return f.hint("did you mean", "micro help "+near)
			}
			return f.hint("all commands and topics", "micro help")
		}
		cmd, path = next, append(path, next.name)
	}
	return in.printHelp(path, cmd)
}

// printHelp writes the help of a command to standard output. It opens nothing.
func (in *invocation) printHelp(path []string, cmd *command) error {
	c := newPalette(in.Deps, in.settings, in.StdoutTTY)
	var b bytes.Buffer
	if cmd == in.root {
		rootHelp(&b, c, in.root)
	} else {
		commandHelp(&b, c, path, cmd, in.root)
	}
	_, err := in.Stdout.Write(b.Bytes())
	return err
}

func rootHelp(b *bytes.Buffer, c palette, root *command) {
	fmt.Fprintf(b, "micro finds, calls and serves services.\n\n%s\n  micro COMMAND [ARGUMENTS] [FLAGS]\n", c.head("Usage"))
	fmt.Fprintf(b, "\n%s\n", c.head("Start here"))
	writePairs(b, [][2]string{
		{"micro run", "serve the demo service greeter"},
		{"micro list services", "in a second terminal: who is there"},
		{"micro call greeter Say.Hello '{\"name\":\"x\"}'", "call it"},
		{"micro publish topic", "send a message to its subscriber"},
	})
	for _, group := range groups {
		var pairs [][2]string
		for _, cmd := range root.sub {
			if cmd.group == group {
				pairs = append(pairs, [2]string{cmd.name, cmd.short})
			}
		}
		if len(pairs) > 0 {
			fmt.Fprintf(b, "\n%s\n", c.head(group))
			writePairs(b, pairs)
		}
	}
	fmt.Fprintf(b, "\n%s\n", c.head("Flags of every command, anywhere on the line"))
	writeFlags(b, root.flags)
	fmt.Fprintf(b, "\nMore: micro COMMAND --help, and micro help %s\n", strings.Join(topicNames(), " | "))
}

func commandHelp(b *bytes.Buffer, c palette, path []string, cmd, root *command) {
	where := spelt(path)
	form := strings.TrimSpace(where + " " + cmd.args)
	if len(cmd.flags) > 0 {
		form += " [FLAGS]"
	}
	fmt.Fprintf(b, "%s\n\n%s\n  %s\n", upper(cmd.short)+".", c.head("Usage"), form)
	if len(cmd.sub) > 0 {
		fmt.Fprintf(b, "\n%s\n", c.head("Commands below it"))
		var pairs [][2]string
		for _, s := range cmd.sub {
			pairs = append(pairs, [2]string{strings.TrimSpace(where + " " + s.name + " " + s.args), s.short})
		}
		writePairs(b, pairs)
	}
	if len(cmd.examples) > 0 {
		fmt.Fprintf(b, "\n%s\n", c.head("Examples"))
		var pairs [][2]string
		for _, e := range cmd.examples {
			line, remark, _ := strings.Cut(e, "  # ")
			pairs = append(pairs, [2]string{line, remark})
		}
		writePairs(b, pairs)
	}
	if cmd.long != "" {
		fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(cmd.long))
	}
	if len(cmd.flags) > 0 {
		fmt.Fprintf(b, "\n%s\n", c.head("Flags"))
		writeFlags(b, cmd.flags)
	}
	fmt.Fprintf(b, "\n%s\n", c.head("Flags of every command"))
	writeFlags(b, root.flags)
	if len(cmd.formats) > 0 {
		fmt.Fprintf(b, "\n%s\n", c.head("Further forms of output"))
		writePairs(b, furtherForms(cmd.formats))
	}
	if len(cmd.aliases) > 0 {
		fmt.Fprintf(b, "\n%s\n  %s\n", c.head("Also called"), strings.Join(cmd.aliases, ", "))
	}
	fmt.Fprintf(b, "\n%s\n", c.head("Exit codes"))
	var pairs [][2]string
	for _, code := range append([]exitCode{exitOK, exitFailed, exitUsage}, cmd.exits...) {
		pairs = append(pairs, [2]string{fmt.Sprint(int(code)), code.meaning()})
	}
	writePairs(b, pairs)
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// writeFlags lists flags that are not hidden.
func writeFlags(b *bytes.Buffer, flags []cli.Flag) {
	var pairs [][2]string
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if hidden(f) || !ok {
			continue
		}
		left := "    "
		for _, n := range f.Names() {
			if len(n) == 1 {
				left = "-" + n + ", "
			}
		}
		left += "--" + f.Names()[0]
		if v := placeholder(f); v != "" {
			left += " " + v
		}
		usage := strings.ReplaceAll(d.GetUsage(), "`", "")
		if v := defaultOf(f); v != "" && !strings.Contains(usage, "(default") {
			usage += " (default " + v + ")"
		}
		pairs = append(pairs, [2]string{left, usage})
	}
	writePairs(b, pairs)
}

// defaultOf is the value of a flag that is not given; empty is none.
func defaultOf(f cli.Flag) string {
	switch f := f.(type) {
	case *cli.StringFlag:
		return f.Value
	case *cli.IntFlag:
		if f.Value != 0 {
			return strconv.Itoa(f.Value)
		}
	case *cli.DurationFlag:
		if f.Value != 0 {
			return f.Value.String()
		}
	}
	return ""
}

// furtherForms are the forms of output that only some commands have.
func furtherForms(formats []string) (pairs [][2]string) {
	for _, f := range formats {
		meaning := "the bodies alone, as they came"
		if f == "pretty" {
			meaning = "what a terminal gets, in a pipe too"
		}
		pairs = append(pairs, [2]string{"-o " + f, meaning})
	}
	return pairs
}

// writePairs writes two columns; a left part that is very long does not push the others' right parts away.
func writePairs(b *bytes.Buffer, pairs [][2]string) {
	width := 0
	for _, p := range pairs {
		if n := utf8.RuneCountInString(p[0]); n <= 46 {
			width = max(width, n)
		}
	}
	for _, p := range pairs {
		pad := max(0, width-utf8.RuneCountInString(p[0]))
		b.WriteString(strings.TrimRight("  "+p[0]+strings.Repeat(" ", pad)+"   "+p[1], " ") + "\n")
	}
}
