package commands_test

import (
	"context"
	"iter"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/registry"
)

// bashBreaks is what bash breaks words at, unless a user says otherwise.
const bashBreaks = " \t\n\"'@><=;|&(:"

// completions are the lines whose candidates are golden; <> is an empty word. Each is completed in the world that it names.
var completions = []struct{ name, world, line string }{
	{"commands", "down", "<>"},
	{"commands-prefix", "down", "s"},
	{"flags", "down", "health --"},
	{"flags-given", "down", "health --node x --"},
	{"short-flags", "down", "version -"},
	{"group", "down", "registry <>"},
	{"help", "down", "help <>"},
	{"output", "down", "call -o <>"},
	{"output-cluster", "down", "list -vo j"},
	{"output-equals", "down", "list --output=j"},
	{"duration", "down", "list --timeout <>"},
	{"color", "down", "list --color <>"},
	{"bool", "down", "call --all="},
	{"registry", "down", "list --registry <>"},
	{"content-type", "down", "call greeter Say.Hello -H content-type:application/j"},
	{"proto-files", "down", "describe greeter --proto testdata/till"},
	{"folders", "down", "generate --out testd"},
	{"data-file", "down", "call greeter Say.Hello -d @testdata/node"},
	{"item-file", "down", "publish topic photo@testdata/node"},
	{"item-json-file", "down", "publish topic body:=@testdata/node"},
	{"run", "down", "run builtin:"},
	{"run-program", "down", "run -- testdata/node"},
	{"shells", "down", "completion <>"},
	{"registry-down", "down", "call <>"},
	{"unknown-command", "ok", "cal <>"},
	{"services", "ok", "call <>"},
	{"services-flag-before", "ok", "-o json call --timeout 3s g"},
	{"describe-services", "ok", "describe <>"},
	{"health-services", "ok", "health <>"},
	{"health-full", "ok", "health greeter <>"},
	{"list-kinds", "ok", "list <>"},
	{"list-nodes", "ok", "list nodes <>"},
	{"list-topics", "ok", "list topics <>"},
	{"list-meta", "ok", "list nodes --meta z"},
	{"endpoints", "ok", "call greeter <>"},
	{"endpoints-slash", "ok", "stream greeter/Say.C"},
	{"endpoints-typed", "ok", "call greeter Say.H"},
	{"fields", "ok", "call greeter Say.Hello <>"},
	{"fields-given", "ok", "call greeter Say.Hello name=x --no-validate <>"},
	{"fields-slash", "ok", "call greeter/Say.Hello n"},
	{"field-values", "ok", "call greeter Say.Hello mood="},
	{"fields-body", "ok", "call greeter Say.Hello {} <>"},
	{"fields-dead", "dead", "call greeter Say.Hello <>"},
	{"node", "ok", "call greeter --node <>"},
	{"version", "ok", "describe greeter --version <>"},
	{"version-run", "ok", "run --version <>"},
	{"topics", "ok", "publish <>"},
	{"topics-more", "ok", "subscribe topic <>"},
	{"queue", "ok", "subscribe --queue <>"},
	{"deregister", "ok", "registry deregister greeter-7"},
	{"grpc-scheme", "ok", "call gr"},
	{"grpc-services", "grpc", "call grpc://till-1:1 <>"},
	{"grpc-methods", "grpc", "call grpc://till-1:1 shop.Till/"},
	{"grpc-methods-apart", "grpc", "describe grpc://till-1:1 shop.Till <>"},
	{"grpc-path", "grpc", "call grpc://till-1:1/shop.B"},
	{"grpc-fields", "grpc", "call grpc://till-1:1 shop.Bills/Pay <>"},
	{"grpc-mute", "grpc", "call grpc://mute-1:1 <>"},
	{"grpc-proto", "grpc", "call --proto testdata/till.proto grpc://mute-1:1 <>"},
	{"grpc-proto-bad", "grpc", "call --proto testdata/bad.proto grpc://mute-1:1 <>"},
	{"grpc-address", "grpc", "call till --address grpc://till-1:1 shop.Bills/Pay n"},
	{"grpc-dotted", "grpc", "call grpc://till-1:1 shop.Till.C"},
	{"proto-path", "down", "call -I testdata --proto ti"},
	{"store", "down", "registry --store <>"},
	{"list-meta-all", "ok", "list nodes --meta <>"},
	{"fields-data", "ok", "call greeter Say.Hello -d {} <>"},
	{"field-values-json", "ok", "call greeter Say.Hello mood:="},
	{"grpc-scheme-alone", "ok", "call grp"},
	{"grpc-nobody", "grpc", "call grpc://nobody:1 <>"},
}

// TestComplete holds the candidates of lines, that nothing is said on standard error, and that the exit code is 0.
func TestComplete(t *testing.T) {
	t.Parallel()
	for _, c := range completions {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"__complete", "fish"}, words(c.line)...)
			var w *world
			if c.world == "grpc" {
				w = newWorld(t)
				w.till(t, "till-1", true)
				w.till(t, "mute-1", false)
			} else {
				w = worlds[c.world](t)
			}
			d, stdout, stderr := w.deps(tty, map[string]string{"MICRO_COMPLETION_TIMEOUT": "20s"}, args...)
			if c.world == "grpc" {
				w.openGRPC(&d)
			}
			got := outcome{runMain(t, d), stdout.String(), stderr.String()}
			if got.code != 0 || got.stderr != "" {
				t.Errorf("exit %d, %q", got.code, got.stderr)
			}
			golden(t, "complete-"+c.name, args, got)
		})
	}
}

