package websocket_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
	"github.com/cb02dfca/micro/pkg/transport/transporttest"
	"github.com/cb02dfca/micro/pkg/transport/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTransport(t *testing.T, o websocket.Options) *websocket.Transport {
	t.Helper()
	tr, err := websocket.New(o)
	must(t, err)
	return tr
}

func TestConformance(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		return transporttest.Harness{Transport: newTransport(t, websocket.Options{}), Address: "127.0.0.1:0"}
	})
}

// localTLS makes a configuration for both ends on loopback.
func localTLS(t *testing.T) *tls.Config {
	t.Helper()
	ca, cert, key := testserver.Certificates(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	must(t, err)
	pem, err := os.ReadFile(ca)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}
}

func TestConformanceTLS(t *testing.T) {
	t.Parallel()
	config := localTLS(t)
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		o := websocket.Options{TLSConfig: config, Token: "s3cret", Path: "/micro"}
		return transporttest.Harness{Transport: newTransport(t, o), Address: "127.0.0.1:0"}
	})
}

// onePort dials by WebSocket what listens by HTTP.
type onePort struct {
	*websocket.Transport
	port *transporthttp.Transport
}

func (p onePort) Listen(ctx context.Context, addr string) (transport.Listener, error) {
	return p.port.Listen(ctx, addr)
}

func newPort(t *testing.T, o transporthttp.Options) *transporthttp.Transport {
	t.Helper()
	tr, err := transporthttp.New(o)
	must(t, err)
	return tr
}

// TestConformanceBesideHTTP: the same on the port of HTTP.
func TestConformanceBesideHTTP(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		ws := newTransport(t, websocket.Options{})
		return transporttest.Harness{Transport: onePort{ws, newPort(t, transporthttp.Options{Beside: []transporthttp.Beside{ws}})}, Address: "127.0.0.1:0"}
	})
}

// TestBesideTLS: TLS is the port's.
func TestBesideTLS(t *testing.T) {
	t.Parallel()
	config := localTLS(t)
	ws := newTransport(t, websocket.Options{TLSConfig: config})
	w := serve(t, newPort(t, transporthttp.Options{TLSConfig: config, Beside: []transporthttp.Beside{ws}}))
	if rsp, err := call(t, ws, w.addr, `{"n":4}`); err != nil || rsp != `{"n":8}` {
		t.Errorf("a call gave %q, %v", rsp, err)
	}
}

// TestOnePort: frames, plain HTTP, WebSocket and pages on one port.
func TestOnePort(t *testing.T) {
	t.Parallel()
	ws := newTransport(t, websocket.Options{})
	pages := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("a page at " + r.URL.Path)) })
	w := serve(t, newPort(t, transporthttp.Options{Beside: []transporthttp.Beside{ws}, Pages: pages}))
	for name, tr := range map[string]transport.Transport{"WebSocket": ws, "frames": newPort(t, transporthttp.Options{}), "HTTP": newPort(t, transporthttp.Options{Plain: true})} {
		if rsp, err := call(t, tr, w.addr, `{"n":4}`); err != nil || rsp != `{"n":8}` {
			t.Errorf("a call by %s gave %q, %v", name, rsp, err)
		}
	}
	if code, text := get(t, "http://"+w.addr+"/x.html"); code != 200 || text != "a page at /x.html" {
		t.Errorf("the page: %d %q", code, text)
	}
	must(t, w.stop())
}

// call makes a call of Say.Twice, on a connection of its own.
func call(t *testing.T, tr transport.Transport, addr, body string) (string, error) {
	t.Helper()
	c, err := tr.Dial(t.Context(), addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	caller, ok := c.(transport.Caller)
	if !ok {
		mux := transport.NewCaller(c)
		defer mux.Close()
		caller = mux
	}
	req := &transport.Message{Header: metadata.Of(transport.HeaderEndpoint, "Say.Twice", transport.HeaderContentType, "application/json"), Body: []byte(body)}
	var rsp transport.Message
	if err := caller.Call(t.Context(), req, &rsp); err != nil {
		return "", err
	}
	if failed := rsp.Header.Get(transport.HeaderError); failed != "" {
		return "", status.Parse(failed)
	}
	return string(rsp.Body), nil
}

// TestToken: who lacks the token is refused, is told so, and is not told the token.
func TestToken(t *testing.T) {
	t.Parallel()
	const secret, wrong = "s3cret", "gu3ss"
	w := serve(t, newTransport(t, websocket.Options{Token: secret}))
	if got, err := call(t, newTransport(t, websocket.Options{Token: secret}), w.addr, `{"n":1}`); err != nil || got != `{"n":2}` {
		t.Errorf("with the token: %q, %v", got, err)
	}
	for _, token := range []string{"", wrong, secret + "x"} {
		_, err := call(t, newTransport(t, websocket.Options{Token: token}), w.addr, `{"n":1}`)
		if !transport.NotSent(err) || status.CodeOf(err) != status.Unauthenticated || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), wrong) {
			t.Errorf("with the token %q: %v", token, err)
		}
	}
}

