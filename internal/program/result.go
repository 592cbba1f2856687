package program

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/cb02dfca/micro/pkg/status"
)

// maxErrorDetail is the limit of the detail that a program gives in an error object, in bytes.
const maxErrorDetail = 4 << 10

// exit is how a process ended.
type exit struct {
	code   int    // -1 where a signal ended it
	signal string // its name, or empty
}

// result reads the answer out of a process that has ended.
func (c *call) result() (Response, error) {
	switch {
	case c.startErr != nil:
		c.p.o.Logger.Error("cannot start the handler", "path", c.p.path, "error", c.startErr)
		e := status.Wrap(c.startErr, status.Unavailable, "the handler cannot be started")
		e.Refused = true
		return Response{}, e
	case c.tooLarge:
		return Response{}, status.New(status.Internal, "answer over %s", size(c.p.o.MaxBody))
	case c.exit == exit{}:
		return answer(c.out), nil
	}
	if isClosed(c.killed) && isClosed(c.p.closing) {
		return Response{}, status.New(status.Unavailable, "the handler was killed: shutting down")
	}
	for _, object := range [][]byte{c.reported, c.out} {
		if e := parseError(object); e != nil {
			return Response{}, e
		}
	}
	last := c.last
	if c.p.o.HideStderr {
		last = ""
	}
	return Response{}, c.exit.status(last)
}

// answer gives standard output its content type.
func answer(out []byte) Response {
	trimmed := bytes.Trim(out, " \t\r\n")
	switch {
	case len(trimmed) == 0:
		return Response{ContentType: "application/json", Body: []byte("{}")}
	case json.Valid(trimmed):
		return Response{ContentType: "application/json", Body: trimmed}
	}
	return Response{ContentType: "text/plain", Body: out}
}

// status gives the error for an end that is not exit 0.
func (e exit) status(last string) error {
	if e.signal != "" {
		return status.New(status.Internal, "killed by %s%s", e.signal, tail(last))
	}
	said := last
	if said == "" {
		said = "exited with status " + strconv.Itoa(e.code)
	}
	switch e.code { // sysexits(3)
	case 64, 65:
		return status.New(status.InvalidArgument, "%s", said)
	case 66:
		return status.New(status.NotFound, "%s", said)
	case 69, 75:
		return status.New(status.Unavailable, "%s", said)
	case 77:
		return status.New(status.PermissionDenied, "%s", said)
	}
	return status.New(status.Internal, "exited with status %d%s", e.code, tail(last))
}

func tail(last string) string {
	if last == "" {
		return ""
	}
	return ": " + last
}

// parseError reads {"error":{"code":N,"detail":"…"}}; nil where out is not that.
func parseError(out []byte) error {
	out = bytes.Trim(out, " \t\r\n")
	if len(out) == 0 || out[0] != '{' {
		return nil
	}
	var o struct {
		Error *struct {
			Code   status.Code `json:"code"`
			Detail string      `json:"detail"`
		} `json:"error"`
	}
	if json.Unmarshal(out, &o) != nil || o.Error == nil || o.Error.Code == 0 && o.Error.Detail == "" {
		return nil
	}
	code := o.Error.Code
	if code < 400 || code > 599 {
		code = status.Internal
	}
	return status.New(code, "%s", cut(o.Error.Detail, maxErrorDetail))
}

func size(n int) string {
	if n >= 1<<20 && n%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d bytes", n)
}
