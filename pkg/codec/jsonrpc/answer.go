package jsonrpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/internal/fault"
	"github.com/cb02dfca/micro/pkg/status"
)

// The codes of the specification.
const (
	codeParse    = -32700
	codeRequest  = -32600
	codeEndpoint = -32601
	codeParams   = -32602
	codeInternal = -32603
)

// request is a call as it came. Its parts are parts of the message; nil is one that did not come.
type request struct {
	version, method, params, id []byte
}

// second reports whether it is of version 2.0.
func (r *request) second() bool { return r.version != nil }

// answered reports whether the caller waits for an answer.
func (r *request) answered() bool {
	if r.second() {
		return r.id != nil
	}
	return !isNull(r.id)
}

// Answer has calls carry out a request or a batch.
func (c *Codec) Answer(dst, data []byte, calls codec.Calls) []byte {
	unread := &request{version: []byte(`"2.0"`), id: []byte("null")} // which has an answer all the same
	if len(data) == 0 || !json.Valid(data) {
		return unread.fail(dst, codeParse, status.New(status.InvalidArgument, "the message is no JSON"))
	}
	if data[skipSpace(data, 0)] != '[' {
		return c.answer(dst, data, false, calls)
	}
	n := 0
	_ = elements(data, func([]byte) error { n++; return nil })
	switch {
	case n == 0:
		return unread.fail(dst, codeRequest, status.New(status.InvalidArgument, "the batch is empty"))
	case n > MaxBatch:
		return unread.fail(dst, codeRequest, status.New(status.TooLarge, "a batch of %d calls, limit %d", n, MaxBatch))
	}
	begin := len(dst)
	_ = elements(data, func(value []byte) error {
		at := len(dst)
		dst = c.answer(append(dst, ','), value, true, calls)
		if len(dst) == at+1 {
			dst = dst[:at] // nobody waits for it
		}
		return nil
	})
	if len(dst) == begin {
		return dst
	}
	dst[begin] = '['
	return append(dst, ']')
}

// answer carries out one request.
func (*Codec) answer(dst, data []byte, batch bool, calls codec.Calls) []byte {
	r, err := readRequest(data, batch)
	if err != nil {
		return r.fail(dst, codeRequest, status.New(status.InvalidArgument, "the request %s", err))
	}
	endpoint := text(r.method)
	body, err := positional(r.params, func() []string { return calls.Fields(endpoint) })
	var answer []byte
	if err == nil {
		answer, err = calls.Call(endpoint, body)
	}
	switch {
	case !r.answered():
		return dst
	case errors.Is(err, codec.ErrEndpoint):
		return r.fail(dst, codeEndpoint, err)
	case errors.Is(err, codec.ErrBody):
		return r.fail(dst, codeParams, err)
	case err != nil:
		return r.fail(dst, int(status.FromError(err).Code), err)
	case len(answer) == 0:
		return r.succeed(dst, []byte("null"))
	case !json.Valid(answer):
		return r.fail(dst, codeInternal, status.New(status.Internal, "the answer of %s is no JSON", endpoint))
	}
	return r.succeed(dst, answer)
}

// readRequest reads a request of either version. With an error it gives what the answer needs.
func readRequest(data []byte, batch bool) (*request, error) {
	r := new(request)
	err := known(data, []member{{"jsonrpc", &r.version}, {"method", &r.method}, {"params", &r.params}, {"id", &r.id}})
	unread := &request{version: []byte(`"2.0"`), id: []byte("null")}
	switch {
	case err != nil:
		return unread, err
	case r.id != nil && !isID(r.id):
		return unread, errors.New("has an id that is neither a string nor a number nor null")
	case r.version != nil && string(r.version) != `"2.0"`:
		err = fmt.Errorf("is of version %.50s: want 2.0, or none for 1.0", r.version)
	case r.version == nil && batch:
		err = errors.New(`is in a batch, and says not "jsonrpc": "2.0"`)
	case r.version == nil && r.id == nil:
		err = errors.New("has no id, which version 1.0 wants")
	case !isText(r.method):
		err = errors.New("has no method, or one that is no string")
	case text(r.method) == "":
		err = errors.New("has an empty method")
	case r.params != nil && r.params[0] != '[' && r.params[0] != '{' && !isNull(r.params):
		err = errors.New("has params that are neither an array nor an object")
	case !r.second() && r.params != nil && r.params[0] == '{':
		err = errors.New("has an object as params, which version 1.0 does not know")
	}
	if err != nil {
		if batch || r.version != nil || r.id == nil {
			r.version = []byte(`"2.0"`)
		}
		if r.id == nil { // whoever sent this may not have meant a notification
			r.id = []byte("null")
		}
	}
	return r, err
}

