package nats_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/nats"
	"github.com/cb02dfca/micro/pkg/status"
)

var openers = broker.Openers{"nats": nats.Open}

// noLogin clears the environment of logins.
func noLogin(t *testing.T) {
	t.Helper()
	for _, name := range []string{nats.EnvUsername, nats.EnvPassword, nats.EnvToken, nats.EnvCreds} {
		t.Setenv(name, "")
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	users := own(t, withStreams, `authorization: {users: [{user: svc, password: "`+password+`"},
		{user: guest, password: "`+password+`", permissions: {publish: "free", subscribe: "_INBOX.>"}}]}`)
	token := own(t, withStreams, `authorization: {token: "`+password+`"}`)
	for _, tt := range []struct {
		name   string
		server *testserver.Server
		o      nats.Options
		code   status.Code
		text   string
	}{
		{"no user", users, nats.Options{}, status.Unauthenticated, "it asks for a login: set NATS_USERNAME and NATS_PASSWORD, or NATS_TOKEN, or credentials-file or token-file"},
		{"a wrong password", users, nats.Options{Username: "svc", Password: "wrong-" + password}, status.Unauthenticated, `user "svc": wrong name or password`},
		{"no permission", users, nats.Options{Username: "guest", Password: password}, status.PermissionDenied, `user "guest": it may not `},
		{"the right one", users, nats.Options{Username: "svc", Password: password}, 0, ""},
		{"a wrong token", token, nats.Options{Token: "wrong-" + password}, status.Unauthenticated, "wrong token"},
		{"the right token", token, nats.Options{Token: password}, 0, ""},
	} {
		for _, stream := range []string{"", "s"} {
			t.Run(tt.name+" "+stream, func(t *testing.T) {
				t.Parallel()
				said := &journal{}
				o := tt.o
				o.Servers, o.Stream, o.Logger = []string{tt.server.Addr}, stream, said.logger()
				b := open(t, o)
				in := &inbox{}
				_, subscribed := b.Subscribe(t.Context(), "secret", in.handle)
				_, published := b.Publish(t.Context(), &broker.Message{Topic: "secret", Body: []byte("x")})
				for what, err := range map[string]error{"Subscribe": subscribed, "Publish": published} {
					if tt.code == 0 && err != nil {
						t.Errorf("%s: %v", what, err)
					}
					if tt.code != 0 && (!errors.Is(err, &status.Error{Code: tt.code}) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), tt.server.Addr)) {
						t.Errorf("%s gave %v, want %v and %q", what, err, tt.code, tt.text)
					}
					if err != nil && strings.Contains(err.Error(), password) {
						t.Errorf("%s tells the password: %v", what, err)
					}
				}
				if tt.code == 0 {
					in.wait(t, 1)
				}
				if strings.Contains(said.String(), password) {
					t.Errorf("the logger was told the password:\n%s", said)
				}
			})
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	s := own(t, withStreams, `tls: {cert_file: "`+cert+`", key_file: "`+key+`", ca_file: "`+ca+`", verify: true}`)
	for _, tt := range []struct{ name, query, err string }{
		{"both", "?ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key, ""},
		{"a stream", "?stream=s&ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key, ""},
		{"no authority", "?tls=true", "certificate signed by unknown authority"},
		{"no certificate", "?ca-file=" + ca, "is not answering"},
		{"no TLS", "", "certificate signed by unknown authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, err := openers.Open(t.Context(), "nats://"+s.Addr+tt.query)
			must(t, err)
			defer b.Close()
			_, err = b.Publish(t.Context(), &broker.Message{Topic: "a"})
			switch {
			case tt.err == "":
				must(t, err)
			case !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), tt.err):
				t.Errorf("Publish gave %v, want %q", err, tt.err)
			}
		})
	}
}

