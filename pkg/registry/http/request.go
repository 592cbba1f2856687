package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	stdhttp "net/http"
	"net/url"
	"strings"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
	"github.com/cb02dfca/micro/pkg/status"
)

// request makes a request with the token. The path is escaped.
func (r *Registry) request(ctx context.Context, method, path string, query url.Values, body []byte) (*stdhttp.Request, error) {
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, fmt.Errorf("registry: %s: %w", r.host, err)
	}
	u := *r.base
	u.Path, u.RawPath = r.base.Path+plain, r.base.EscapedPath()+path
	u.RawQuery = query.Encode()
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	req, err := stdhttp.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return nil, fmt.Errorf("registry: %s: %w", r.host, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", wire.JSONType)
	}
	if method != stdhttp.MethodGet && query.Get("owner") != wire.Nobody {
		req.Header.Set(wire.LeaseHeader, r.secret)
	}
	if r.o.Token != "" {
		req.Header.Set("Authorization", "Bearer "+r.o.Token)
	}
	return req, nil
}

// ask makes a request and gives the answer's body, or the error that the answer means.
func (r *Registry) ask(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	req, err := r.request(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	rsp, err := r.client.Do(req)
	if err != nil {
		return nil, r.broken(caller, err)
	}
	defer rsp.Body.Close()
	data, err := r.read(rsp)
	if err != nil {
		return nil, r.broken(caller, err)
	}
	if rsp.StatusCode == stdhttp.StatusNoContent {
		return nil, nil
	}
	if rsp.StatusCode < 200 || rsp.StatusCode > 299 {
		return nil, r.refused(rsp, data)
	}
	if !isType(rsp, wire.JSONType) {
		return nil, r.unavailable(wire.ErrNoAnswer)
	}
	return data, nil
}

// read reads an answer's body, of an error no more than a message needs.
func (r *Registry) read(rsp *stdhttp.Response) ([]byte, error) {
	if rsp.StatusCode > 299 {
		data, err := io.ReadAll(io.LimitReader(rsp.Body, 16<<10))
		if err != nil {
			return nil, fmt.Errorf("the answer broke off: %w", err)
		}
		return data, nil
	}
	data, err := wire.ReadAll(rsp.Body, r.o.MaxAnswer)
	if err != nil && !errors.Is(err, wire.ErrTooLong) {
		err = fmt.Errorf("the answer broke off: %w", err)
	}
	return data, err
}

// broken is the error of a request that got no whole answer. The end of the caller's context is no fault of the server's.
func (r *Registry) broken(caller context.Context, err error) error {
	switch {
	case errors.Is(caller.Err(), context.Canceled):
		return caller.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return r.unavailable(fmt.Errorf("no answer in time: %w", context.DeadlineExceeded))
	}
	return r.unavailable(err)
}

// refused is the error that an answer means. One that is not of this protocol comes from some other server.
func (r *Registry) refused(rsp *stdhttp.Response, body []byte) error {
	e := &status.Error{}
	if isType(rsp, wire.JSONType) && len(body) > 0 && body[0] == '{' {
		e = status.Parse(string(body))
	}
	if e.ID != wire.ErrorID && rsp.StatusCode != stdhttp.StatusMisdirectedRequest && rsp.StatusCode != stdhttp.StatusForbidden {
		return r.unavailable(fmt.Errorf("%w: status %d", wire.ErrNoAnswer, rsp.StatusCode))
	}
	e.Code = status.Code(rsp.StatusCode)
	var sentinel error
	switch e.Code {
	case status.InvalidArgument, status.TooLarge:
		sentinel = registry.ErrInvalid
	case status.NotFound:
		sentinel = registry.ErrNotFound
	case status.AlreadyExists:
		sentinel = registry.ErrConflict
	case status.Unavailable:
		sentinel = registry.ErrUnavailable
	default:
		return fmt.Errorf("registry: %s: %w", r.host, e)
	}
	detail := strings.TrimPrefix(e.Detail, sentinel.Error()+": ")
	return fmt.Errorf("%w: %s (registry server %s)", sentinel, detail, r.host)
}

func isType(rsp *stdhttp.Response, want string) bool {
	kind, _, err := mime.ParseMediaType(rsp.Header.Get("Content-Type"))
	return err == nil && kind == want
}
