package commands_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/registry"
)

// TestFailures holds what a script relies on: the exit code, the first line of standard error, and nothing on standard
// output.
func TestFailures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line  string
		env   map[string]string
		world string
		code  int
		first string
	}{
		{"cal greeter", nil, "ok", 2, `error: unknown command "cal"`},
		{"zzz", nil, "ok", 2, `error: unknown command "zzz"`},
		{"-- list", nil, "ok", 2, `error: unknown command "list"`},
		{"list --helth", nil, "ok", 2, `error: unknown flag --helth for "micro list"`},
		{"list -Z", nil, "ok", 2, `error: unknown flag -Z for "micro list"`},
		{"--registri x list", nil, "ok", 2, `error: unknown flag --registri`},
		{"list servces", nil, "ok", 2, `error: cannot list "servces": want services, nodes, endpoints or topics`},
		{"list services a b", nil, "ok", 2, `error: micro list: one argument too many: "b"`},
		{"list services greter", nil, "ok", 3, `error: service "greter" not found (registry default, knows 2 services)`},
		{"list services x[", nil, "ok", 2, `error: pattern "x[": a [ is not closed`},
		{"list nodes --meta zone", nil, "ok", 2, `error: flag --meta: "zone" is not KEY=VALUE`},
		{"list services --health", nil, "ok", 2, `error: flag --health is for nodes, not for services`},
		{"list topics topc", nil, "ok", 3, `error: nobody subscribes to topic "topc" (registry default)`},
		{"list -o jsn", nil, "ok", 2, `error: unknown output format "jsn", known: table, wide, json, jsonl, yaml, name, tsv`},
		{"list", map[string]string{"MICRO_OUTPUT": "xml"}, "ok", 2, `error: unknown output format "xml", known: table, wide, json, jsonl, yaml, name, tsv`},
		{"list -q .[", nil, "ok", 2, `error: jq expression ".[": unexpected EOF`},
		{"list -q .[].name.x", nil, "ok", 1, `error: jq expression ".[].name.x": expected an object but got: string ("greeter")`},
		{"list --timeout soon", nil, "ok", 2, `error: flag --timeout: "soon" is not a duration, such as 500ms, 2s or 1m`},
		{"list --timeout 0s", nil, "ok", 2, `error: flag --timeout: "0s" is not a duration above zero, such as 500ms, 2s or 1m`},
		{"list", map[string]string{"MICRO_CLIENT_REQUEST_TIMEOUT": "soon"}, "ok", 2,
			`error: environment variable MICRO_CLIENT_REQUEST_TIMEOUT: "soon" is not a duration above zero, such as 500ms, 2s or 1m`},
		{"list --timeout", nil, "ok", 2, `error: flag --timeout needs a value: a duration, such as 500ms, 2s or 1m`},
		{"list --color sometimes", nil, "ok", 2, `error: flag --color: "sometimes" is not one of auto, always, never`},
		{"list --registry etc://x", nil, "ok", 2, `error: registry "etc://x": unknown scheme "etc", known: default, http, local, memory`},
		{"list --registry 127.0.0.1:8000", nil, "ok", 2, `error: registry "127.0.0.1:8000": want a name or a URL`},
		{"list --registry localhost:8000", nil, "ok", 2, `error: registry "localhost:8000": want a name or a URL`},
		{"list --registry etc://x?token=hunter2", nil, "ok", 2, `error: registry "etc://x?token=xxxxx": unknown scheme "etc", known: default, http, local, memory`},
		{"list --registry svc:hunter2@x:1", nil, "ok", 2, `error: registry "svc:xxxxx@x:1": unknown scheme "svc", known: default, http, local, memory`},
		{"list --registry http://svc:hunter2@x:y", nil, "ok", 2, `error: registry "http://svc:xxxxx@x:y": not a URL: its host, port or user information has a character that does not belong there; credentials do not belong in it at all`},
		{"list --transport pigeon nodes --health", nil, "ok", 2, `error: transport "pigeon": unknown scheme "pigeon", known: http`},
		{"list", nil, "down", 4, `error: registry default is not answering: connection refused`},
		{"list --registry http://127.0.0.1:8000", nil, "down", 4, `error: registry 127.0.0.1:8000 is not answering: connection refused`},
		{"list --registry http://me:secret@127.0.0.1:8000", nil, "down", 4, `error: registry me:xxxxx@127.0.0.1:8000 is not answering: connection refused`},
		{"list", map[string]string{"MICRO_REGISTRY_ADDRESS": "127.0.0.1:8000"}, "down", 4,
			`error: registry 127.0.0.1:8000 is not answering: connection refused`},
		{"describe", nil, "ok", 2, `error: micro describe: SERVICE is missing`},
		{"describe greter", nil, "ok", 3, `error: service "greter" not found (registry default, knows 2 services)`},
		{"describe greeter --version 9", nil, "ok", 3, `error: greeter has no node of version "9"; versions: 1.4.0, 1.10.0`},
		{"describe greeter --node x", nil, "ok", 3, `error: node "x" not found`},
		{"describe greeter Say.Helo --version 1.4.0", nil, "ok", 3, `error: greeter 1.4.0 has no endpoint "Say.Helo"`},
		{"describe greeter --schema go", nil, "ok", 2, `error: flag --schema: "go" is not a form of schemas, known: json`},
		{"health greter", nil, "ok", 3, `error: service "greter" not found (registry default, knows 2 services)`},
		{"health greeter --node greeter-9", nil, "ok", 3, `error: node "greeter-9" not found`},
		{"stats greter", nil, "ok", 3, `error: service "greter" not found (registry default, knows 2 services)`},
		{"stats", nil, "dead", 4, `error: no node answered (1 asked)`},
		{"stats", nil, "down", 4, `error: registry default is not answering: connection refused`},
		{"version x", nil, "ok", 2, `error: micro version: one argument too many: "x"`},
		{"help outptu", nil, "ok", 2, `error: no command and no topic "outptu"`},
	} {
		t.Run(strings.ReplaceAll(c.line, "/", "|"), func(t *testing.T) {
			t.Parallel()
			w := worlds[c.world](t)
			args := strings.Fields(c.line)
			got := w.run(t, pipe, c.env, args...)
			first, _, _ := strings.Cut(got.stderr, "\n")
			if got.code != c.code || first != c.first || got.stdout != "" {
				t.Errorf("exit %d, want %d\n%s\nwant\n%s\nstdout %q", got.code, c.code, first, c.first, got.stdout)
			}
			// The JSON form tells the same: on standard error, one line.
			got = w.run(t, pipe, merged(map[string]string{"MICRO_OUTPUT": "json"}, c.env), args...)
			var e struct {
				Error struct {
					Kind, Detail string
					Exit         int
				}
			}
			if strings.Contains(c.line, "-o ") || c.env["MICRO_OUTPUT"] != "" {
				return
			}
			if err := json.Unmarshal([]byte(got.stderr), &e); err != nil {
				t.Fatalf("standard error with -o json: %v: %q", err, got.stderr)
			}
			if e.Error.Exit != c.code || got.code != c.code || "error: "+e.Error.Detail != c.first || e.Error.Kind == "" || got.stdout != "" {
				t.Errorf("with -o json: exit %d, %+v, stdout %q", got.code, e.Error, got.stdout)
			}
		})
	}
}