// TestCompleteBash holds that bash gets what readline replaces: the part after the last word break, quoted, with the space after a word.
func TestCompleteBash(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`micro call gree`:                                "greeter \n",
		`micro call "gree`:                               "greeter\n",
		`micro call --registry=def`:                      "default \n",
		`micro list --registry def`:                      "default \n",
		`micro list --registry "$REG" -o js`:             "json \njsonl \n",
		`micro call greeter Say.Hello mood=g`:            "glad \n",
		`micro call greeter Say.Hello mood='g`:           "glad\n",
		`micro call -H content-type:application/octet-s`: "application/octet-stream \n",
		`micro publish topic photo@testdata/bad-n`:       "@testdata/bad-node.json \n",
		`micro list >testdata/bad-n`:                     "testdata/bad-node.json \n",
		`micro list > testdata/bad-n`:                    "testdata/bad-node.json \n",
		`micro call 2>/dev/null gree`:                    "greeter \n",
		`micro call >&2 2>>log <in gree`:                 "greeter \n",
		`micro call '>' gree`:                            "",
		`micro describe\ x gree`:                         "",
		`micro call $(touch testdata/run) gree`:          "",
		`micro`:                                          "",
		``:                                               "",
	} {
		w := worlds["ok"](t)
		d, stdout, stderr := w.deps(pipe, map[string]string{"REG": "local", "MICRO_COMPLETION_TIMEOUT": "20s"}, "__complete", "bash", bashBreaks, line)
		if code := runMain(t, d); code != 0 || stderr.Len() > 0 || stdout.String() != want {
			t.Errorf("%s: exit %d, %q, want %q\n%s", line, code, stdout, want, stderr)
		}
	}
}

// TestCompleteSilent holds that settings that are wrong, and odd lines, keep completion quiet.
func TestCompleteSilent(t *testing.T) {
	t.Parallel()
	w := worlds["ok"](t)
	for _, args := range [][]string{{}, {"fish"}, {"bash", "x"}, {"bash", "", "micro ${ '"}, {"zsh", `call "gre`}, {"fish", "call", "--registry", "nowhere://x", ""},
		{"fish", "call", "--timeout", "soon", ""}, {"fish", "\x1b[2J"}, {"fish", "call", "grpc://", ""}, {"fish", "call", "greeter", "Say.Hello", ".="}} {
		d, _, stderr := w.deps(tty, map[string]string{"MICRO_OUTPUT": "bogus", "MICRO_CLIENT_REQUEST_TIMEOUT": "x"}, append([]string{"__complete"}, args...)...)
		if code := runMain(t, d); code != 0 || stderr.Len() > 0 {
			t.Errorf("%q: exit %d, %q", args, code, stderr)
		}
	}
}

// slow is a registry that never answers; deaf does not even heed its context.
type slow struct {
	downRegistry
	deaf chan struct{}
}

func (s slow) List(ctx context.Context) ([]registry.Node, error) {
	if s.deaf != nil {
		<-s.deaf
		return nil, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}
func (s slow) Watch(context.Context, string) iter.Seq2[[]registry.Node, error] { return nil }

// TestCompleteBounded holds that a registry that does not answer delays a shell no longer than it is told to.
func TestCompleteBounded(t *testing.T) {
	t.Parallel()
	deaf := make(chan struct{})
	defer close(deaf)
	for name, reg := range map[string]slow{"slow": {}, "deaf": {deaf: deaf}} {
		d, stdout, stderr := newWorld(t).deps(tty, map[string]string{"MICRO_COMPLETION_TIMEOUT": "50ms"}, "__complete", "fish", "call", "")
		d.Backends.Registries["default"] = func(context.Context, *url.URL) (registry.Registry, error) { return reg, nil }
		begun := time.Now()
		if code := runMain(t, d); code != 0 || stdout.Len()+stderr.Len() > 0 {
			t.Errorf("%s: exit %d, %q %q", name, code, stdout, stderr)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
}

// TestCompleteHostile holds that names that could steer a terminal, or forge a line of the answer, are not offered.
func TestCompleteHostile(t *testing.T) {
	t.Parallel()
	d, stdout, _ := newWorld(t).deps(tty, nil, "__complete", "fish", "call", "")
	listing{nodes: []registry.Node{node("a", "good", "1\x1b[2J", "a:1", 0), node("b", "ba\x1b[2Jd", "1", "b:1", 0), node("c", "two\nlines", "1", "c:1", 0)}}.open(&d)
	if runMain(t, d); strings.ContainsAny(stdout.String(), "\x1b") || strings.Count(stdout.String(), "\n") != 1 || !strings.HasPrefix(stdout.String(), "good\t") {
		t.Errorf("%q", stdout)
	}
}

// FuzzCompleteLine holds that no line of bash makes completion fail, or say anything but candidates.
func FuzzCompleteLine(f *testing.F) {
	for _, line := range []string{"micro call gre", `micro "a\`, "micro ${A", "micro list --output=", "micro a@b:c=d"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		w := newWorld(t)
		d, _, stderr := w.deps(pipe, map[string]string{"A": "x y"}, "__complete", "bash", bashBreaks, line)
		if code := commands.Main(t.Context(), d); code != 0 || stderr.Len() > 0 {
			t.Errorf("%q: exit %d, %q", line, code, stderr)
		}
	})
}
