package http_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"http://": "",
		"http://?plain=true&max-message=100&hosts=a,b": "",
		"http://?plain=maybe":                          "plain",
		"http://?max-message=0":                        "max-message",
		"http://?max-message=lots":                     "max-message",
		"http://?maxmessage=5":                         `unknown parameter "maxmessage"`,
		"http://127.0.0.1:80":                          "names no host",
		"http://?beside=ws":                            `unknown parameter "beside"`,
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := http.Open(t.Context(), u)
		if want == "" && (err != nil || tr == nil) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", raw, err, want)
		}
	}
}

// TestOpenBeside: only what shares a port is served beside.
func TestOpenBeside(t *testing.T) {
	t.Parallel()
	open := transport.Openers{"http": http.OpenBeside(transport.Openers{"http": http.Open})}
	for raw, want := range map[string]string{
		"http://?beside=http":       "none that shares a port",
		"http://?beside=soap":       "unknown scheme",
		"http://?beside=http://a:1": "names no host",
	} {
		if _, err := open.Open(t.Context(), raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", raw, err, want)
		}
	}
}

func TestNegativeOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []http.Options{{MaxMessage: -1}, {MaxConns: -1}, {BodyIdle: -1}} {
		if _, err := http.New(o); err == nil || !strings.Contains(err.Error(), "negative") {
			t.Errorf("New(%+v): %v", o, err)
		}
	}
}

func TestBadAddresses(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, http.Options{})
	for _, addr := range []string{"", "localhost", "127.0.0.1:99999", "127.0.0.1:http:80"} {
		if c, err := tr.Dial(t.Context(), addr); err == nil {
			c.Close()
			t.Errorf("Dial(%q) succeeded", addr)
		}
	}
	if l, err := tr.Listen(t.Context(), "192.0.2.1:0"); err == nil { // RFC 5737: nobody has it
		l.Close()
		t.Error("Listen on an address that is not ours succeeded")
	}
}
