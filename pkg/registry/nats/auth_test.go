package nats_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/nats"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
	"github.com/cb02dfca/micro/pkg/status"
)

const password = "s3cret-word"

// users: "svc" may do what the registry needs, "reader" ask and listen alone, "guest" nothing of that.
const users = `authorization: {users: [
	{user: svc, password: "` + password + `", permissions: {publish: ["micro.nats.>", "_INBOX.>"], subscribe: ["micro.nats.>", "_INBOX.>"]}},
	{user: reader, password: "` + password + `", permissions: {publish: ["micro.nats.query"], subscribe: ["micro.nats.watch", "_INBOX.>"]}},
	{user: guest, password: "` + password + `", permissions: {publish: ["elsewhere"], subscribe: ["elsewhere"]}},
]}`

func TestLogin(t *testing.T) {
	t.Parallel()
	s := own(t, users)
	for _, tt := range []struct {
		name, user, password string
		write, read          status.Code
		text                 string
	}{
		{"no user", "", "", status.Unauthenticated, status.Unauthenticated, "it asks for a login: set NATS_USERNAME and NATS_PASSWORD"},
		{"a wrong password", "svc", "wrong-" + password, status.Unauthenticated, status.Unauthenticated, `user "svc": wrong name or password`},
		{"an unknown user", "nobody", password, status.Unauthenticated, status.Unauthenticated, `user "nobody": wrong name or password`},
		{"no permission", "guest", password, status.PermissionDenied, status.PermissionDenied, `user "guest": it may not`},
		{"to read alone", "reader", password, status.PermissionDenied, 0, `user "reader": it may not`},
		{"the right one", "svc", password, 0, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			said := &registrytest.Journal{}
			r := open(t, nats.Options{Servers: []string{s.Addr}, Username: tt.user, Password: tt.password, Logger: said.Logger()})
			check := func(what string, err error, code status.Code) {
				t.Helper()
				if code == 0 && err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if code != 0 && (!errors.Is(err, &status.Error{Code: code}) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), s.Addr)) {
					t.Errorf("%s gave %v, want %v and %q", what, err, code, tt.text)
				}
				if err != nil && strings.Contains(err.Error(), password) {
					t.Errorf("%s tells the password: %v", what, err)
				}
			}
			id := strings.ReplaceAll(tt.name, " ", "-")
			check("Register", r.Register(t.Context(), node(id), time.Minute), tt.write)
			check("List", second(r.List(t.Context())), tt.read)
			sets := registrytest.Follow(t, r, "greeter")
			if tt.read != 0 {
				check("Watch", registrytest.Expect(t, sets, "an error", func(s registrytest.Set) bool { return s.Err != nil }).Err, tt.read)
			} else if tt.write == 0 {
				registrytest.Expect(t, sets, "the node", registrytest.IDs(id))
			} else {
				registrytest.Expect(t, sets, "a set", func(s registrytest.Set) bool { return s.Err == nil })
			}
			if strings.Contains(said.String(), password) {
				t.Errorf("the logger was told the password:\n%s", said)
			}
		})
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	s := own(t, `authorization: {token: "`+password+`"}`)
	must(t, open(t, nats.Options{Servers: []string{s.Addr}, Token: password}).Register(t.Context(), node("a"), 0))
	err := second(open(t, nats.Options{Servers: []string{s.Addr}, Token: "wrong"}).List(t.Context()))
	if !errors.Is(err, &status.Error{Code: status.Unauthenticated}) || !strings.Contains(err.Error(), "wrong token") {
		t.Errorf("a wrong token gave %v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	s := own(t, `tls: {cert_file: "`+cert+`", key_file: "`+key+`", ca_file: "`+ca+`", verify: true}`)
	for _, tt := range []struct{ name, query, err string }{
		{"both", "?ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key, ""},
		{"no authority", "?tls=true", "certificate signed by unknown authority"},
		{"no certificate", "?ca-file=" + ca, "is not answering"},
		{"no TLS", "", "is not answering"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := registry.Openers{"nats": nats.Open}.Open(t.Context(), "nats://"+s.Addr+tt.query)
			must(t, err)
			defer r.Close()
			sets := registrytest.Follow(t, r.(*nats.Registry), "greeter")
			switch err := r.Register(t.Context(), node("a"), time.Minute); {
			case tt.err == "":
				must(t, err)
				registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
			case !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), tt.err):
				t.Errorf("Register gave %v, want %q", err, tt.err)
			}
		})
	}
}

func TestOpen(t *testing.T) { // not parallel: it sets the environment
	for _, name := range []string{nats.EnvUsername, nats.EnvPassword, nats.EnvToken, nats.EnvCreds} {
		t.Setenv(name, "")
	}
	for _, tt := range []struct{ raw, err string }{
		{"nats", ""},
		{"nats://", ""},
		{"nats://h,i:1?ttl=10s&prefix=a.b", ""},
		{"nats://h?tls=true", ""},
		{"nats://svc:s3cret@h:1", "credentials do not belong in a URL: use credentials-file or token-file, or NATS_USERNAME and NATS_PASSWORD, or NATS_TOKEN"},
		{"nats:h:1", "want nats://host:port"},
		{"nats://h/path", "want nats://host:port"},
		{"nats://h?ttl=x", `ttl "x" is not a duration`},
		{"nats://h?ttl=-1s", `ttl "-1s" is not a duration`},
		{"nats://h?ttl=1ms", "ttl 1ms is not between 1s and 1h"},
		{"nats://h?prefix=a..b", `prefix "a..b": want names`},
		{"nats://h?prefix=a.*", `prefix "a.*": want names`},
		{"nats://h?tll=1s", `unknown parameter "tll", nats takes: ttl, prefix, credentials-file, token-file, tls, ca-file, cert-file, key-file`},
	} {
		r, err := registry.Openers{"nats": nats.Open}.Open(t.Context(), tt.raw)
		if err == nil {
			must(t, r.Close())
		}
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.raw, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%s gave %v, want %q", tt.raw, err, tt.err)
		case err != nil && strings.Contains(err.Error(), "s3cret"):
			t.Errorf("%s tells the password: %v", tt.raw, err)
		}
	}
}

// TestLoginFromTheEnvironment: a file that the URL names comes before it.
func TestLoginFromTheEnvironment(t *testing.T) { // not parallel: it sets the environment
	s := own(t, users)
	t.Setenv(nats.EnvUsername, "svc")
	t.Setenv(nats.EnvPassword, password)
	file := filepath.Join(t.TempDir(), "login")
	must(t, os.WriteFile(file, []byte("guest:"+password), 0o600))
	for query, want := range map[string]error{"": nil, "?credentials-file=" + file: &status.Error{Code: status.PermissionDenied}} {
		r, err := registry.Openers{"nats": nats.Open}.Open(t.Context(), "nats://"+s.Addr+query)
		must(t, err)
		if err := r.Register(t.Context(), node("a"), time.Minute); !errors.Is(err, want) {
			t.Errorf("with %q Register gave %v, want %v", query, err, want)
		}
		must(t, r.Close())
	}
}
