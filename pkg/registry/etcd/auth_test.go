package etcd_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/etcd"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
	"github.com/cb02dfca/micro/pkg/status"
)

const password = "s3cret-word"

// guarded starts an etcd that asks for a user: "svc" may use the registry's keys, "guest" none.
func guarded(t *testing.T, flags ...string) *testserver.Server {
	t.Helper()
	s := own(t, flags...)
	c, ctx := raw(t, s.Addr), t.Context()
	must(t, second(c.UserAdd(ctx, "root", "root-"+password)))
	must(t, second(c.UserGrantRole(ctx, "root", "root")))
	must(t, second(c.RoleAdd(ctx, "registry")))
	must(t, second(c.RoleGrantPermission(ctx, "registry", "/micro/registry/", clientv3.GetPrefixRangeEnd("/micro/registry/"), clientv3.PermissionType(clientv3.PermReadWrite))))
	must(t, second(c.UserAdd(ctx, "svc", password)))
	must(t, second(c.UserGrantRole(ctx, "svc", "registry")))
	must(t, second(c.UserAdd(ctx, "guest", password)))
	must(t, second(c.AuthEnable(ctx)))
	return s
}

func TestLogin(t *testing.T) {
	t.Parallel()
	s := guarded(t)
	for _, tt := range []struct {
		name, user, password string
		code                 status.Code
		text                 string
	}{
		{"no user", "", "", status.Unauthenticated, "it asks for a user: set ETCD_USERNAME and ETCD_PASSWORD, or credentials-file"},
		{"a wrong password", "svc", "wrong-" + password, status.Unauthenticated, `user "svc": wrong name or password`},
		{"an unknown user", "nobody", password, status.Unauthenticated, `user "nobody": wrong name or password`},
		{"no permission", "guest", password, status.PermissionDenied, `user "guest" may not read and write below /micro/registry/`},
		{"the right one", "svc", password, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			said := &registrytest.Journal{}
			r := open(t, etcd.Options{Endpoints: []string{s.Addr}, Username: tt.user, Password: tt.password, Logger: said.Logger()})
			sets := registrytest.Follow(t, r, "greeter")
			first := registrytest.Expect(t, sets, "anything", func(registrytest.Set) bool { return true })
			for what, err := range map[string]error{
				"Register": r.Register(t.Context(), node(strings.ReplaceAll(tt.name, " ", "-")), time.Minute), "List": second(r.List(t.Context())), "Watch": first.Err,
			} {
				if tt.code == 0 && err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if tt.code != 0 && (!errors.Is(err, &status.Error{Code: tt.code}) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), s.Addr)) {
					t.Errorf("%s gave %v, want %v and %q", what, err, tt.code, tt.text)
				}
				if err != nil && strings.Contains(err.Error(), password) {
					t.Errorf("%s tells the password: %v", what, err)
				}
			}
			if tt.code == 0 {
				registrytest.Expect(t, sets, "the node", registrytest.IDs("the-right-one"))
			}
			if strings.Contains(said.String(), password) {
				t.Errorf("the logger was told the password:\n%s", said)
			}
		})
	}
}

// A login that runs out is made anew, for requests, for watches that begin later, and for nodes that are held.
func TestLoginRunsOut(t *testing.T) {
	t.Parallel()
	s := guarded(t, "--auth-token-ttl", "1")
	r := open(t, etcd.Options{Endpoints: []string{s.Addr}, Username: "svc", Password: password, TTL: 2 * time.Second})
	must(t, r.Register(t.Context(), node("a"), 0))
	sets := registrytest.Follow(t, r, "greeter")
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	for _, id := range []string{"b", "c"} {
		time.Sleep(2500 * time.Millisecond) // the time of a login at etcd
		must(t, r.Register(t.Context(), node(id), 0))
		want := map[string][]string{"b": {"a", "b"}, "c": {"a", "b", "c"}}[id]
		registrytest.Expect(t, sets, "one node more", registrytest.IDs(want...))
		later := registrytest.Follow(t, r, "greeter")
		registrytest.Expect(t, later, "all nodes", registrytest.IDs(want...))
		revokeAsRoot(t, s, id)
		registrytest.Expect(t, later, "one node less", registrytest.IDs(want[:len(want)-1]...))
		registrytest.Expect(t, later, "the node again", registrytest.IDs(want...))
	}
	for len(sets) > 0 {
		if s := <-sets; s.Err != nil {
			t.Errorf("the watch yielded %v", s.Err)
		}
	}
}

