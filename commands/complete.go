package commands

import (
	"context"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/terminal"
)

// What follows answers the shells' scripts:
//
//	micro __complete zsh|fish WORD...            the words after the program's name; the last one is completed, and may be empty
//	micro __complete bash WORDBREAKS LINE        the line up to the cursor, which bash alone cuts into words otherwise
//
// The answer is a candidate a line, WORD or WORD<tab>ABOUT. Words of zsh come as they are typed, in quotes; those of fish without. To bash
// the candidates are what replaces the part of the word that readline takes for the word, quoted, with the space after it. A
// candidate that ends in one of = / : . @ goes on, and has no space after it.
//
// Whatever happens, the exit code is 0 and standard error stays empty: the line is being typed.

const (
	completeWord       = "__complete"
	completionTime     = time.Second
	envCompletion      = "MICRO_COMPLETION_TIMEOUT"
	maxCandidates      = 1000
	maxCandidateLength = 1000 // in bytes; a name of a service has 128
)

// candidate is a word that may stand where the cursor is.
type candidate struct{ word, about string }

// completion is what a line has before the word that is completed.
type completion struct {
	in   *invocation
	line *line  // the words before
	word string // to be completed
	flag cli.Flag
	// head is what stands in word before the value of flag: "--output=".
	head   string
	dashed bool // a "--" stands before
	// redirected says that the word is the file of a < or >.
	redirected bool

	found *discovery // what the registry told
}

