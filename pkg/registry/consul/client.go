package consul

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/remote"
	"github.com/cb02dfca/micro/pkg/status"
)

const (
	tokenHeader    = "X-Consul-Token"
	indexHeader    = "X-Consul-Index"
	filteredHeader = "X-Consul-Results-Filtered-By-Acls"
	policyHeader   = "X-Consul-Default-Acl-Policy"
	hashHeader     = "X-Consul-Contenthash"

	connectTime = 3 * time.Second

	// waitTime is how long Consul is asked to wait for a change. It adds a sixteenth.
	waitTime  = time.Minute
	maxAnswer = 64 << 20 // bytes
	maxReason = 4 << 10  // bytes of an error's text that are read
)

func newClient(config *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            remote.Dialer(connectTime).DialContext,
			TLSClientConfig:        config,
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    5 * time.Second,
			IdleConnTimeout:        30 * time.Second, // Consul bounds how many there are
			MaxIdleConnsPerHost:    4,
			MaxResponseHeaderBytes: 32 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// query says how the catalog is asked.
type query struct {
	index  uint64 // wait until it is another one; 0: do not wait
	leader bool   // ask what the leader knows, else what any server does
}

// answer is what Consul said.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// index gives the number of the state that the answer shows. It is less than before where Consul counts anew, and never 0, with which
// Consul would not wait.
func (a *answer) index() uint64 {
	index, _ := strconv.ParseUint(a.header.Get(indexHeader), 10, 64)
	return max(1, index)
}

// filtered reports whether ACLs took something out of the answer. Of one to a request without a token Consul does not tell.
func (a *answer) filtered() bool { return a.header.Get(filteredHeader) == "true" }

// denies reports whether Consul shows nothing unless it is allowed to.
func (a *answer) denies() bool { return a.header.Get(policyHeader) == "deny" }

var (
	errNoAnswer = errors.New("what answers there is no Consul")
	errTooLong  = fmt.Errorf("the answer has over %d bytes", maxAnswer)
)

// catalog asks the catalog, decodes the answer into out, and gives it.
func (r *Registry) catalog(ctx context.Context, path string, q query, out any) (*answer, error) {
	values := url.Values{}
	patience := r.o.Timeout
	if !q.leader {
		values.Set("stale", "")
	}
	if q.index > 0 {
		values.Set("index", strconv.FormatUint(q.index, 10))
		values.Set("wait", waitTime.String())
		patience += waitTime + waitTime/16
	}
	a, err := r.ask(ctx, http.MethodGet, path, values, nil, patience)
	switch {
	case err != nil:
		return nil, err
	case a.code != http.StatusOK:
		return nil, r.refused(a)
	case a.header.Get(indexHeader) == "":
		return nil, r.unavailable(errNoAnswer)
	}
	if err := json.Unmarshal(a.body, out); err != nil {
		return nil, r.unavailable(errNoAnswer)
	}
	r.hear()
	return a, nil
}

// ask makes a request, and gives the answer, whatever its code. What comes of no Consul, or not within patience, is an error.
func (r *Registry) ask(ctx context.Context, method, path string, values url.Values, body []byte, patience time.Duration) (*answer, error) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	u := url.URL{Scheme: r.scheme, Host: r.host, Path: path, RawQuery: values.Encode()}
	req, err := http.NewRequestWithContext(bounded, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("registry: consul %s: %w", r.host, err)
	}
	if r.o.Token != "" {
		req.Header.Set(tokenHeader, r.o.Token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	a, err := r.do(req)
	switch {
	case err == nil:
		return a, nil
	case errors.Is(ctx.Err(), context.Canceled) && r.life.Err() != nil:
		return nil, registry.ErrClosed
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, ctx.Err()
	case bounded.Err() != nil:
		err = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	}
	return nil, r.unavailable(err)
}

func (r *Registry) do(req *http.Request) (*answer, error) {
	rsp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer rsp.Body.Close()
	limit := int64(maxAnswer)
	if rsp.StatusCode > 299 && !strings.HasPrefix(rsp.Header.Get("Content-Type"), "application/json") {
		limit = maxReason
	}
	var b bytes.Buffer
	if n := rsp.ContentLength; n > 0 && n <= limit {
		b.Grow(int(n) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(rsp.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the answer broke off: %w", err)
	case n > limit && limit == maxAnswer:
		return nil, errTooLong
	}
	return &answer{code: rsp.StatusCode, header: rsp.Header, body: b.Bytes()}, nil
}

// refused gives the error that an answer means.
func (r *Registry) refused(a *answer) error {
	var e *status.Error
	text := r.text(a.body)
	switch {
	case a.code == http.StatusForbidden && strings.Contains(text, "ACL not found"):
		e = status.New(status.PermissionDenied, "it does not know the token of this program")
	case a.code == http.StatusForbidden || a.code == http.StatusUnauthorized:
		e = r.denied(text)
	case a.code == http.StatusTooManyRequests:
		e = status.New(status.ResourceExhausted, "too many requests or connections: %s", text)
	default:
		return r.unavailable(fmt.Errorf("status %d: %s", a.code, text))
	}
	r.hear()
	return fmt.Errorf("registry: consul %s: %w", r.host, e)
}

// denied is the error of who may not do, or see, what he asked for.
func (r *Registry) denied(text string) *status.Error {
	if r.o.Token == "" {
		return status.New(status.PermissionDenied, "%s: it asks for a token: set %s, or token-file", text, EnvToken)
	}
	return status.New(status.PermissionDenied, "%s: the token needs service:write for the node's service, service:read and node:read for those that it looks for", text)
}

// hidden is the error of an answer from which ACLs took all that was asked for.
func (r *Registry) hidden() error {
	return fmt.Errorf("registry: consul %s: %w", r.host, r.denied("Permission denied"))
}

// refusal reports whether an error says that Consul is there, and does not want what it was asked for.
func refusal(err error) bool {
	var e *status.Error
	return errors.As(err, &e)
}

// text gives what an answer says as one printable line, without the token.
func (r *Registry) text(body []byte) string {
	s := strings.ToValidUTF8(string(body[:min(len(body), maxReason)]), "?")
	if r.o.Token != "" {
		s = strings.ReplaceAll(s, r.o.Token, "xxxxx")
	}
	s = strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return ' '
	}, strings.TrimSpace(s))
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}

// hear notes that Consul gave an answer that is worth something.
func (r *Registry) hear() {
	r.mu.Lock()
	back := r.away
	r.away = false
	r.mu.Unlock()
	if back {
		r.o.Logger.Info("consul is back", "consul", r.host)
	}
}

// unavailable says that Consul could not answer, and why.
func (r *Registry) unavailable(cause error) error {
	err := fmt.Errorf("%w: %s is not answering: %w", registry.ErrUnavailable, r.host, remote.Reason(cause))
	if errors.Is(cause, errNoAnswer) || errors.Is(cause, errTooLong) {
		err = fmt.Errorf("%w: %s: %w", registry.ErrUnavailable, r.host, cause)
	}
	r.mu.Lock()
	first := !r.away
	r.away = true
	r.mu.Unlock()
	if first {
		r.client.CloseIdleConnections() // they may be as dead, and the next request would wait on one
		r.o.Logger.Warn("consul is away", "consul", r.host, "error", err)
	}
	return err
}