func TestOpen(t *testing.T) { // not parallel: it sets the environment
	noLogin(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	for _, tt := range []struct{ raw, err string }{
		{"nats", ""},
		{"nats://h,i:1", ""},
		{"nats://h?timeout=1s&max-message=1000", ""},
		{"nats://h?stream=ORDERS&tries=3&retry-wait=1s&ack-wait=10s&max-age=24h&replicas=3", ""},
		{"nats://h?stream=s&from=all", ""},
		{"nats://h?stream=s&from=new", ""},
		{"nats://h?stream=s&from=17", ""},
		{"nats://h?stream=s&from=2h", ""},
		{"nats://h?stream=s&from=2026-01-02T15:04:05Z", ""},
		{"nats://h?credentials-file=" + file("good", "svc:a:b c\n"), ""},
		{"nats://svc:s3cret@h:1", "credentials do not belong in a URL"},
		{"nats://svc:s3cret@h:1?x=y", "svc:xxxxx@h:1"},
		{"nats://h/orders", "want nats://host:port"},
		{"nats://h:0", `server "h:0": want host:port`},
		{"nats://h?streem=s", `unknown parameter "streem", nats takes: timeout, max-message, stream, tries, retry-wait, ack-wait, from, max-age, replicas, credentials-file`},
		{"nats://h?timeout=x", `timeout "x" is not a duration`},
		{"nats://h?max-message=0", `max-message "0" is not a number above zero`},
		{"nats://h?stream=a.b", `stream "a.b": want letters, digits, '_' or '-', 32 at most`},
		{"nats://h?tries=3", "are a stream's, and none is named"},
		{"nats://h?from=all", "are a stream's, and none is named"},
		{"nats://h?stream=s&tries=none", `tries "none" is not a number above zero`},
		{"nats://h?stream=s&ack-wait=1ms", "ack-wait 1ms: want 1s or more"},
		{"nats://h?stream=s&from=yesterday", `from "yesterday": want new, all, a sequence number, a time such as 2026-01-02T15:04:05Z, or how long ago, such as 2h`},
		{"nats://h?credentials-file=" + file("bad", "s3cret\n"), "want one line, name:password"},
		{"nats://h?token-file=" + file("lines", "s3cret\ns3cret\n"), "want one line, the token"},
		{"nats://h?tls=maybe", `tls="maybe"`},
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
			t.Errorf("%s tells the password: %v", tt.raw, err)
		}
	}
	t.Setenv(nats.EnvUsername, "svc")
	if _, err := nats.Open(t.Context(), &url.URL{Scheme: "nats"}); err == nil || !strings.Contains(err.Error(), "is set without the other") {
		t.Errorf("a user without a password gave %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]nats.Options{
		"a server without a port": {Servers: []string{"h"}}, "a URL as a server": {Servers: []string{"nats://h:1"}}, "a name alone": {Username: "svc"},
		"two logins": {Username: "svc", Password: "x", Token: "y"}, "a negative timeout": {Timeout: -1}, "a negative limit": {MaxMessage: -1},
		"two places": {Stream: "s", From: nats.From{All: true, Sequence: 1}}, "a long name": {Stream: strings.Repeat("s", 33)},
	} {
		if b, err := nats.New(o); !errors.Is(err, broker.ErrInvalid) {
			t.Errorf("%s gave %v", name, err)
			if err == nil {
				_ = b.Close()
			}
		}
	}
}

// TestLoginFromTheEnvironment: and from a file, which counts before it.
func TestLoginFromTheEnvironment(t *testing.T) { // not parallel: it sets the environment
	noLogin(t)
	o := account(t)
	t.Setenv(nats.EnvUsername, o.Username)
	t.Setenv(nats.EnvPassword, o.Password)
	file := filepath.Join(t.TempDir(), "login")
	must(t, os.WriteFile(file, []byte("guest:"+password), 0o600))
	for query, want := range map[string]error{"": nil, "?credentials-file=" + file: &status.Error{Code: status.Unauthenticated}} {
		b, err := openers.Open(context.Background(), "nats://"+o.Servers[0]+query)
		must(t, err)
		if _, err := b.Publish(t.Context(), &broker.Message{Topic: "a"}); !errors.Is(err, want) {
			t.Errorf("with %q Publish gave %v, want %v", query, err, want)
		}
		must(t, b.Close())
	}
}

// TestCredentials: a server in operator mode takes NATS's own credentials, by the URL and by the environment, for a stream too.
func TestCredentials(t *testing.T) { // not parallel: it sets the environment
	noLogin(t)
	config, dir := testserver.NATSOperator(t)
	s := own(t, withStreams, config)
	svc, guest := filepath.Join(dir, "svc.creds"), filepath.Join(dir, "guest.creds")
	for _, tt := range []struct {
		env, query string
		want       error
	}{
		{"", "?credentials-file=" + svc, nil},
		{"", "?stream=s&credentials-file=" + svc, nil},
		{svc, "", nil},
		{svc, "?stream=s", nil},
		{svc, "?credentials-file=" + guest, &status.Error{Code: status.PermissionDenied}},
		{"", "?stream=s&credentials-file=" + guest, &status.Error{Code: status.PermissionDenied}},
		{"", "", &status.Error{Code: status.Unauthenticated}},
	} {
		t.Setenv(nats.EnvCreds, tt.env)
		b, err := openers.Open(t.Context(), "nats://"+s.Addr+tt.query)
		must(t, err)
		in := &inbox{}
		_, subscribed := b.Subscribe(t.Context(), "orders", in.handle)
		_, published := b.Publish(t.Context(), &broker.Message{Topic: "orders", Body: []byte("x")})
		if !errors.Is(subscribed, tt.want) || !errors.Is(published, tt.want) {
			t.Errorf("with %q and %q Subscribe gave %v, and Publish %v; want %v", tt.env, tt.query, subscribed, published, tt.want)
		} else if tt.want == nil {
			in.wait(t, 1)
		}
		must(t, b.Close())
	}
}
