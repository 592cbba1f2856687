package commands

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/internal/program"
	"github.com/cb02dfca/micro/internal/suggest"
	"github.com/cb02dfca/micro/internal/terminal"
)

func newRun() *command {
	return &command{
		name: "run", group: "Serve", args: "[TARGET | -- CMD ARGS]", short: "serve a program, a script or a folder of them", max: 1,
		passThrough: true,
		long: "TARGET is an executable, a folder of executables (each is an endpoint of its file's name), or builtin:greeter or " +
			"builtin:echo. Without one, in a folder with nothing to serve, it is the demo builtin:greeter.\n\n" +
			"An executable is started once for each call: the request is its standard input, its standard output is the answer, " +
			"its standard error is logged. It exits with 0, or with 64 (400 Bad Request), 66 (404), 77 (403), 69 or 75 (503), another " +
			"number (500), or after printing {\"error\":{\"code\":409,\"detail\":\"...\"}}. What it may know of the call stands in " +
			"MICRO_ENDPOINT, MICRO_REQUEST_ID, MICRO_HEADER_* and others. --timeout is the time of a call, 30s unless given.\n\n" +
			"Ctrl-C lets the running calls end; a second one does not.",
		examples: []string{
			"micro run  # in an empty folder: the demo",
			"micro run ./hello.sh --name greeter --endpoint Say.Hello",
			"micro run ./handlers  # Say.Hello and Say.Bye.sh become Say.Hello and Say.Bye",
			"micro run --name wc --endpoint Count.Lines -- wc -l",
			"micro run --subscribe orders.created=./mail.sh",
		},
		flags: runFlags(),
		exits: []exitCode{exitUnavailable, exitRun, exitNotExecutable, exitNoTarget},
		run:   runRun,
	}
}

func runFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "name", Usage: "the service's `NAME` (default: of the file or folder)"},
		&cli.StringFlag{Name: "version", Usage: "the service's `VERSION` (default latest)"},
		&cli.StringFlag{Name: "address", Usage: "listen on `HOST:PORT` (default: loopback, any free port; :0 is that too); over NATS and RabbitMQ a name"},
		&cli.StringSliceFlag{Name: "endpoint", Usage: "`NAME=TARGET` serves an executable under NAME; NAME alone names the one of the command line (repeat)"},
		&cli.StringSliceFlag{Name: "subscribe", Usage: "`TOPIC=TARGET` starts an executable for each message; TOPIC alone the one of the command line (repeat)"},
		&cli.StringSliceFlag{Name: "meta", Usage: "`KEY=VALUE` is a label of the node (repeat)"},
		&cli.StringSliceFlag{Name: "env", Usage: "`NAME=VALUE` is in the programs' environment; NAME alone passes ours on (repeat)"},
		&cli.IntFlag{Name: "concurrency", Usage: "run `N` processes at once (default: twice the processors)"},
		&cli.IntFlag{Name: "queue", Usage: "let `N` calls wait for their turn; more are refused", Value: program.DefaultQueue},
		&cli.DurationFlag{Name: "grace", Usage: "what is over its time gets SIGTERM, and SIGKILL after `D`", Value: program.DefaultGrace},
		&cli.BoolFlag{Name: "no-stderr-detail", Usage: "keep the last line of standard error out of what callers are told"},
		&cli.BoolFlag{Name: "once", Usage: "serve one call or one message, then leave"},
	}
}

// serving is what a command line asks to be served.
type serving struct {
	name    string
	from    string // what it is, for the ready line: "builtin demo", "./hello.sh"
	builtin string // greeter, echo, or empty
	demo    bool   // nobody asked for it by name

	handlers []handler
	notes    []program.Note // files of a folder that serve nothing
}

// handler is one executable, for an endpoint or a topic.
type handler struct {
	endpoint, topic string
	argv            []string
	entry           program.Entry // of a folder: the schemas
}

// planRun reads the arguments and flags. It looks at files and starts nothing.
func planRun(in *invocation) (*serving, error) {
	s := &serving{}
	target, err := s.target(in)
	if err != nil {
		return nil, err
	}
	if err := s.named(in, target); err != nil {
		return nil, err
	}
	if name := in.flags.String("name"); name != "" {
		s.name = name
	}
	if target != nil && !in.flags.IsSet("endpoint") && !in.flags.IsSet("subscribe") {
		s.handlers = append(s.handlers, handler{endpoint: titled(s.name) + ".Call", argv: target})
	}
	return s, nil
}

// target reads the one target: it gives the command line of an executable, and enters everything else into s.
func (s *serving) target(in *invocation) (argv []string, err error) {
	switch {
	case in.dash && len(in.args) > 0:
		return nil, usage("micro run: both a target, %s, and a command after --", in.args[0]).hint("one of them", "micro run "+in.args[0])
	case in.dash && len(in.rest) == 0:
		return nil, usage("micro run: nothing after --").hint("for example", "micro run -- wc -l")
	case in.dash:
		s.name, s.from = serviceName(in.rest[0]), strings.Join(in.rest, " ")
		return in.rest, nil
	case len(in.args) == 0:
		return nil, s.nothing(in)
	}
	target := in.args[0]
	if name, ok := strings.CutPrefix(target, "builtin:"); ok {
		return nil, s.builtIn(name)
	}
	if strings.Contains(target, "://") {
		return nil, usage("micro run %s: a server that runs already cannot be adopted yet", target).
			hint("an executable", "micro run ./handler")
	}
	if info, err := os.Stat(target); err == nil && info.IsDir() {
		return nil, s.folder(target)
	}
	if _, err := os.Stat(target); err == nil && strings.HasSuffix(target, ".go") {
		return nil, goProgram(target, "go run "+target)
	}
	s.name, s.from = serviceName(target), target
	return []string{target}, nil
}