// TestDialOthers: what is no WebSocket of ours says what it is, at once.
func TestDialOthers(t *testing.T) {
	t.Parallel()
	config := localTLS(t)
	plain, secure := serve(t, newTransport(t, websocket.Options{})), serve(t, newTransport(t, websocket.Options{TLSConfig: config}))
	port := serve(t, newPort(t, transporthttp.Options{}))
	for name, test := range map[string]struct {
		by   websocket.Options
		addr string
		want string
	}{
		"no TLS where there is":   {websocket.Options{}, secure.addr, "the peer speaks TLS"},
		"TLS where there is none": {websocket.Options{TLSConfig: config}, plain.addr, "the peer speaks no TLS"},
		"an unknown authority":    {websocket.Options{TLSConfig: &tls.Config{}}, secure.addr, "certificate signed by unknown authority"},
		"HTTP":                    {websocket.Options{}, port.addr, "405 Method Not Allowed"},
		"another path":            {websocket.Options{Path: "/micro"}, plain.addr, "no WebSocket at"},
		"another WebSocket":       {websocket.Options{}, stranger(t), "speaks WebSocket, and not micro.v1"},
		"nobody":                  {websocket.Options{}, testserver.FreeAddr(), "connection refused"},
		"no port":                 {websocket.Options{}, "localhost", "missing port"},
	} {
		_, err := call(t, newTransport(t, test.by), test.addr, "{}")
		if !transport.NotSent(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if e := (*status.Error)(nil); !errors.Is(err, transport.ErrProtocol) && !errors.As(err, &e) && name != "nobody" && name != "no port" {
			t.Errorf("%s: %v, want ErrProtocol or a status", name, err)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]websocket.Options{
		"option Silence: -1ns is negative":                 {Silence: -1},
		"option MaxMessage: -1 is negative":                {MaxMessage: -1},
		"the token has a character":                        {Token: "a b"},
		`option Path: "/a?b=c" is no plain path`:           {Path: "a?b=c"},
		`option Origins: "app.example" is no origin`:       {Origins: []string{"app.example"}},
		`option Origins: "https://app.example/a" is no or`: {Origins: []string{"https://app.example/a"}},
	} {
		if _, err := websocket.New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	if _, err := newTransport(t, websocket.Options{TLSConfig: &tls.Config{}}).Listen(t.Context(), "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("Listen by TLS without a certificate: %v", err)
	}
}

// TestListenIPv4: 0.0.0.0 is all addresses of IPv4, and none of IPv6.
func TestListenIPv4(t *testing.T) {
	t.Parallel()
	l, err := newTransport(t, websocket.Options{Token: "secret"}).Listen(t.Context(), "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !strings.HasPrefix(l.Addr(), "0.0.0.0:") {
		t.Errorf("it listens on %s", l.Addr())
	}
}

// TestTokenInTheClear: the logger is told once of a token that goes over a network without TLS.
func TestTokenInTheClear(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]int{"192.0.2.1:1": 1, "127.0.0.1:1": 0} {
		var said bytes.Buffer
		tr := newTransport(t, websocket.Options{Token: "secret", Logger: slog.New(slog.NewTextHandler(&said, nil))})
		ended, end := context.WithCancel(t.Context())
		end()
		for range 2 {
			if _, err := tr.Dial(ended, addr); err == nil {
				t.Errorf("%s: Dial succeeded", addr)
			}
		}
		if got := strings.Count(said.String(), "in the clear"); got != want || strings.Contains(said.String(), "secret") {
			t.Errorf("%s: the logger was told %q", addr, &said)
		}
	}
}