// positional makes a body of params.
func positional(params []byte, fields func() []string) ([]byte, error) {
	if params == nil || isNull(params) {
		return nil, nil
	}
	if params[0] == '{' {
		return params, nil
	}
	n, first := 0, []byte(nil)
	_ = elements(params, func(value []byte) error {
		if n++; n == 1 {
			first = value
		}
		return nil
	})
	if n == 0 {
		return nil, nil
	}
	if n == 1 && (first[0] == '{' || isNull(first)) {
		return first, nil
	}
	names := fields()
	switch {
	case len(names) == 0 && n == 1:
		return first, nil
	case len(names) == 0:
		return params, nil
	case n > len(names):
		e := status.New(status.InvalidArgument, "%d params, and the request has %d fields", n, len(names))
		return nil, fmt.Errorf("%w: %w", codec.ErrBody, e)
	}
	body, i := []byte{'{'}, 0
	_ = elements(params, func(value []byte) error {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(append(appendText(body, names[i]), ':'), value...)
		i++
		return nil
	})
	return append(body, '}'), nil
}

// succeed appends the answer with a result.
func (r *request) succeed(dst, result []byte) []byte {
	if !r.second() {
		dst = append(append(dst, `{"id":`...), r.id...)
		dst = append(append(dst, `,"result":`...), result...)
		return append(dst, `,"error":null}`...)
	}
	dst = append(append(dst, `{"jsonrpc":"2.0","result":`...), result...)
	return append(append(append(dst, `,"id":`...), r.id...), '}')
}

// fail appends the answer with an error.
func (r *request) fail(dst []byte, code int, err error) []byte {
	e := fault.Of(err)
	if !r.second() {
		dst = append(append(dst, `{"id":`...), r.id...)
		dst = appendText(append(dst, `,"result":null,"error":`...), string(e.AppendJSON(nil)))
		return append(dst, '}')
	}
	message := e.Detail
	if message == "" {
		message = e.Code.String()
	}
	dst = strconv.AppendInt(append(dst, `{"jsonrpc":"2.0","error":{"code":`...), int64(code), 10)
	dst = appendText(append(dst, `,"message":`...), message)
	dst = e.AppendJSON(append(dst, `,"data":`...))
	return append(append(append(dst, `},"id":`...), r.id...), '}')
}

// response is an answer as it came.
type response struct {
	result, error, id []byte
}

func (r *response) failed() bool { return r.error != nil && !isNull(r.error) }

func readResponse(data []byte) (*response, error) {
	if len(data) == 0 || !json.Valid(data) {
		return nil, fmt.Errorf("is no JSON: %.100q", data)
	}
	r := new(response)
	err := known(data, []member{{"result", &r.result}, {"error", &r.error}, {"id", &r.id}})
	switch {
	case err != nil:
	case r.id == nil || !isID(r.id):
		err = errors.New("has no id, or a strange one")
	case r.result == nil && !r.failed():
		err = errors.New("has neither result nor error")
	}
	return r, err
}

// remote is the error that the server answered with.
func (r *response) remote() *status.Error {
	if isText(r.error) {
		if s := text(r.error); s != "" {
			return status.Parse(s)
		}
		return &status.Error{Code: status.Internal, Detail: "the server tells of an error without a text", Remote: true}
	}
	var code, message, data []byte
	if known(r.error, []member{{"code", &code}, {"message", &message}, {"data", &data}}) != nil {
		return &status.Error{Code: status.Internal, Detail: string(r.error), Remote: true}
	}
	if e := object(data); e != nil {
		return e
	}
	e := &status.Error{Code: status.Internal, Remote: true}
	if isText(message) {
		e.Detail = text(message)
	}
	switch n, _ := strconv.ParseInt(string(code), 10, 32); {
	case n == codeEndpoint:
		e.Code = status.NotFound
	case n == codeParse, n == codeRequest, n == codeParams:
		e.Code = status.InvalidArgument
	case n >= 400 && n <= 599:
		e.Code = status.Code(n)
	case len(code) > 0:
		e.Detail += " (code " + string(code[:min(len(code), 50)]) + ")"
	}
	return e
}

// object gives the error that a service of ours puts into data; nil where it is another's.
func object(data []byte) *status.Error {
	var w struct {
		Code   int     `json:"code"`
		Detail *string `json:"detail"`
	}
	if json.Unmarshal(data, &w) != nil || w.Detail == nil || w.Code < 400 || w.Code > 599 {
		return nil
	}
	return status.Parse(string(data))
}