func revokeAsRoot(t *testing.T, s *testserver.Server, id string) {
	t.Helper()
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Addr}, Username: "root", Password: "root-" + password, Logger: zap.NewNop()})
	must(t, err)
	defer root.Close()
	must(t, second(root.Revoke(t.Context(), leaseOf(t, root, "/micro/registry/", id))))
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	s := unstarted(t, "--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", ca)
	s.MustStart(t)
	for _, tt := range []struct{ name, query, err string }{
		{"both", "?ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key, ""},
		{"no authority", "?tls=true", "certificate signed by unknown authority"},
		{"no certificate", "?ca-file=" + ca, "is not answering"},
		{"no TLS", "", "is not answering"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := registry.Openers{"etcd": etcd.Open}.Open(t.Context(), "etcd://"+s.Addr+tt.query)
			must(t, err)
			defer r.Close()
			sets := registrytest.Follow(t, r.(*etcd.Registry), "greeter")
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
	for _, name := range []string{etcd.EnvUsername, etcd.EnvPassword} {
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
		{"etcd", ""},
		{"etcd://", ""},
		{"etcd://h", ""},
		{"etcd://h,i:1/some/prefix/?ttl=10s", ""},
		{"etcd://[::1]:2379", ""},
		{"etcd://h?credentials-file=" + good, ""},
		{"etcd://h?tls=true", ""},
		{"etcd://svc:s3cret@h:1", "credentials do not belong in a URL: use credentials-file, or ETCD_USERNAME and ETCD_PASSWORD"},
		{"etcd://svc:s3cret@h:1?x=y", "svc:xxxxx@h:1"},
		{"etcd:h:1", "want etcd://host:port/prefix"},
		{"etcd://h#f", "want etcd://host:port/prefix"},
		{"etcd://h,,i", `endpoint ""`},
		{"etcd://h:0", `endpoint "h:0"`},
		{"etcd://h?ttl=x", `ttl "x" is not a duration`},
		{"etcd://h?ttl=-1s", `ttl "-1s" is not a duration`},
		{"etcd://h?tll=1s", `unknown parameter "tll", etcd takes: ttl, credentials-file, tls, ca-file, cert-file, key-file`},
		{"etcd://h?credentials-file=" + filepath.Join(dir, "none"), "credentials file: open"},
		{"etcd://h?credentials-file=" + file("bad", "s3cret\n"), "want one line, name:password"},
		{"etcd://h?credentials-file=" + file("lines", "a:s3cret\nb:s3cret\n"), "want one line, name:password"},
		{"etcd://h?tls=maybe", `tls="maybe"`},
		{"etcd://h?tls=false&ca-file=x", `tls="false"`},
		{"etcd://h?ca-file=" + good, "holds no certificate"},
		{"etcd://h?cert-file=" + good, "cert-file and key-file go together"},
		{"etcd://h?cert-file=" + good + "&key-file=" + good, "cert-file, key-file: "},
	} {
		r, err := registry.Openers{"etcd": etcd.Open}.Open(t.Context(), tt.raw)
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
	t.Setenv(etcd.EnvUsername, "svc")
	if _, err := etcd.Open(t.Context(), &url.URL{Scheme: "etcd"}); err == nil || !strings.Contains(err.Error(), "is set without the other") {
		t.Errorf("a user without a password gave %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]etcd.Options{
		"an endpoint without a port": {Endpoints: []string{"h"}}, "a URL as an endpoint": {Endpoints: []string{"http://h:1"}}, "no prefix": {Prefix: "//"},
		"a name alone": {Username: "svc"}, "a user twice": {Username: "svc", Password: "x", CredentialsFile: "y"},
		"a negative timeout": {Timeout: -1}, "a negative ttl": {TTL: -1},
	} {
		if r, err := etcd.New(o); err == nil {
			t.Errorf("%s is taken", name)
			_ = r.Close()
		}
	}
}

// TestLoginFromTheEnvironment: the names are go-micro's.
func TestLoginFromTheEnvironment(t *testing.T) { // not parallel: it sets the environment
	s := guarded(t)
	t.Setenv(etcd.EnvUsername, "svc")
	t.Setenv(etcd.EnvPassword, password)
	file := filepath.Join(t.TempDir(), "login")
	must(t, os.WriteFile(file, []byte("guest:"+password), 0o600))
	for query, want := range map[string]error{"": nil, "?credentials-file=" + file: &status.Error{Code: status.PermissionDenied}} {
		r, err := registry.Openers{"etcd": etcd.Open}.Open(t.Context(), "etcd://"+s.Addr+query)
		must(t, err)
		if err := r.Register(t.Context(), node("a"), time.Minute); !errors.Is(err, want) {
			t.Errorf("with %q Register gave %v, want %v", query, err, want)
		}
		must(t, r.Close())
	}
}