// complete answers a shell. It returns when the time is up, and leaves behind what does not end then: the process ends with it.
func complete(ctx context.Context, d *Deps) {
	args := d.Args[1:]
	if len(args) < 2 {
		return
	}
	limit := completionTime
	if t, err := time.ParseDuration(d.env(envCompletion)); err == nil && t > 0 {
		limit = t
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	typed, words := typedLine{}, args[1:]
	switch args[0] {
	case "bash":
		if len(args) != 3 {
			return
		}
		typed = splitLine(args[2], args[1], d.env)
		if len(typed.words) < 2 { // the cursor is in the program's name
			return
		}
		words = typed.words[1:]
	case "zsh":
		words = nil
		for _, w := range args[1:] {
			words = append(words, unquoted(w, d.env))
		}
	}
	told, closed := make(chan []candidate, 1), make(chan struct{})
	go func() {
		defer close(closed)
		defer close(told)
		defer func() { _ = recover() }() // a line that is half typed is no place for a stack
		c := newCompletionOf(d, words, limit)
		defer c.in.close() // which may take time
		c.redirected = typed.redirected
		told <- c.candidates(ctx)
	}()
	var all []candidate
	select {
	case all = <-told:
	case <-ctx.Done():
		select { // what heeds ctx is about to end
		case all = <-told:
		case <-time.After(grace):
			return
		}
	}
	var b strings.Builder
	for _, c := range all {
		if args[0] == "bash" {
			b.WriteString(typed.replacement(c.word) + "\n")
			continue
		}
		b.WriteString(c.word)
		if c.about != "" {
			b.WriteString("\t" + terminal.Clip(c.about, 80))
		}
		b.WriteString("\n")
	}
	_, _ = io.WriteString(d.Stdout, b.String())
	select {
	case <-closed:
	case <-ctx.Done():
	}
}

// grace is what the end of a lookup may take when its time is up: what the registry told is made into candidates in it.
const grace = 100 * time.Millisecond

// candidates gives the words that fit, each once.
func (c *completion) candidates(ctx context.Context) (out []candidate) {
	seen := map[string]bool{}
	for _, k := range c.all(ctx) {
		k.word = c.head + k.word
		k.about = terminal.Line(k.about)
		if !strings.HasPrefix(k.word, c.word) || seen[k.word] || len(k.word) > maxCandidateLength || !utf8.ValidString(k.word) || terminal.Line(k.word) != k.word {
			continue // what could steer a terminal is no name that is to be typed
		}
		seen[k.word] = true
		if out = append(out, k); len(out) == maxCandidates {
			break
		}
	}
	return out
}

// cursor stands for the word that is completed while the line is taken apart: no other word is that.
const cursor = "\x00cursor"

func newCompletionOf(d *Deps, words []string, limit time.Duration) *completion {
	quiet := *d
	quiet.Stdin, quiet.Stdout, quiet.Stderr = strings.NewReader(""), io.Discard, io.Discard
	quiet.StdinTTY, quiet.StdoutTTY, quiet.StderrTTY, quiet.StdinData = false, false, false, false
	last := len(words) - 1
	root := tree()
	l := takeApart(root, words[:last])
	s, _ := readSettings(&quiet, l) // what is wrong with them is told when the line is run
	s.timeout, s.quiet, s.verbose = limit, true, false
	c := &completion{line: l, word: words[last], in: &invocation{Deps: &quiet, settings: s, cmd: l.cmd, root: root, args: l.args}}
	for _, w := range words[:last] {
		c.dashed = c.dashed || w == "--"
	}
	// A flag that lacks its value takes the word after it.
	if n := last - 1; n >= 0 && !c.dashed && isFlag(words[n], l.cmd) {
		probe := takeApart(root, append(append([]string{}, words[:last]...), cursor))
		taken := l.err != nil && (len(probe.flags) > len(l.flags) || probe.err != nil && strings.Contains(probe.err.Error(), cursor[1:]))
		if taken {
			name := strings.TrimLeft(words[n], "-")
			if f, _ := l.find(root, name); f != nil {
				c.flag = f
			} else if r, _ := utf8.DecodeLastRuneInString(name); !strings.HasPrefix(words[n], "--") {
				c.flag, _ = l.find(root, string(r)) // -vo
			}
		}
	}
	if name, _, found := strings.Cut(c.word, "="); c.flag == nil && found && !c.dashed && isFlag(name, l.cmd) {
		if f, _ := l.find(root, strings.TrimLeft(name, "-")); f != nil {
			c.flag, c.head = f, name+"="
		}
	}
	return c
}

// value gives the last value of a flag of the command.
func (c *completion) value(name string) string {
	if all := c.values(name); len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

func (c *completion) values(name string) (all []string) {
	for _, f := range c.line.flags {
		if f.name == name && !f.bare {
			all = append(all, f.value)
		}
	}
	return all
}

// all gives what may stand at the cursor; the caller keeps what begins as the word does.
func (c *completion) all(ctx context.Context) []candidate {
	cmd := c.line.cmd
	switch {
	case c.redirected:
		return c.filesOf(c.word)
	case c.flag != nil:
		return c.flagValues(ctx)
	case cmd.passThrough && c.dashed:
		return c.files("")
	case strings.HasPrefix(c.word, "-") && !c.dashed:
		return c.flags()
	case len(c.line.args) == 0 && len(cmd.sub) > 0 && !c.dashed:
		return c.subcommands()
	}
	return c.arguments(ctx)
}

func (c *completion) subcommands() (out []candidate) {
	for _, s := range c.line.cmd.sub {
		if c.line.cmd != c.in.root || s.group != "" {
			out = append(out, candidate{s.name, s.short})
		}
	}
	return out
}

// flags gives those of the command and of all commands, without those that stand on the line already and do so once.
func (c *completion) flags() (out []candidate) {
	given := map[string]bool{}
	for _, f := range c.line.flags {
		given[f.name] = true
	}
	groups := [][]cli.Flag{c.line.cmd.flags, c.in.root.flags}
	if c.line.cmd == c.in.root {
		groups = groups[1:]
	}
	for _, group := range groups {
		for _, f := range group {
			_, many := f.(*cli.StringSliceFlag)
			doc, ok := f.(cli.DocGenerationFlag)
			if hidden(f) || !ok || given[f.Names()[0]] && !many {
				continue
			}
			about, _, _ := strings.Cut(strings.ReplaceAll(doc.GetUsage(), "`", ""), " [$")
			out = append(out, candidate{"--" + f.Names()[0], about})
			for _, n := range f.Names()[1:] {
				if len(n) == 1 {
					out = append(out, candidate{"-" + n, about})
				}
			}
		}
	}
	return out
}
