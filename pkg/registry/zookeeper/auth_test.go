package zookeeper_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
	"github.com/cb02dfca/micro/pkg/registry/zookeeper"
	"github.com/cb02dfca/micro/pkg/status"
)

const password = "s3cret-word"

// guarded makes a prefix that the user "svc" alone may read and write.
func guarded(t *testing.T, addr string) (prefix string) {
	t.Helper()
	prefix = "/" + strings.ReplaceAll(strings.Trim(prefixOf(t), "/"), "/", "-")
	must(t, second(raw(t, addr).Create(prefix, nil, 0, zk.DigestACL(zk.PermAll, "svc", password))))
	return prefix
}

func TestLogin(t *testing.T) {
	t.Parallel()
	addr := shared.Addr(t)
	prefix := guarded(t, addr)
	for _, tt := range []struct {
		name, user, password string
		code                 status.Code
		text                 string
	}{
		{"no user", "", "", status.Unauthenticated, "it asks for a user: set ZK_USERNAME and ZK_PASSWORD, or credentials-file"},
		{"a wrong password", "svc", "wrong-" + password, status.PermissionDenied, `user "svc" may not read and write below ` + prefix + ": the password is wrong"},
		{"an unknown user", "nobody", password, status.PermissionDenied, `user "nobody" may not read and write below ` + prefix},
		{"the right one", "svc", password, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			said := &registrytest.Journal{}
			r := open(t, zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix, Username: tt.user, Password: tt.password, Logger: said.Logger()})
			sets := registrytest.Follow(t, r, "")
			first := registrytest.Expect(t, sets, "anything", func(registrytest.Set) bool { return true })
			for what, err := range map[string]error{
				"Register": r.Register(t.Context(), node("a"), time.Minute), "List": second(r.List(t.Context())), "Watch": first.Err,
			} {
				if tt.code == 0 && err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if tt.code != 0 && (!errors.Is(err, &status.Error{Code: tt.code}) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), addr)) {
					t.Errorf("%s gave %v, want %v and %q", what, err, tt.code, tt.text)
				}
				if err != nil && strings.Contains(err.Error(), password) {
					t.Errorf("%s tells the password: %v", what, err)
				}
			}
			if tt.code == 0 {
				registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
			}
			if strings.Contains(said.String(), password) {
				t.Errorf("the logger was told the password:\n%s", said)
			}
		})
	}
}

// A server that wants a login whatever the path says so to whoever has none, and takes one by any connection that is made later.
func TestLoginIsEnforced(t *testing.T) {
	t.Parallel()
	s := own(t, "enforce.auth.enabled=true", "enforce.auth.schemes=digest")
	way := testserver.NewRelay(t, s.Addr)
	r := open(t, zookeeper.Options{Endpoints: []string{way.Addr}, Username: "svc", Password: password, TTL: 2 * time.Second})
	sets := registrytest.Follow(t, r, "greeter")
	must(t, r.Register(t.Context(), node("a"), time.Hour))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	way.Hold()
	way.Release()
	must(t, r.Register(t.Context(), node("b"), time.Hour))
	registrytest.Expect(t, sets, "both", registrytest.IDs("a", "b"))

	bare := open(t, zookeeper.Options{Endpoints: []string{s.Addr}})
	for what, err := range map[string]error{
		"Register": bare.Register(t.Context(), node("c"), time.Minute), "List": second(bare.List(t.Context())),
		"Watch": registrytest.Expect(t, registrytest.Follow(t, bare, ""), "anything", func(registrytest.Set) bool { return true }).Err,
	} {
		if !errors.Is(err, &status.Error{Code: status.Unauthenticated}) || !strings.Contains(err.Error(), "it asks for a user") {
			t.Errorf("%s gave %v, want 401", what, err)
		}
	}
}