// nothing plans a run without a target: the demo, unless the folder holds something that looks meant.
func (s *serving) nothing(in *invocation) error {
	if in.flags.IsSet("endpoint") || in.flags.IsSet("subscribe") {
		dir, err := os.Getwd()
		if err != nil {
			return fail(exitRun, "%s", err).because(err)
		}
		s.name = serviceName(dir)
		return nil
	}
	if hasGoMain(".") {
		return goProgram("this folder", "go run .")
	}
	for _, name := range []string{"micro.yaml", "micro.yml"} {
		if _, err := os.Stat(name); err == nil {
			return usage("micro run: %s is not read yet", name).hint("meanwhile", "micro run TARGET").hint("the demo", "micro run builtin:greeter")
		}
	}
	s.demo = true
	return s.builtIn("greeter")
}

func goProgram(what, instead string) error {
	return usage("micro run: %s holds a Go program, which micro run does not build yet", what).
		hint("run it", instead).hint("the demo", "micro run builtin:greeter")
}

func (s *serving) builtIn(name string) error {
	known := []string{"greeter", "echo"}
	switch name {
	case "greeter", "echo":
		s.name, s.builtin, s.from = name, name, "builtin:"+name
		return nil
	}
	f := usage("there is no built-in handler %q, known: %s", name, strings.Join(known, ", "))
	if near := suggest.Closest(name, known); near != "" {
		return f.hint("did you mean", "micro run builtin:"+near)
	}
	return f
}

// folder plans a folder of executables.
func (s *serving) folder(dir string) error {
	if hasGoMain(dir) {
		return goProgram(dir, "go run "+dir)
	}
	entries, notes, err := program.Scan(dir)
	switch {
	case errors.Is(err, program.ErrInvalid):
		return usage("%s", trimProgram(err)).because(err)
	case err != nil:
		return fail(exitRun, "%s", trimProgram(err)).because(err)
	case len(entries) == 0:
		f := fail(exitNoTarget, "%s holds no executable", dir)
		for _, n := range notes {
			f = f.line("%s: %s", terminal.Line(n.File), n.Reason)
		}
		return f.hint("each is an endpoint", "chmod +x "+filepath.Join(dir, "Say.Hello"))
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fail(exitRun, "%s", err).because(err)
	}
	s.name, s.from, s.notes = serviceName(abs), dir, notes
	for _, e := range entries {
		s.handlers = append(s.handlers, handler{endpoint: e.Endpoint, argv: []string{e.Path}, entry: e})
	}
	return nil
}

// named reads --endpoint and --subscribe. A name alone stands for target.
func (s *serving) named(in *invocation, target []string) error {
	for _, flag := range []string{"endpoint", "subscribe"} {
		for _, v := range in.flags.StringSlice(flag) {
			name, path, explicit := strings.Cut(v, "=")
			argv := []string{path}
			if !explicit {
				argv = target
			}
			if name == "" || len(argv) == 0 || argv[0] == "" {
				return usage("flag --%s: %q names no executable, want NAME=TARGET", flag, v).
					hint("for example", "micro run --"+flag+" "+or(name, "Say.Hello")+"=./hello.sh")
			}
			h := handler{argv: argv}
			if flag == "endpoint" {
				h.endpoint = name
			} else {
				h.topic = name
			}
			s.handlers = append(s.handlers, h)
		}
	}
	return nil
}

// hasGoMain reports whether the folder holds a Go program.
func hasGoMain(dir string) bool {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return false
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || strings.HasSuffix(f, "_test.go") {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "package" {
				if fields[1] == "main" {
					return true
				}
				break
			}
		}
	}
	return false
}

// serviceName makes a service's name of a path: of its last part, without the extension of a script. What cannot stand
// in a name becomes a '-'.
func serviceName(path string) string {
	name := program.EndpointOf(filepath.Base(path))
	name = strings.Map(func(r rune) rune {
		if r == '.' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, name)
	return strings.Trim(name, "-._")
}

// titled makes the first part of an endpoint's name of a service's: mail-sender gives MailSender.
func titled(name string) string {
	var b strings.Builder
	for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '-' || r == '_' || r == '.' }) {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

func trimProgram(err error) string {
	text := strings.TrimPrefix(err.Error(), "program: ")
	return strings.TrimPrefix(text, "invalid: ")
}

// callTimeout is the time of a call: here --timeout is not the command's, which has no end.
func callTimeout(in *invocation) time.Duration {
	if in.flags.IsSet("timeout") {
		return in.timeout
	}
	return program.DefaultTimeout
}

func runRun(ctx context.Context, in *invocation) error {
	plan, err := planRun(in)
	if err != nil {
		return err
	}
	r, err := newRunner(ctx, in, plan)
	if err != nil {
		return err
	}
	return r.run(ctx)
}
