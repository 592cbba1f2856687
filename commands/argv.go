package commands

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/suggest"
)

// line is a command line taken apart. urfave/cli stops reading flags at the first argument and silently takes those
// after it for arguments, so it is given argv's order instead: command, flags, "--", arguments.
type line struct {
	cmd  *command // the command that the words name; the root where they name none
	path []string // its names, as the tree spells them
	// flags are the flags in their order, by their first name; root tells which belong to the root.
	flags []flagWord
	args  []string
	// rest is what stands after "--", for a command that passes it through; it is then not part of args.
	rest    []string
	hasRest bool
	err     error // the first mistake; what could be read is in the other fields
}

// flagWord is one flag of a line.
type flagWord struct {
	name  string
	value string
	bare  bool // a bool flag without a value
	root  bool
}

func (f flagWord) String() string {
	if f.bare {
		return "--" + f.name
	}
	return "--" + f.name + "=" + f.value
}

// argv gives the line in the one order that urfave/cli reads wholly. To take it apart gives the same line again.
func (l *line) argv() []string {
	var root, own []string
	for _, f := range l.flags {
		if f.root {
			root = append(root, f.String())
		} else {
			own = append(own, f.String())
		}
	}
	out := slices.Concat(root, l.path, own)
	switch {
	case l.cmd.passThrough:
		out = append(out, l.args...)
		if l.hasRest {
			out = append(append(out, "--"), l.rest...)
		}
	case len(l.args) > 0:
		out = append(append(out, "--"), l.args...)
	}
	return out
}

// value gives the last value of a flag of the root, for use while the rest of the line cannot be relied on.
func (l *line) value(name string) string {
	for _, f := range slices.Backward(l.flags) {
		if f.root && f.name == name {
			return f.value
		}
	}
	return ""
}

// takeApart reads args, which do not include the program's name, against the tree below root.
func takeApart(root *command, args []string) *line {
	l := &line{cmd: root}
	words := l.findCommand(root, args)
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case slices.Contains(words, i):
		case arg == "--" && l.cmd.passThrough:
			l.rest, l.hasRest = args[i+1:], true
			return l
		case arg == "--":
			l.args = append(l.args, args[i+1:]...)
			return l
		case isFlag(arg, l.cmd):
			i += l.readFlag(root, arg, args[i+1:])
		default:
			l.args = append(l.args, arg)
		}
	}
	return l
}

// findCommand walks the tree along the words that are neither flags nor values of flags, and gives their places.
func (l *line) findCommand(root *command, args []string) (words []int) {
	every, odd := root.everyFlag(), ""
	for i := 0; i < len(args) && len(l.cmd.sub) > 0; i++ {
		arg := args[i]
		if arg == "--" {
			return words
		}
		if isFlag(arg, nil) {
			if takesNext(every, arg) {
				i++
			} else if name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "="); odd == "" && strings.HasPrefix(arg, "--") && lookup(every, name) == nil {
				odd = "--" + name
			}
			continue
		}
		next := l.cmd.child(arg)
		switch {
		case next == nil && l.cmd.run != nil: // an argument, or a mistake that checkArgs tells of
			return words
		case next == nil && odd != "": // the word may well be its value
			l.fail(unknownFlag(odd, l.path, l.cmd, root))
			return words
		case next == nil:
			l.fail(unknownCommand(l.path, arg, l.cmd))
			return words
		}
		l.cmd, l.path, words = next, append(l.path, next.name), append(words, i)
	}
	return words
}

func (l *line) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

// isFlag tells a flag from an argument: "-" is standard input, and a negative number is a value, unless everything after
// the arguments belongs to another program.
func isFlag(arg string, cmd *command) bool {
	if len(arg) < 2 || arg[0] != '-' {
		return false
	}
	if digit := arg[1] >= '0' && arg[1] <= '9'; digit {
		return cmd != nil && cmd.passThrough
	}
	return true
}

// takesNext reports whether a flag's value is the next word, by the flags of the whole tree: while the command is not
// known yet. A test holds that a name means a bool everywhere or a value everywhere.
func takesNext(every []cli.Flag, arg string) bool {
	body := strings.TrimLeft(arg, "-")
	name, _, hasValue := strings.Cut(body, "=")
	if f := lookup(every, name); f != nil || strings.HasPrefix(arg, "--") {
		return f != nil && !hasValue && !isBool(f)
	}
	for i, r := range body { // -vo json
		if f := lookup(every, string(r)); f == nil || !isBool(f) {
			return f != nil && i+len(string(r)) == len(body)
		}
	}
	return false
}