// TestHints holds the second line for the mistakes that are made most.
func TestHints(t *testing.T) {
	t.Parallel()
	hints := map[string]string{
		"lst":                       "  did you mean: list",
		"list services greter":      "  did you mean: greeter          all: micro list services",
		"describe greeter Say.Helo": "  did you mean: Say.Hello        all: micro list endpoints greeter",
		"list --outptu json":        "  did you mean: --output         all flags: micro list --help",
		"list -o jsno":              "  did you mean: -o json",
		"list --registry reg:8000":  "  did you mean: --registry http://reg:8000",
	}
	if slices.Contains(commands.Shown(), "call") {
		hints["cal greeter"] = "  did you mean: call"
	}
	for line, want := range hints {
		got := worlds["ok"](t).run(t, pipe, nil, strings.Fields(line)...)
		lines := strings.Split(got.stderr, "\n")
		if len(lines) < 2 || lines[1] != want {
			t.Errorf("micro %s:\n%swant second line\n%s", line, got.stderr, want)
		}
	}
	got := worlds["ok"](t).run(t, pipe, nil, "list", "services", "greter", "--quiet")
	if strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("--quiet leaves a hint: %q", got.stderr)
	}
}

// TestHostileRecord holds that a record from the network steers no terminal, in no form of output.
func TestHostileRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fault = nil
	evil := "x\x1b[2J\u009b31m\u202egnp\u200b\x7f"
	hostile := node("evil-1", "evil", "1", "evil-1:1", 0, "note", evil)
	hostile.Endpoints = []registry.Endpoint{{Name: "Say." + evil}}
	list := listing{downRegistry{errDown}, []registry.Node{hostile}}
	for _, args := range []string{"list nodes", "list endpoints", "list nodes -o wide", "list nodes -o json", "list endpoints -o jsonl", "list nodes -o yaml",
		"list endpoints -o name", "list nodes -q .[0].metadata.note", "describe evil", "describe evil -o yaml", "describe evil --example", "describe evil x"} {
		d, stdout, stderr := w.deps(tty, map[string]string{"NO_COLOR": "1"}, strings.Fields(args)...)
		list.open(&d)
		runMain(t, d)
		out := stdout.String() + strings.ReplaceAll(stderr.String(), "\r\x1b[K", "")
		if i := strings.IndexFunc(out, func(r rune) bool {
			return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == '\u202e' || r == '\u200b' || r == '\ufffd'
		}); i >= 0 || out == "" {
			t.Errorf("micro %s lets %q through: %q", args, out[max(i, 0):min(len(out), max(i, 0)+4)], out)
		}
	}
}

