package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
)

// The limits of what a publisher reads and keeps.
const (
	maxAnswer     = 64 << 10         // bytes of an error's body that are read
	maxAnswerText = 256              // bytes of an answer that is no JSON that are shown
	idleTimeout   = 30 * time.Second // below the 60 s after which servers close, so that no message meets a closing connection
	idlePerHost   = 64               // all subscriptions of a service share its address
)

// notSent is the error of a message no byte of which has left.
type notSent struct{ error }

func (e notSent) Unwrap() error { return e.error }

// newClient gives a client for posting to the addresses of nodes and to nothing else: without proxies, which are for
// other things, and without following redirects, which would send a message where no registry said.
func newClient(o Options) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				// No shorter on loopback: what listens there connects or refuses at once, even a stopped process, so that
				// only this process' own want of time could pass a tighter bound, and would lose the message.
				d := net.Dialer{Timeout: o.DialTimeout}
				c, err := d.DialContext(ctx, network, addr)
				if err != nil {
					return nil, notSent{err}
				}
				return c, nil
			},
			Protocols:              &protocols,
			DisableCompression:     true,
			TLSHandshakeTimeout:    5 * time.Second,
			MaxIdleConnsPerHost:    idlePerHost,
			MaxIdleConns:           1024,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: 32 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// send posts an envelope to n and reads what became of it. It holds a place in sending until the request is written.
func (b *Broker) send(ctx context.Context, n registry.Node, body []byte, sending chan struct{}) delivery.Outcome {
	if err := registry.ValidHostPort(n.Address); err != nil {
		return unreached(n, err)
	}
	select {
	case sending <- struct{}{}:
	case <-ctx.Done():
		return unreached(n, context.Cause(ctx))
	}
	free := sync.OnceFunc(func() { <-sending })
	defer free()
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { free() },
	})
	u := url.URL{Scheme: "http", Host: n.Address, Path: "/", RawQuery: url.Values{"id": {n.ID}}.Encode()}
	if n.Service == registry.BrokerServiceV1 {
		u.Path = pathV1
	}
	if n.Metadata[metaSecure] == "true" {
		u.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(traced, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return unreached(n, err)
	}
	req.Header.Set(keyContentType, "application/json")
	req.Header.Set("User-Agent", "micro")
	resp, err := b.client.Do(req)
	if err != nil {
		return failed(ctx, n, err)
	}
	defer func() { _ = resp.Body.Close() }() // what it says is known
	return answered(n, resp)
}

// stranger is the outcome at a port that has gone to another program.
func stranger(n registry.Node) delivery.Outcome {
	return delivery.Outcome{Refused: true, Err: fmt.Errorf("%w: another program answers at %s", broker.ErrUnavailable, n.Address)}
}

func unreached(n registry.Node, err error) delivery.Outcome {
	return delivery.Outcome{Refused: true, Err: fmt.Errorf("%w: nothing was sent to %s: %w", broker.ErrUnavailable, n.Address, err)}
}

// failed judges a request that has no answer. Unless it never left, the subscriber may have handled it.
func failed(ctx context.Context, n registry.Node, err error) delivery.Outcome {
	var where *url.Error
	if errors.As(err, &where) {
		err = where.Err // the rest is the id, which nobody needs to read
	}
	var never notSent
	if errors.As(err, &never) {
		return unreached(n, never.error)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return delivery.Outcome{Err: fmt.Errorf("broker: no answer from %s, which may have handled the message: %w", n.Address, err)}
}

// answered reads the answer of n: a status of 200 to 299 is an acknowledgement, all else an error.
func answered(n registry.Node, resp *http.Response) delivery.Outcome {
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		if n.Metadata[metaAck] == "true" && resp.Header.Get(headerAck) != n.ID {
			return stranger(n)
		}
		return delivery.Outcome{}
	}
	// A body that is cut off is shown as far as it came: the status tells what matters.
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if len(text) == 0 || text[0] != '{' || !json.Valid(text) {
		code := status.Code(resp.StatusCode)
		if code < 400 || code > 599 {
			code = status.Internal
		}
		e := status.New(code, "the subscriber answered %s: %.*q", resp.Status, maxAnswerText, text)
		e.Remote = true
		return delivery.Outcome{Err: e}
	}
	return judge(status.Parse(string(text)))
}

// judge tells what an error object says of a message.
func judge(e *status.Error) delivery.Outcome {
	switch {
	case e.ID == errorID && e.Refused && (e.Code == status.NotFound || e.Code == status.Unavailable):
		return delivery.Outcome{Err: e, Refused: true, Gone: true}
	case e.Refused && e.Code == status.ResourceExhausted:
		return delivery.Outcome{Err: fmt.Errorf("%w: %w", broker.ErrBusy, e), Refused: true}
	}
	return delivery.Outcome{Err: e, Refused: e.Refused}
}
