package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/internal/terminal"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// exitCode is what the process ends with. The list is a promise to scripts: see micro help exit-codes.
type exitCode int

const (
	exitOK            exitCode = 0
	exitFailed        exitCode = 1
	exitUsage         exitCode = 2
	exitNotFound      exitCode = 3
	exitUnavailable   exitCode = 4
	exitTimeout       exitCode = 5
	exitRemote        exitCode = 6
	exitDenied        exitCode = 7
	exitCheck         exitCode = 8
	exitPartly        exitCode = 9
	exitRun           exitCode = 125
	exitNotExecutable exitCode = 126
	exitNoTarget      exitCode = 127
	exitInterrupted   exitCode = 130
	exitTerminated    exitCode = 143
)

// kind is the exit code's name in the JSON form of an error.
func (c exitCode) kind() string {
	switch c {
	case exitUsage:
		return "usage"
	case exitNotFound:
		return "not_found"
	case exitUnavailable:
		return "unavailable"
	case exitTimeout:
		return "timeout"
	case exitRemote:
		return "remote"
	case exitDenied:
		return "denied"
	case exitCheck:
		return "check_failed"
	case exitPartly:
		return "partly"
	case exitRun, exitNotExecutable, exitNoTarget:
		return "run"
	case exitInterrupted, exitTerminated:
		return "interrupted"
	}
	return "failed"
}

// failure is an error as the user is told it: what failed in one line, then what adds to it, then at most two actions.
// Its methods change it and give it back, for use in a return statement.
type failure struct {
	code    exitCode
	what    string
	lines   []string      // a line each, below the first
	details []errorDetail // of a service's error; lines before the others
	hints   [][2]string   // a label and a command
	cause   error
	quiet   bool // everything was said already: only the exit code is left to give
}

func (f *failure) Error() string { return f.what }
func (f *failure) Unwrap() error { return f.cause }

// fail makes a failure.
func fail(code exitCode, format string, args ...any) *failure {
	return &failure{code: code, what: fmt.Sprintf(format, args...)}
}

// usage makes a failure of the command line.
func usage(format string, args ...any) *failure { return fail(exitUsage, format, args...) }

// exit ends the program with a code and says nothing: for commands whose answer tells already what is wrong.
func exit(code exitCode) *failure {
	return &failure{code: code, what: "exit " + code.kind(), quiet: true}
}

// line adds a line below the first.
func (f *failure) line(format string, args ...any) *failure {
	f.lines = append(f.lines, fmt.Sprintf(format, args...))
	return f
}

// hint adds an action: a label such as "did you mean", and what to type. A third one is left out.
func (f *failure) hint(label, text string) *failure {
	if len(f.hints) < 2 {
		f.hints = append(f.hints, [2]string{label, text})
	}
	return f
}

// because sets the cause, for errors.Is and for the JSON form.
func (f *failure) because(err error) *failure {
	f.cause = err
	return f
}

// classify makes a failure of any error: the one place in which errors become exit codes. ctx tells an interrupted
// command from one that ran out of time.
func classify(ctx context.Context, err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var sig signalError
	if errors.As(context.Cause(ctx), &sig) && errors.Is(err, context.Canceled) {
		return &failure{code: sig.exit(), what: "interrupted", cause: err}
	}
	return &failure{code: codeOf(err), what: trimPackage(err.Error()), cause: err}
}

