package nsq_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/nsq"
	"github.com/cb02dfca/micro/pkg/status"
)

const secret = "s3cret-word"

var openers = broker.Openers{"nsq": nsq.Open}

func TestSecret(t *testing.T) {
	t.Parallel()
	d := startNSQD(t, config{secrets: map[string]string{secret: "", "guest-" + secret: "free"}})
	for _, tt := range []struct {
		name, secret string
		code         status.Code
		text         string
	}{
		{"none", "", status.Unauthenticated, "it asks for a secret: set NSQ_AUTH_SECRET, or token-file"},
		{"a wrong one", "wrong-" + secret, status.Unauthenticated, "the secret is not let in"},
		{"no permission", "guest-" + secret, status.PermissionDenied, "the secret does not permit it"},
		{"the right one", secret, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			said := &brokertest.Journal{}
			o := quick(d.addr)
			o.Secret, o.Logger = tt.secret, said.Logger()
			b := open(t, o)
			in := &brokertest.Inbox{}
			_, subscribed := b.Subscribe(t.Context(), "private", in.Handle)
			_, published := b.Publish(t.Context(), &broker.Message{Topic: "private", Body: []byte("x")})
			for what, err := range map[string]error{"Subscribe": subscribed, "Publish": published} {
				if tt.code == 0 && err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if tt.code != 0 && (!errors.Is(err, &status.Error{Code: tt.code}) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), d.addr)) {
					t.Errorf("%s gave %v, want %v and %q", what, err, tt.code, tt.text)
				}
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("%s tells the secret: %v", what, err)
				}
			}
			if tt.code == 0 {
				in.Wait(t, 1)
			}
			if said.Has(secret) {
				t.Errorf("the logger was told the secret:\n%s", said)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	must(t, err)
	pem, err := os.ReadFile(ca)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	server := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	secure := startNSQD(t, config{tls: server, tlsRequired: true, secrets: map[string]string{secret: ""}})
	plain := startNSQD(t, config{secrets: map[string]string{secret: ""}})
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte(secret+"\n"), 0o600))
	for _, tt := range []struct{ name, addr, query, err string }{
		{"both", secure.addr, "&ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key, ""},
		{"no authority", secure.addr, "&tls=true", "certificate signed by unknown authority"},
		{"no certificate", secure.addr, "&ca-file=" + ca, "is not answering"},
		{"no TLS", secure.addr, "", "it wants TLS: add tls=true or ca-file"},
		{"no TLS there", plain.addr, "&ca-file=" + ca, "it does not speak TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := openers.Open(t.Context(), "nsq://"+tt.addr+"?token-file="+token+tt.query)
			must(t, err)
			defer b.Close()
			_, err = b.Publish(t.Context(), &broker.Message{Topic: "a"})
			if tt.err == "" {
				must(t, err)
				in := &brokertest.Inbox{}
				brokertest.Subscribe(t, b, "b", in.Handle)
				brokertest.Publish(t, b, "b", "x")
				in.Wait(t, 1)
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Publish gave %v, want %q", err, tt.err)
			}
		})
	}
	if n := plain.heard("AUTH"); n != 0 {
		t.Error("the secret was sent in the clear, though TLS was asked for")
	}
}

func TestOpen(t *testing.T) { // not parallel: it sets the environment
	t.Setenv(nsq.EnvSecret, "")
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	for _, tt := range []struct{ raw, err string }{
		{"nsq", ""},
		{"nsq://h,i:1", ""},
		{"nsq://?lookupd=h,i:1", ""},
		{"nsq://h?lookupd=[::1]&lookup-interval=1s&timeout=1s&max-message=1000&tries=3&retry-wait=1s&ack-wait=10s", ""},
		{"nsq://h?token-file=" + file("good", "a b\n"), ""},
		{"nsq://svc:s3cret@h:1", "a secret does not belong in a URL"},
		{"nsq://s3cret@h:1?x=y", "a secret does not belong in a URL"},
		{"nsq://h/orders", "want nsq://host:port"},
		{"nsq://h:0", `server "h:0": want host:port`},
		{"nsq://h,", `server "": want host:port`},
		{"nsq://h?lookupd=http://h", `lookupd "`},
		{"nsq://h?lookup=h", `unknown parameter "lookup", nsq takes: lookupd, lookup-interval, timeout`},
		{"nsq://h?timeout=x", `timeout "x" is not a duration`},
		{"nsq://h?max-message=0", `max-message "0" is not a number above zero`},
		{"nsq://h?tries=none", `tries "none" is not a number above zero`},
		{"nsq://h?ack-wait=1ms", "ack-wait 1ms: want 1s to 15m0s"},
		{"nsq://h?ack-wait=1h", "ack-wait 1h0m0s: want 1s to 15m0s"},
		{"nsq://h?retry-wait=2h", "retry-wait 2h0m0s: want 1h0m0s at most"},
		{"nsq://h?token-file=" + file("lines", "s3cret\ns3cret\n"), "want one line, the token"},
		{"nsq://h?tls=maybe", `tls="maybe"`},
	} {
		b, err := openers.Open(t.Context(), tt.raw)
		if err == nil {
			must(t, b.Close())
		}
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.raw, err)
		case tt.err != "" && (!errors.Is(err, broker.ErrInvalid) || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%s gave %v, want %q", tt.raw, err, tt.err)
		case err != nil && strings.Contains(err.Error(), "s3cret"):
			t.Errorf("%s tells the secret: %v", tt.raw, err)
		}
	}
	if b, err := nsq.New(nsq.Options{Timeout: -1}); !errors.Is(err, broker.ErrInvalid) || b != nil {
		t.Errorf("a negative time-out gave %v", err)
	}
	d := startNSQD(t, config{secrets: map[string]string{secret: ""}})
	t.Setenv(nsq.EnvSecret, secret)
	b, err := openers.Open(context.Background(), "nsq://"+d.addr)
	must(t, err)
	defer b.Close()
	brokertest.Publish(t, b, "a", "with the environment's secret")
}
