package websocket

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Dial connects to addr, "host:port". The request carries no call, as the port may have gone to another program. A peer that
// answers otherwise than by a WebSocket of this project gives an error that wraps transport.ErrProtocol, and one that refuses
// the token a *status.Error of code 401.
func (t *Transport) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("%w: dial: address %q: %w", transport.ErrNotSent, addr, err)
	}
	c, err := t.dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: dial %s: %w", transport.ErrNotSent, addr, err)
	}
	return c, nil
}

func (t *Transport) dial(ctx context.Context, addr string) (*Conn, error) {
	bounded, stop := context.WithTimeout(ctx, t.o.DialTimeout)
	defer stop()
	var box atomic.Pointer[outbox]
	carrier := &http.Transport{
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(bounded, network, addr) // the one that is given does not end with the request
			if err != nil {
				return nil, err
			}
			b := newOutbox(nc, &t.o)
			box.Store(b)
			return b, nil
		},
		TLSHandshakeTimeout: t.o.HeaderTimeout,
		DisableKeepAlives:   true,
		DisableCompression:  true,
	}
	header := http.Header{}
	if t.o.Token != "" {
		if t.o.TLSConfig == nil && !hostcheck.Loopback(addr) {
			t.clear.Do(func() {
				t.o.Logger.Warn("transport/websocket: the token goes over the network in the clear: wss is not", "address", addr)
			})
		}
		header.Set("Authorization", "Bearer "+t.o.Token)
	}
	scheme := "ws"
	if t.o.TLSConfig != nil {
		scheme, carrier.TLSClientConfig = "wss", t.tlsClient(addr)
	}
	ws, rsp, err := websocket.Dial(bounded, scheme+"://"+addr+t.o.Path, &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: carrier, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		HTTPHeader:   header,
		Subprotocols: []string{protocolBinary},
	})
	switch {
	case err == nil && ws.Subprotocol() != protocolBinary:
		_ = ws.CloseNow()
		return nil, fmt.Errorf("%w: the peer speaks WebSocket, and not %s", transport.ErrProtocol, protocolBinary)
	case err == nil:
		return newConn(ws, box.Load(), addr, &t.o, false, nil), nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case rsp != nil:
		return nil, refused(rsp)
	}
	return nil, reason(bounded, err, t.o.DialTimeout)
}

// tlsClient gives the configuration for dialling addr.
func (t *Transport) tlsClient(addr string) *tls.Config {
	c := t.o.TLSConfig.Clone()
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(addr) // Dial has looked at it
	}
	return c
}

// refused is the error of an answer that is no WebSocket.
func refused(rsp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(rsp.Body, 1024)) // what is there is enough
	var object struct{ Code int }
	if json.Unmarshal(text, &object) == nil && object.Code == rsp.StatusCode {
		return status.Parse(strings.TrimSpace(string(text)))
	}
	if rsp.StatusCode == http.StatusBadRequest && strings.Contains(string(text), "HTTPS") { // as Go's server says it
		return fmt.Errorf("%w: the peer speaks TLS: use wss", transport.ErrProtocol)
	}
	if rsp.StatusCode == http.StatusSwitchingProtocols {
		return fmt.Errorf("%w: the peer switched to another protocol than WebSocket", transport.ErrProtocol)
	}
	return fmt.Errorf("%w: the peer takes no WebSocket: it answered %.60q", transport.ErrProtocol, rsp.Status)
}

// reason gives why there is no answer: without the package's words around it, and the URL, which is said already.
func reason(bounded context.Context, err error, limit time.Duration) error {
	var network *net.OpError
	var record tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: the peer speaks no TLS: use ws", transport.ErrProtocol)
	case errors.As(err, &cert):
		return fmt.Errorf("%w: TLS: %w", transport.ErrProtocol, cert)
	case errors.As(err, &network) && network.Op == "dial":
		return network
	case bounded.Err() != nil:
		return fmt.Errorf("no answer within %s: %w", limit, context.DeadlineExceeded)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the peer closed the connection: %w", io.EOF)
	case strings.Contains(err.Error(), "malformed HTTP"):
		return fmt.Errorf("%w: the peer speaks no HTTP", transport.ErrProtocol)
	}
	return err
}
