// Package status holds the one error that crosses the wire, and its codes.
//
// A handler that returns an [*Error] tells its caller the code and the detail; any other error reaches the
// caller as [Internal] without its text, which may hold what a stranger must not read. A cause stays on this
// side: it is found by [errors.Is] and [errors.As], and is never sent.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Code tells what kind of failure an error is. Codes are HTTP's numbers (RFC 9110 section 15), as go-micro's
// errors are, so that a plain HTTP client and a go-micro client read the same meaning. There is no code for
// success: a call that succeeded has no error.
type Code int

// The codes that this framework itself gives. A handler may use any number from 400 to 599.
const (
	InvalidArgument    Code = 400 // the request is wrong, and would be wrong again
	Unauthenticated    Code = 401 // the caller is not known
	PermissionDenied   Code = 403 // the caller is known, and may not
	NotFound           Code = 404 // no such service, endpoint or thing
	DeadlineExceeded   Code = 408 // the caller's time ran out; the handler may have run
	AlreadyExists      Code = 409 // the thing exists, or was changed meanwhile
	FailedPrecondition Code = 412 // the system is not in the state that the call needs
	TooLarge           Code = 413 // a message is over its limit
	UnsupportedMedia   Code = 415 // the content type is none that the server speaks
	Misdirected        Code = 421 // the call was addressed to another service than the one that got it
	ResourceExhausted  Code = 429 // a limit is reached: try later, or elsewhere
	HeaderTooLarge     Code = 431 // headers or metadata are over their limit
	Canceled           Code = 499 // the caller went away
	Internal           Code = 500 // the handler failed, and says no more
	Unimplemented      Code = 501 // the endpoint exists, but not in this form
	Unavailable        Code = 503 // nobody can answer now
	HandlerTimeout     Code = 504 // the server's own time for the handler ran out
)

// String gives the code's standard text: "Not Found" for 404.
func (c Code) String() string {
	if c == Canceled {
		return "Client Closed Request"
	}
	if s := http.StatusText(int(c)); s != "" {
		return s
	}
	return "Code " + strconv.Itoa(int(c))
}

// Error is the error that travels. All fields but the cause reach the peer.
//
// An Error is not changed after it was made; it may be shared between goroutines.
type Error struct {
	// ID names who failed: a service, or a part of the framework such as "micro.client". Empty is filled with
	// the service's name when a server sends the error.
	ID string
	// Code is the kind of failure.
	Code Code
	// Detail is for a person to read.
	Detail string
	// Refused says that the handler did not run, so the call may safely be sent to another node.
	Refused bool
	// Remote says that the error came from a peer. It is not sent on: a handler that returns the error of a call
	// that it made itself answers with Internal, so that one service's refusal is not taken for another's.
	Remote bool
	// Details is for a program to read: messages of protobuf, as With adds them and DetailOf finds them.
	Details []Packed

	cause error
}

// New returns an error with code and a detail that is formatted as by [fmt.Sprintf].
func New(code Code, format string, args ...any) *Error {
	if len(args) == 0 && strings.IndexByte(format, '%') < 0 {
		return &Error{Code: code, Detail: format}
	}
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Wrap returns an error with code and detail whose cause is err. The cause stays on this side.
func Wrap(err error, code Code, format string, args ...any) *Error {
	e := New(code, format, args...)
	e.cause = err
	return e
}

// Refuse returns an error that says that the handler did not run: the caller may try another node.
func Refuse(code Code, format string, args ...any) *Error {
	e := New(code, format, args...)
	e.Refused = true
	return e
}

// Error gives "404 Not Found: detail", with the ID in front where there is one, and the types of the Details behind.
func (e *Error) Error() string {
	s := strconv.Itoa(int(e.Code)) + " " + e.Code.String()
	if e.ID != "" {
		s = e.ID + ": " + s
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return named(s, e.Details)
}

// Unwrap gives the cause, nil where there is none.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an *Error of the same code whose other fields are empty or equal:
// errors.Is(err, &status.Error{Code: status.NotFound}) asks for the code alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && (t.Code == 0 || t.Code == e.Code) && (t.ID == "" || t.ID == e.ID) && (t.Detail == "" || t.Detail == e.Detail)
}

// CodeOf gives the code of the first *Error in err's chain. A context's end gives Canceled or DeadlineExceeded,
// nil gives 0, and any other error Internal.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Internal
}