// With a login what is written is the user's alone, from the prefix down, and everybody may read it; without one it is everybody's.
func TestWhoMayWrite(t *testing.T) {
	t.Parallel()
	addr := shared.Addr(t)
	for _, user := range []string{"", "svc"} {
		t.Run("user "+user, func(t *testing.T) {
			t.Parallel()
			prefix, client := "/"+strings.ReplaceAll(strings.Trim(prefixOf(t), "/"), "/", "-"), raw(t, addr)
			o := zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix}
			guest := open(t, o)
			want := zk.WorldACL(zk.PermAll)
			if user != "" {
				o.Username, o.Password = user, password
				must(t, client.AddAuth("digest", []byte(user+":"+password))) // else it shows no digest
				want = append(zk.DigestACL(zk.PermAll, user, password), zk.WorldACL(zk.PermRead)...)
			}
			r := open(t, o)
			must(t, r.Register(t.Context(), node("a"), 0))
			must(t, r.Register(t.Context(), node("a"), time.Second)) // under another session
			for _, path := range []string{prefix, prefix + "/greeter", prefix + "/greeter/a"} {
				if got, _, err := client.GetACL(path); err != nil || !slices.Equal(got, want) {
					t.Errorf("%s has %v, %v, want %v", path, got, err, want)
				}
			}
			registrytest.Expect(t, registrytest.Follow(t, guest, "greeter"), "the node", registrytest.IDs("a"))
			err := guest.Register(t.Context(), node("b"), 0)
			if user == "" {
				must(t, err)
			} else if !errors.Is(err, &status.Error{Code: status.Unauthenticated}) {
				t.Errorf("a guest's Register gave %v, want 401", err)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	dir := t.TempDir()
	both := filepath.Join(dir, "both.pem")
	must(t, os.WriteFile(both, slices.Concat(read(t, key), read(t, cert)), 0o600))
	secure := testserver.FreeAddr()
	own(t, "secureClientPort="+port(secure), "secureClientPortAddress=127.0.0.1", "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
		"ssl.keyStore.location="+both, "ssl.keyStore.type=PEM", "ssl.trustStore.location="+ca, "ssl.trustStore.type=PEM", "ssl.clientAuth=need")
	for _, tt := range []struct{ name, query, err string }{
		{"both", "?ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key, ""},
		{"no authority", "?tls=true", "certificate signed by unknown authority"},
		{"no certificate", "?ca-file=" + ca, "is not answering"},
		{"no TLS", "", "is not answering"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := registry.Openers{"zookeeper": zookeeper.Open}.Open(t.Context(), "zookeeper://"+secure+tt.query)
			must(t, err)
			defer r.Close()
			sets := registrytest.Follow(t, r.(*zookeeper.Registry), "greeter")
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

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	return data
}

func TestOpen(t *testing.T) { // not parallel: it sets the environment
	for _, name := range []string{zookeeper.EnvUsername, zookeeper.EnvPassword} {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	good := file("good", "svc:a:b c\n")
	for _, tt := range []struct{ raw, err string }{
		{"zookeeper", ""},
		{"zookeeper://", ""},
		{"zookeeper://h", ""},
		{"zookeeper://h,i:1/some/prefix/?ttl=10s", ""},
		{"zookeeper://[::1]:2181", ""},
		{"zookeeper://h?credentials-file=" + good, ""},
		{"zookeeper://h?tls=true", ""},
		{"zookeeper://svc:s3cret@h:1", "credentials do not belong in a URL: use credentials-file, or ZK_USERNAME and ZK_PASSWORD"},
		{"zookeeper://svc:s3cret@h:1?x=y", "svc:xxxxx@h:1"},
		{"zookeeper:h:1", "want zookeeper://host:port/prefix"},
		{"zookeeper://h#f", "want zookeeper://host:port/prefix"},
		{"zookeeper://h,,i", `endpoint ""`},
		{"zookeeper://h:0", `endpoint "h:0"`},
		{"zookeeper://h/a//b", `prefix "/a//b"`},
		{"zookeeper://h/..", `prefix "/.."`},
		{"zookeeper://h?ttl=x", `ttl "x" is not a duration`},
		{"zookeeper://h?ttl=-1s", `ttl "-1s" is not a duration`},
		{"zookeeper://h?tll=1s", `unknown parameter "tll", zookeeper takes: ttl, credentials-file, tls, ca-file, cert-file, key-file`},
		{"zookeeper://h?credentials-file=" + filepath.Join(dir, "none"), "credentials file: open"},
		{"zookeeper://h?credentials-file=" + file("bad", "s3cret\n"), "want one line, name:password"},
		{"zookeeper://h?tls=maybe", `tls="maybe"`},
		{"zookeeper://h?ca-file=" + good, "holds no certificate"},
		{"zookeeper://h?cert-file=" + good, "cert-file and key-file go together"},
	} {
		r, err := registry.Openers{"zookeeper": zookeeper.Open}.Open(t.Context(), tt.raw)
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
	t.Setenv(zookeeper.EnvUsername, "svc")
	if _, err := zookeeper.Open(t.Context(), &url.URL{Scheme: "zookeeper"}); err == nil || !strings.Contains(err.Error(), "is set without the other") {
		t.Errorf("a user without a password gave %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]zookeeper.Options{
		"an endpoint without a port": {Endpoints: []string{"h"}}, "a URL as an endpoint": {Endpoints: []string{"http://h:1"}}, "no prefix": {Prefix: "//"},
		"a name alone": {Username: "svc"}, "a user twice": {Username: "svc", Password: "x", CredentialsFile: "y"}, "a name with a colon": {Username: "a:b", Password: "x"},
		"a negative timeout": {Timeout: -1}, "a negative ttl": {TTL: -1},
	} {
		if r, err := zookeeper.New(o); err == nil {
			t.Errorf("%s is taken", name)
			_ = r.Close()
		}
	}
}

func TestLoginFromTheEnvironment(t *testing.T) { // not parallel: it sets the environment
	addr := shared.Addr(t)
	prefix := guarded(t, addr)
	t.Setenv(zookeeper.EnvUsername, "svc")
	t.Setenv(zookeeper.EnvPassword, password)
	file := filepath.Join(t.TempDir(), "login")
	must(t, os.WriteFile(file, []byte("guest:"+password), 0o600))
	for query, want := range map[string]error{"": nil, "?credentials-file=" + file: &status.Error{Code: status.PermissionDenied}} {
		r, err := registry.Openers{"zookeeper": zookeeper.Open}.Open(t.Context(), "zookeeper://"+addr+prefix+query)
		must(t, err)
		if err := r.Register(t.Context(), node("a"), time.Minute); !errors.Is(err, want) {
			t.Errorf("with %q Register gave %v, want %v", query, err, want)
		}
		must(t, r.Close())
	}
}