// readFlag reads one flag word, and gives how many of the next words it took.
func (l *line) readFlag(root *command, arg string, next []string) (taken int) {
	name, value, hasValue := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
	if f, isRoot := l.find(root, name); f != nil {
		return l.addFlag(f, isRoot, arg, value, hasValue, next)
	}
	if strings.HasPrefix(arg, "--") {
		l.fail(unknownFlag("--"+name, l.path, l.cmd, root))
		return 0
	}
	cluster := arg[1:]
	for i, r := range cluster {
		f, isRoot := l.find(root, string(r))
		if f == nil {
			l.fail(unknownFlag("-"+name, l.path, l.cmd, root))
			return 0
		}
		after := cluster[i+len(string(r)):]
		if isBool(f) && !strings.HasPrefix(after, "=") {
			l.addFlag(f, isRoot, "-"+string(r), "", false, nil)
			continue
		}
		return l.addFlag(f, isRoot, "-"+string(r), strings.TrimPrefix(after, "="), after != "", next)
	}
	return 0
}

func (l *line) find(root *command, name string) (f cli.Flag, isRoot bool) {
	if l.cmd != root {
		if f := lookup(l.cmd.flags, name); f != nil {
			return f, false
		}
	}
	f = lookup(root.flags, name)
	return f, f != nil
}

func (l *line) addFlag(f cli.Flag, isRoot bool, spelt, value string, hasValue bool, next []string) (taken int) {
	name := f.Names()[0]
	if isBool(f) && !hasValue {
		l.flags = append(l.flags, flagWord{name: name, bare: true, root: isRoot})
		return 0
	}
	spelt, _, _ = strings.Cut(spelt, "=")
	if !hasValue {
		if len(next) == 0 || next[0] == "--" {
			l.fail(usage("flag %s needs a value: %s", spelt, want(f)))
			return 0
		}
		value, taken = next[0], 1
	}
	if !fits(f, value) {
		l.fail(usage("flag %s: %q is not %s", spelt, value, want(f)))
		return taken
	}
	l.flags = append(l.flags, flagWord{name: name, value: value, root: isRoot})
	return taken
}

// lookup finds a flag by any of its names. go-micro spelt its flags with underscores: those work too.
func lookup(flags []cli.Flag, name string) cli.Flag {
	if name == "" {
		return nil
	}
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	if dashed := strings.ReplaceAll(name, "_", "-"); dashed != name {
		return lookup(flags, dashed)
	}
	return nil
}

func isBool(f cli.Flag) bool {
	_, ok := f.(*cli.BoolFlag)
	return ok
}

// fits checks a value as urfave/cli would, which says less clearly what it wants.
func fits(f cli.Flag, value string) bool {
	var err error
	switch f.(type) {
	case *cli.BoolFlag:
		_, err = strconv.ParseBool(value)
	case *cli.DurationFlag:
		var d time.Duration
		d, err = time.ParseDuration(value)
		return err == nil && d >= 0
	case *cli.IntFlag:
		var n int64
		n, err = strconv.ParseInt(value, 0, 32)
		return err == nil && n >= 0
	case *cli.Float64Flag:
		_, err = strconv.ParseFloat(value, 64)
	}
	return err == nil
}

// want says what a flag takes.
func want(f cli.Flag) string {
	switch f.(type) {
	case *cli.BoolFlag:
		return "true or false"
	case *cli.DurationFlag:
		return "a duration, such as 500ms, 2s or 1m"
	case *cli.IntFlag:
		return "a whole number, 0 or more"
	case *cli.Float64Flag:
		return "a number"
	}
	if v := placeholder(f); v != "" {
		return v
	}
	return "text"
}

func unknownCommand(path []string, word string, cmd *command) error {
	f := usage("unknown command %q", strings.Join(append(slices.Clone(path), word), " "))
	var names []string
	for _, c := range cmd.sub {
		names = append(names, c.name)
		names = append(names, c.aliases...)
	}
	if near := suggest.Closest(word, names); near != "" {
		return f.hint("did you mean", near)
	}
	return f.hint("all commands", "micro help")
}

func unknownFlag(spelt string, path []string, cmd, root *command) error {
	where := strings.Join(append([]string{"micro"}, path...), " ")
	f := usage("unknown flag %s", spelt)
	if len(path) > 0 {
		f = usage("unknown flag %s for %q", spelt, where)
	}
	var names []string
	for _, fl := range slices.Concat(cmd.flags, root.flags) {
		if hidden(fl) {
			continue
		}
		for _, n := range fl.Names() {
			if len(n) > 1 {
				names = append(names, n)
			}
		}
	}
	if near := suggest.Closest(strings.TrimLeft(spelt, "-"), names); near != "" {
		f = f.hint("did you mean", "--"+near)
	}
	if cmd.passThrough {
		return f.hint("flags of the program that is run go after --", where+" -- CMD ARGS")
	}
	return f.hint("all flags", where+" --help")
}