// IsRefused reports whether err says that the handler did not run.
func IsRefused(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Refused
}

// FromError gives the *Error that a server sends for the error of a handler. An *Error made in this process is
// sent as it is; a context's end becomes DeadlineExceeded or Canceled; anything else, a peer's error among it,
// becomes Internal without its text, and keeps err as its cause for the log.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if ok && !e.Remote {
		return e
	}
	switch code := CodeOf(err); {
	case !ok && code != Internal:
		return Wrap(err, code, "%s", err)
	default:
		return Wrap(err, Internal, "the handler failed")
	}
}

// MarshalJSON gives go-micro's error object, {"id","code","detail","status"}, "refused" where it is true, and "details" where there are
// some: a list of {"type","value"}, whose value is in base64.
func (e *Error) MarshalJSON() ([]byte, error) {
	return e.AppendJSON(make([]byte, 0, 96+len(e.ID)+len(e.Detail))), nil
}

// AppendJSON appends to dst what MarshalJSON gives.
func (e *Error) AppendJSON(dst []byte) []byte {
	dst = appendText(append(dst, `{"id":`...), e.ID)
	dst = strconv.AppendInt(append(dst, `,"code":`...), int64(e.Code), 10)
	dst = appendText(append(dst, `,"detail":`...), e.Detail)
	dst = appendText(append(dst, `,"status":`...), e.Code.String())
	if e.Refused {
		dst = append(dst, `,"refused":true`...)
	}
	if len(e.Details) > 0 {
		dst = appendDetails(dst, e.Details)
	}
	return append(dst, '}')
}

// appendText appends s as a JSON string: by encoding/json where it is more than plain text.
func appendText(dst []byte, s string) []byte {
	if plain(s) {
		return append(append(append(dst, '"'), s...), '"')
	}
	quoted, _ := json.Marshal(s) // a string always encodes
	return append(dst, quoted...)
}

// plain reports whether s stands for itself between the quotes of a JSON string, as encoding/json writes it.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// wire is what is read of the JSON form: go-micro's keys, but for the status, and two of ours.
type wire struct {
	ID      string     `json:"id"`
	Code    Code       `json:"code"`
	Detail  string     `json:"detail"`
	Refused bool       `json:"refused"`
	Details packedList `json:"details"`
}

// Parse reads an error as a peer sent it: the JSON object, or bare text as go-micro sends for plain errors,
// which becomes an Internal error with that text. The error is marked Remote. Empty text is no error: nil.
func Parse(text string) *Error {
	if text == "" {
		return nil
	}
	w, ok := parsePlain(text)
	if ok {
		return &Error{ID: w.ID, Code: w.Code, Detail: w.Detail, Refused: w.Refused, Remote: true}
	}
	if text[0] == '{' && json.Unmarshal([]byte(text), &w) == nil && (w.Code != 0 || w.Detail != "") {
		if w.Code < 400 || w.Code > 599 {
			w.Code = Internal
		}
		return &Error{ID: w.ID, Code: w.Code, Detail: w.Detail, Refused: w.Refused, Remote: true, Details: w.Details}
	}
	return &Error{Code: Internal, Detail: text, Remote: true}
}

// parsePlain reads the object as AppendJSON writes it where all its texts are plain, with a code within the limits: most
// errors are so, and encoding/json takes a microsecond or two.
func parsePlain(text string) (w wire, ok bool) {
	rest, begins := strings.CutPrefix(text, `{"id":"`)
	id, rest, hasCode := strings.Cut(rest, `","code":`)
	code, rest, hasDetail := strings.Cut(rest, `,"detail":"`)
	detail, rest, hasStatus := strings.Cut(rest, `","status":"`)
	name, rest, ends := strings.Cut(rest, `"`)
	w = wire{ID: id, Detail: detail, Refused: rest == `,"refused":true}`}
	if !begins || !hasCode || !hasDetail || !hasStatus || !ends || !w.Refused && rest != "}" ||
		!plain(id) || !plain(detail) || !plain(name) || len(code) != 3 || code[0] != '4' && code[0] != '5' {
		return wire{}, false
	}
	n, err := strconv.ParseUint(code, 10, 16)
	w.Code = Code(n)
	return w, err == nil
}
