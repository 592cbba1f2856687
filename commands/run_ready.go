package commands

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/cb02dfca/micro/internal/demo"
	"github.com/cb02dfca/micro/internal/program"
	"github.com/cb02dfca/micro/internal/terminal"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/transport"
)

// readyValue is the JSON form of the ready line.
type readyValue struct {
	Service   string   `json:"service"`
	Version   string   `json:"version"`
	Node      string   `json:"node"`
	Address   string   `json:"address"`
	Registry  string   `json:"registry"`
	Endpoints []string `json:"endpoints"`
	Topics    []string `json:"topics"`
}

// ready tells what is served where: on standard error, and with -o json, jsonl or yaml on standard output.
func (r *runner) ready(ctx context.Context) error {
	n := r.service.Node()
	v := readyValue{Service: n.Service, Version: n.Version, Node: n.ID, Address: n.Address, Registry: r.in.registryShown(),
		Endpoints: []string{}, Topics: []string{}}
	for _, e := range r.service.Server().Endpoints() {
		v.Endpoints = append(v.Endpoints, e.Name)
	}
	for _, s := range r.service.Server().Subscriptions() {
		v.Topics = append(v.Topics, s.Topic)
	}
	slices.Sort(v.Topics)
	for _, note := range r.plan.notes {
		r.in.warn("  %s is not served: it %s", terminal.Line(note.File), note.Reason)
	}
	if r.plan.demo {
		r.in.warn("nothing to serve in this folder: serving the demo, builtin:greeter")
	}
	r.in.warn("%s %s is ready on %s (node %s, registry %s)", v.Service, v.Version, v.Address, v.Node, v.Registry)
	if len(v.Endpoints) > 0 {
		r.in.warn("  endpoints  %s", strings.Join(v.Endpoints, " "))
	}
	if len(v.Topics) > 0 {
		r.in.warn("  topics     %s", strings.Join(v.Topics, " "))
	}
	if r.in.flags.Bool("once") {
		r.in.warn("  leaves after one call or message")
	} else {
		r.in.warn("  Ctrl-C stops")
	}
	if r.plan.builtin == "greeter" {
		r.in.warn("\nin another terminal:\n  micro list services\n  micro call %s Say.Hello '{\"name\":\"x\"}'\n  micro publish %s\n", v.Service, demo.Topic)
	}
	if r.in.query != "" || slices.Contains([]string{"json", "jsonl", "yaml"}, r.in.output) {
		return r.in.print(ctx, result{value: v})
	}
	return nil
}

// explainProgram tells why a program cannot be served.
func explainProgram(path string, err error) error {
	text := trimProgram(err)
	switch {
	case errors.Is(err, program.ErrNotExecutable):
		if rest, ok := strings.CutPrefix(text, "not executable: "); ok && rest == path {
			text = path + " is not executable"
		} else if ok {
			text = rest
		}
		f := fail(exitNotExecutable, "%s", text).because(err)
		if !strings.HasSuffix(text, " is not executable") {
			return f
		}
		f = f.hint("make it so", "chmod +x "+path)
		if interpreter := interpreterOf(path); interpreter != "" {
			f = f.hint("or", "micro run -- "+interpreter+" "+path)
		}
		return f
	case errors.Is(err, program.ErrNotFound):
		return fail(exitNoTarget, "%s", text).because(err)
	case errors.Is(err, program.ErrInvalid):
		return usage("%s", text).because(err)
	}
	return fail(exitRun, "%s", text).because(err)
}

// interpreterOf guesses what runs a script that is not executable itself.
func interpreterOf(path string) string {
	switch filepath.Ext(path) {
	case ".py":
		return "python3"
	case ".sh":
		return "sh"
	case ".js", ".mjs":
		return "node"
	case ".rb":
		return "ruby"
	case ".pl":
		return "perl"
	}
	return ""
}

// explainRun tells why a service cannot be made or run.
func (r *runner) explainRun(err error) error {
	text := strings.TrimPrefix(trimPackage(err.Error()), "service "+r.plan.name+": ")
	address := or(r.in.flags.String("address"), "the address")
	switch {
	case errIs(err, errAddressInUse()):
		return fail(exitRun, "address %s is in use: another program listens there", address).because(err).
			hint("any free port", "micro run --address :0 ...").hint("who has it", whoHas(address))
	case errors.Is(err, transport.ErrTaken):
		return fail(exitRun, "address %s is taken: another service listens to it", address).because(err).hint("a name of its own", "leave --address out")
	case errIs(err, syscall.EADDRNOTAVAIL):
		return fail(exitRun, "address %s is none of this machine", address).because(err).hint("loopback", "micro run --address :0 ...")
	case errIs(err, syscall.EACCES):
		return fail(exitRun, "address %s: permission denied; ports below 1024 need privileges", address).because(err).
			hint("any free port", "micro run --address :0 ...")
	case errors.Is(err, registry.ErrUnavailable):
		return r.in.explainRegistry(err)
	case errors.Is(err, registry.ErrInvalid):
		return usage("%s", text).because(err)
	}
	return fail(exitRun, "%s", text).because(err)
}

// errAddressInUse is the system's error: Windows has a number of its own for it.
func errAddressInUse() error {
	if runtime.GOOS == "windows" {
		return syscall.Errno(10048) // WSAEADDRINUSE
	}
	return syscall.EADDRINUSE
}

func whoHas(address string) string {
	port := address[strings.LastIndexByte(address, ':')+1:]
	if runtime.GOOS == "windows" {
		return "netstat -ano | findstr :" + port
	}
	return "lsof -i :" + port
}

// runLog writes what the service and its programs log, a line each, with the service's name in front. It writes through
// the invocation, which makes the text safe and keeps lines whole.
type runLog struct {
	in    *invocation
	name  string
	attrs string
}

var _ slog.Handler = (*runLog)(nil)

// Enabled follows -v and --quiet.
func (l *runLog) Enabled(_ context.Context, level slog.Level) bool {
	switch {
	case l.in.quiet:
		return level >= slog.LevelError
	case l.in.verbose:
		return true
	}
	return level >= slog.LevelInfo
}

// Handle writes "greeter | 14:02:11 INF text key=value".
func (l *runLog) Handle(_ context.Context, rec slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s | %s %s %s%s", l.name, l.in.Now().Format("15:04:05"), levelName(rec.Level), terminal.Line(rec.Message), l.attrs)
	rec.Attrs(func(a slog.Attr) bool {
		b.WriteString(attrText(a))
		return true
	})
	l.in.say("%s", b.String())
	return nil
}

// WithAttrs gives a handler whose lines carry attrs.
func (l *runLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *l
	for _, a := range attrs {
		next.attrs += attrText(a)
	}
	return &next
}

// WithGroup gives the same handler: lines for people have no groups.
func (l *runLog) WithGroup(string) slog.Handler { return l }

// attrText leaves empty ones out, and what every line of this log would carry.
func attrText(a slog.Attr) string {
	value := a.Value.Resolve().String()
	if value == "" || a.Key == "service" {
		return ""
	}
	if strings.ContainsAny(value, " \"=\t\n") {
		value = fmt.Sprintf("%q", value)
	}
	return " " + a.Key + "=" + terminal.Line(value)
}

func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "ERR"
	case l >= slog.LevelWarn:
		return "WRN"
	case l >= slog.LevelInfo:
		return "INF"
	}
	return "DBG"
}