// codeOf gives an error's exit code.
func codeOf(err error) exitCode {
	var f *failure
	var st *status.Error
	switch {
	case errors.As(err, &f):
		return f.code
	case errors.As(err, &st):
		return codeOfStatus(st)
	case errors.Is(err, opener.ErrUnknown), errors.Is(err, transport.ErrTooLarge), errors.Is(err, broker.ErrInvalid), errors.Is(err, registry.ErrInvalid):
		return exitUsage
	case errors.Is(err, registry.ErrNotFound), errors.Is(err, selector.ErrNotFound), errors.Is(err, selector.ErrNoneMatch):
		return exitNotFound
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.Is(err, registry.ErrUnavailable), errors.Is(err, selector.ErrUnavailable), errors.Is(err, selector.ErrExhausted),
		errors.Is(err, broker.ErrUnavailable), errors.Is(err, transport.ErrNotSent):
		return exitUnavailable
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailed
}

// codeOfStatus gives the exit code of an error that crossed the wire, or was made for that.
func codeOfStatus(e *status.Error) exitCode {
	switch e.Code {
	case status.DeadlineExceeded, status.HandlerTimeout:
		return exitTimeout
	case status.Unauthenticated, status.PermissionDenied:
		return exitDenied
	case status.Unavailable, status.ResourceExhausted, status.Misdirected:
		return exitUnavailable
	}
	switch {
	case e.Code == status.Canceled && !e.Remote:
		return exitInterrupted
	case e.Refused && e.Code == status.TooLarge:
		return exitUsage
	case e.Refused && (e.Code == status.NotFound || e.Code == status.Unimplemented):
		return exitNotFound
	case e.Remote:
		return exitRemote
	case e.Code == status.NotFound:
		return exitNotFound
	case e.Code == status.InvalidArgument, e.Code == status.TooLarge, e.Code == status.UnsupportedMedia:
		return exitUsage
	}
	return exitFailed
}

// trimPackage takes a package's name off the front of an error's text: it means nothing to whoever types a command.
func trimPackage(text string) string {
	for _, p := range []string{"registry: ", "selector: ", "client: ", "broker: ", "transport: ", "micro: ", "server: "} {
		if rest, found := strings.CutPrefix(text, p); found && rest != "" {
			return rest
		}
	}
	return text
}

// hintColumn is where the second hint of a line begins, if the first leaves room.
const hintColumn = 33

// print writes the failure for people.
func (f *failure) print(w io.Writer, c palette) {
	var b strings.Builder
	b.WriteString(c.bad("error:") + " " + indent(terminal.Safe(f.what)) + "\n")
	for _, d := range f.details {
		b.WriteString("  " + indent(terminal.Safe(d.text)) + "\n")
	}
	for _, l := range f.lines {
		b.WriteString("  " + indent(terminal.Safe(l)) + "\n")
	}
	if len(f.hints) > 0 {
		out := "  " + f.hintText(0)
		if len(f.hints) > 1 {
			out += strings.Repeat(" ", max(3, hintColumn-utf8.RuneCountInString(out))) + f.hintText(1)
		}
		b.WriteString(out + "\n")
	}
	io.WriteString(w, b.String())
}

// indent keeps the further lines of a text under its first.
func indent(s string) string { return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ") }

func (f *failure) hintText(i int) string {
	label, text := f.hints[i][0], terminal.Line(f.hints[i][1])
	if label == "" {
		return text
	}
	return label + ": " + text
}

// errorJSON is the JSON form of an error, on standard error.
type errorJSON struct {
	Error errorBody `json:"error"`
}

type errorBody struct {
	Kind    string        `json:"kind"`
	Exit    exitCode      `json:"exit"`
	ID      string        `json:"id,omitempty"`     // of the status error
	Code    int           `json:"code,omitempty"`   // of the status error
	Status  string        `json:"status,omitempty"` // of the status error
	Detail  string        `json:"detail"`
	Details []errorDetail `json:"details,omitempty"` // of the status error
	Lines   []string      `json:"lines,omitempty"`
	Hint    []string      `json:"hint,omitempty"`
}

// printJSON writes the failure as one line of JSON.
func (f *failure) printJSON(w io.Writer) {
	body := errorBody{Kind: f.code.kind(), Exit: f.code, Detail: f.what, Details: f.details, Lines: f.lines}
	var st *status.Error
	if errors.As(f.cause, &st) {
		body.ID, body.Code, body.Status = st.ID, int(st.Code), st.Code.String()
	}
	for i := range f.hints {
		body.Hint = append(body.Hint, f.hintText(i))
	}
	text, err := json.Marshal(errorJSON{body})
	if err != nil { // strings and numbers: cannot be
		text = []byte(`{"error":{"kind":"failed","exit":1}}`)
	}
	w.Write(append(terminal.JSON(text), '\n'))
}