// TestRegistryToldOnce holds that a registry's address is told once, and that a server that answers is not called silent.
func TestRegistryToldOnce(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{
		"h:1 is not answering: it ended the watch":     "error: registry h:1 is not answering: it ended the watch\n",
		"h:1: the answer is none of a registry server": "error: registry h:1: the answer is none of a registry server\n",
	} {
		w := newWorld(t)
		w.fault = fmt.Errorf("%w: %s", registry.ErrUnavailable, reason)
		if got := w.run(t, pipe, nil, "list", "--registry", "http://h:1"); got.code != 4 || !strings.HasPrefix(got.stderr, want) {
			t.Errorf("exit %d, %q, want %q", got.code, got.stderr, want)
		}
	}
}

// TestErrorText holds that an error's text from the network is safe too.
func TestErrorText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fault = errors.Join(errDown, errors.New("\x1b]0;owned\a"))
	if got := w.run(t, tty, map[string]string{"NO_COLOR": "1"}, "list"); strings.ContainsAny(got.stderr, "\x1b\a") || got.code != 4 {
		t.Errorf("exit %d, %q", got.code, got.stderr)
	}
}

func TestWhyUnavailable(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]struct {
		why      string
		answered bool
	}{
		"connection refused":                      {"connection refused", false},
		"a:1 is not answering: no answer in time": {"no answer in time", false},
		"service echo: registering echo-1: registry: unavailable: a:1 is not answering: EOF": {"EOF", false},
		"service echo: registering echo-1: registry: unavailable: a:1: it is no Consul":      {"it is no Consul", true},
		"a:1: it is no Consul": {"it is no Consul", true},
		"publish to orders: rabbitmq a:1 is not answering: Exception (501)": {"Exception (501)", false},
		"b:1 is not answering: EOF":                                         {"b:1 is not answering: EOF", false},
	} {
		if why, answered := commands.WhyUnavailable("a:1", reason); why != want.why || answered != want.answered {
			t.Errorf("%q: %q, %v; want %q, %v", reason, why, answered, want.why, want.answered)
		}
	}
}
