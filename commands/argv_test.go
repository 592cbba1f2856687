package commands_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/commands"
)

func TestTakeApart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"flags before":             {"-o json call a b", "--output=json call -- a b"},
		"flags after arguments":    {"call a b --timeout 2s", "--timeout=2s call -- a b"},
		"flags between":            {"call a -d {} b -v", "--verbose call --data={} -- a b"},
		"value with equals":        {"call --data=a=b x", "call --data=a=b -- x"},
		"bool with a value":        {"call x --include=false", "call --include=false -- x"},
		"cluster of bools":         {"call x -iv", "--verbose call --include -- x"},
		"cluster with a value":     {"call x -ivo json", "--verbose --output=json call --include -- x"},
		"value stuck to its flag":  {"call -ojson -n5 x", "--output=json call --count=5 -- x"},
		"value that looks a flag":  {"call -d -v x", "call --data=-v -- x"},
		"one dash, long name":      {"call -timeout 2s x", "--timeout=2s call -- x"},
		"underscores":              {"call x --registry_address a:1", "--registry-address=a:1 call -- x"},
		"repeated":                 {"call x -H a:b,c -H d:e", "call --header=a:b,c --header=d:e -- x"},
		"double dash":              {"call x -- -v --data", "call -- x -v --data"},
		"double dash as a value":   {"call x -d=-- -- y", "call --data=-- -- x y"},
		"stdin":                    {"call x -", "call -- x -"},
		"negative number":          {"call x -5 -0.5", "call -- x -5 -0.5"},
		"empty argument":           {"call <> x", "call -- <> x"},
		"alias":                    {"c x", "call -- x"},
		"group":                    {"group rm x -v", "--verbose group remove -- x"},
		"flag before the group":    {"-o json group add", "--output=json group add"},
		"pass through":             {"run --once ./x --name y -- cmd -v --once -- z", "run --once --name=y ./x -- cmd -v --once -- z"},
		"pass through, no target":  {"run -v -- cmd", "--verbose run -- cmd"},
		"pass through, no command": {"run --", "run --"},
		"a command's name later":   {"call call run", "call -- call run"},
		"value that is a command":  {"-o call call x", "--output=call call -- x"},
		"unknown value, then word": {"--data run call x", "call --data=run -- x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := commands.TakeApartSample(words(c.in))
			if got.Err != nil {
				t.Fatalf("%q: %v", c.in, got.Err)
			}
			if !slices.Equal(got.Argv, words(c.want)) {
				t.Errorf("%q became %q, want %q", c.in, got.Argv, words(c.want))
			}
			if again := commands.TakeApartSample(got.Argv); again.Err != nil || !slices.Equal(again.Argv, got.Argv) {
				t.Errorf("a second time %q became %q, %v", got.Argv, again.Argv, again.Err)
			}
		})
	}
}

// words splits a line; <> is an empty word.
func words(s string) []string {
	out := strings.Fields(s)
	for i := range out {
		if out[i] == "<>" {
			out[i] = ""
		}
	}
	return out
}

func TestTakeApartMistakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"unknown command":      {"cal x", `unknown command "cal"`},
		"unknown in a group":   {"group ad", `unknown command "group ad"`},
		"unknown flag":         {"call x --dat 1", `unknown flag --dat for "micro call"`},
		"unknown short":        {"call x -z", `unknown flag -z for "micro call"`},
		"unknown in a cluster": {"call x -iz", `unknown flag -iz for "micro call"`},
		"flag of another":      {"run x --data 1", `unknown flag --data for "micro run"`},
		"no value":             {"call x --data", `flag --data needs a value: text`},
		"no value before --":   {"call x --data -- y", `flag --data needs a value: text`},
		"bad duration":         {"call x --timeout soon", `flag --timeout: "soon" is not a duration, such as 500ms, 2s or 1m`},
		"negative duration":    {"call x --timeout=-2s", `flag --timeout: "-2s" is not a duration, such as 500ms, 2s or 1m`},
		"bad number":           {"call x -n many", `flag -n: "many" is not a whole number, 0 or more`},
		"bad rate":             {"call x --rate fast", `flag --rate: "fast" is not a number`},
		"bad bool":             {"call x --include=perhaps", `flag --include: "perhaps" is not true or false`},
		"number for run":       {"run -5", `unknown flag -5 for "micro run"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := commands.TakeApartSample(words(c.in))
			if got.Err == nil || got.Err.Error() != c.want {
				t.Errorf("%q: %v, want %s", c.in, got.Err, c.want)
			}
		})
	}
}

// TestFlagAnywhere holds that a flag means the same before, between and after the arguments, for every flag of every
// command.
func TestFlagAnywhere(t *testing.T) {
	t.Parallel()
	flags := commands.CommandFlags()
	if len(flags) < 50 {
		t.Fatalf("only %d flags in the tree", len(flags))
	}
	for _, f := range flags {
		spellings := [][]string{{f.Flag, f.Value}, {f.Flag + "=" + f.Value}}
		if f.Bool {
			spellings = [][]string{{f.Flag}}
		}
		var want []string
		for _, flag := range spellings {
			for _, at := range [][]string{
				slices.Concat(flag, []string{f.Command, "x", "y"}),
				slices.Concat([]string{f.Command}, flag, []string{"x", "y"}),
				slices.Concat([]string{f.Command, "x"}, flag, []string{"y"}),
				slices.Concat([]string{f.Command, "x", "y"}, flag),
			} {
				got := commands.TakeApart(at)
				if got.Err != nil {
					t.Errorf("%q: %v", at, got.Err)
					continue
				}
				if want == nil {
					want = got.Argv
				}
				if !slices.Equal(got.Argv, want) || !slices.Equal(got.Args, []string{"x", "y"}) {
					t.Errorf("%q became %q, want %q", at, got.Argv, want)
				}
			}
		}
	}
}

// TestFlagNamesMeanOneThing holds what the walk to the command relies on: a name is a bool everywhere or has a value
// everywhere.
func TestFlagNamesMeanOneThing(t *testing.T) {
	t.Parallel()
	bools, values := commands.FlagKinds()
	for name, in := range bools {
		if others := values[name]; len(others) > 0 {
			t.Errorf("flag %q is a bool in %v and has a value in %v", name, in, others)
		}
	}
}

func FuzzTakeApart(f *testing.F) {
	for _, s := range []string{
		"call a b --timeout 2s", "run ./x -- cmd -v", "-vo json call x -- -v", "call -d -- x", "group rm", "run -5 -- --", "call \xff -\xff",
		"list --watch nodes", "describe a -o=json", "--version", "-- list", "call -- --",
	} {
		f.Add(strings.ReplaceAll(s, " ", "\n"))
	}
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, "\n")
		for name, take := range map[string]func([]string) commands.Line{"sample": commands.TakeApartSample, "real": commands.TakeApart} {
			got := take(slices.Clone(args))
			if got.Err != nil {
				continue
			}
			again := take(got.Argv)
			if again.Err != nil || !slices.Equal(again.Argv, got.Argv) || !slices.Equal(again.Rest, got.Rest) || !slices.Equal(again.Args, got.Args) {
				t.Fatalf("%s: %q became %q, then %q (%v)", name, args, got.Argv, again.Argv, again.Err)
			}
			// What stands after the first free-standing "--" stays in its order, at the end.
			if i := separator(args, got); i >= 0 && !slices.Equal(args[i+1:], tail(got, len(args)-i-1)) {
				t.Fatalf("%s: %q moved text after --: %q", name, args, got.Argv)
			}
		}
	})
}

// separator finds the "--" that ended the flags: the one after which all words are arguments.
func separator(args []string, got commands.Line) int {
	for i, a := range args {
		after := len(args) - i - 1
		if a == "--" && len(tail(got, after)) == after && slices.Equal(tail(got, after), args[i+1:]) {
			return i
		}
	}
	if slices.Contains(args, "--") && len(got.Args)+len(got.Rest) == 0 {
		return -1
	}
	for i, a := range args {
		if a == "--" && (i == 0 || !strings.HasPrefix(args[i-1], "-")) {
			return i // no flag can have taken it
		}
	}
	return -1
}

// tail gives the last n of the words that are no flags.
func tail(got commands.Line, n int) []string {
	all := slices.Concat(got.Args, got.Rest)
	if got.HasRest {
		all = got.Rest
	}
	return all[max(0, len(all)-n):]
}
