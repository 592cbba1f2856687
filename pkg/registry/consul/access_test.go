package consul_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/consul"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
	"github.com/cb02dfca/micro/pkg/status"
)

// The tokens of a guarded consul.
const (
	rootToken    = "00000000-5ec3-4e00-8000-000000000001"
	serviceToken = "00000000-5ec3-4e00-8000-000000000002" // registers and finds any service
	guestToken   = "00000000-5ec3-4e00-8000-000000000003" // may do nothing
	wrongToken   = "00000000-5ec3-4e00-8000-000000000004"
)

// guarded starts a consul with ACLs.
func guarded(t *testing.T) *testserver.Server {
	t.Helper()
	s := own(t, "-hcl", `acl { enabled = true, default_policy = "deny", tokens { initial_management = "`+rootToken+`", agent = "`+rootToken+`" } }`)
	set := func(path string, body map[string]any) {
		data, err := json.Marshal(body)
		must(t, err)
		registrytest.Eventually(t, "it takes "+path, func() bool {
			code, _ := request(http.MethodPut, "http://"+s.Addr+path, string(data), "X-Consul-Token", rootToken)
			return code == http.StatusOK
		})
	}
	set("/v1/acl/policy", map[string]any{"Name": "registry", "Rules": `service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }`})
	set("/v1/acl/token", map[string]any{"SecretID": serviceToken, "Policies": []any{map[string]string{"Name": "registry"}}})
	set("/v1/acl/token", map[string]any{"SecretID": guestToken})
	return s
}

func TestToken(t *testing.T) {
	t.Parallel()
	s := guarded(t)
	theirs := open(t, consul.Options{Address: s.Addr, Token: serviceToken})
	must(t, theirs.Register(t.Context(), node("theirs"), 0)) // the others may wait for their turn
	registrytest.Eventually(t, "it is found", func() bool { return second(theirs.Get(t.Context(), "greeter")) == nil })
	for _, tt := range []struct {
		name, token, text string
		all               bool // it may ask for all services, and gets none
	}{
		{"no token", "", "it asks for a token: set CONSUL_HTTP_TOKEN, or token-file", false},
		{"a wrong token", wrongToken, "it does not know the token of this program", false},
		{"a token without rights", guestToken, "the token needs service:write", true},
		{"the right one", serviceToken, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			said := &registrytest.Journal{}
			r := open(t, consul.Options{Address: s.Addr, Token: tt.token, Logger: said.Logger()})
			sets, all := registrytest.Follow(t, r, "greeter"), registrytest.Follow(t, r, "")
			first := registrytest.Expect(t, sets, "anything", func(registrytest.Set) bool { return true })
			id := strings.ReplaceAll(tt.name, " ", "-")
			calls := map[string]error{
				"Register": r.Register(t.Context(), node(id), time.Minute), "Get": second(r.Get(t.Context(), "greeter")),
				"Watch": first.Err,
			}
			allCalls := map[string]error{"List": second(r.List(t.Context())), "Watch of all": registrytest.Expect(t, all, "anything", func(registrytest.Set) bool { return true }).Err}
			check := func(what string, err error, want string) {
				switch {
				case want == "" && err != nil:
					t.Errorf("%s: %v", what, err)
				case want != "" && (!errors.Is(err, &status.Error{Code: status.PermissionDenied}) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), s.Addr)):
					t.Errorf("%s gave %v, want %v and %q", what, err, status.PermissionDenied, want)
				case err != nil && strings.Contains(err.Error(), "5ec3"):
					t.Errorf("%s tells the token: %v", what, err)
				}
			}
			for what, err := range calls {
				check(what, err, tt.text)
			}
			for what, err := range allCalls {
				if tt.all {
					check(what, err, "")
				} else {
					check(what, err, tt.text)
				}
			}
			if tt.text == "" {
				registrytest.Expect(t, sets, "both nodes", registrytest.IDs("the-right-one", "theirs"))
			}
			if strings.Contains(said.String(), "5ec3") {
				t.Errorf("the logger was told the token:\n%s", said)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	s := secured(t, ca, cert, key)
	for _, tt := range []struct{ name, query, err string }{
		{"both", "?ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key, ""},
		{"no authority", "?tls=true", "certificate signed by unknown authority"},
		{"no certificate", "?ca-file=" + ca, "is not answering"},
		{"no TLS", "", "is not answering"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := registry.Openers{"consul": consul.Open}.Open(t.Context(), "consul://"+s.Addr+tt.query)
			must(t, err)
			defer r.Close()
			if tt.err == "" {
				sets, all := registrytest.Follow(t, r.(*consul.Registry), "greeter"), registrytest.Follow(t, r.(*consul.Registry), "")
				registrytest.Eventually(t, "it takes a node", func() bool { return r.Register(t.Context(), node("a"), time.Minute) == nil })
				registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
				registrytest.Expect(t, all, "the node", registrytest.IDs("a"))
				return
			}
			if err := r.Register(t.Context(), node("a"), time.Minute); !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Register gave %v, want %q", err, tt.err)
			}
		})
	}
}

func TestOpen(t *testing.T) { // not parallel: it sets the environment
	t.Setenv(consul.EnvToken, "")
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	good := file("good", "s3cret\n")
	for _, tt := range []struct{ raw, err string }{
		{"consul", ""},
		{"consul://", ""},
		{"consul://h", ""},
		{"consul://h:1/?ttl=10s", ""},
		{"consul://[::1]", ""},
		{"consul://[::1]:8501?tls=true", ""},
		{"consul://h?token-file=" + good, ""},
		{"consul://svc:s3cret@h:1", "credentials do not belong in a URL: use token-file, or CONSUL_HTTP_TOKEN"},
		{"consul://svc:s3cret@h:1?x=y", "svc:xxxxx@h:1"},
		{"consul:h:1", "want consul://host:port"},
		{"consul://h#f", "want consul://host:port"},
		{"consul://h/prefix", "want consul://host:port"},
		{"consul://h,i", `address "h,i:8500"`},
		{"consul://h:0", `address "h:0"`},
		{"consul://h?ttl=x", `ttl "x" is not a duration`},
		{"consul://h?ttl=-1s", `ttl "-1s" is not a duration`},
		{"consul://h?tll=1s", `unknown parameter "tll", consul takes: ttl, token-file, tls, ca-file, cert-file, key-file`},
		{"consul://h?token=s3cret", `unknown parameter "token"`},
		{"consul://h?token-file=" + filepath.Join(dir, "none"), "token file: open"},
		{"consul://h?token-file=" + file("lines", "s3cret\ns3cret\n"), "want one line, the token"},
		{"consul://h?token-file=" + file("spaces", "s3cret s3cret\n"), "the token holds white space"},
		{"consul://h?tls=maybe", `tls="maybe"`},
		{"consul://h?ca-file=" + good, "holds no certificate"},
		{"consul://h?cert-file=" + good, "cert-file and key-file go together"},
	} {
		r, err := registry.Openers{"consul": consul.Open}.Open(t.Context(), tt.raw)
		if err == nil {
			must(t, r.Close())
		}
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.raw, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%s gave %v, want %q", tt.raw, err, tt.err)
		case err != nil && strings.Contains(strings.ReplaceAll(err.Error(), "token=s3cret", ""), "s3cret"):
			t.Errorf("%s tells the token: %v", tt.raw, err)
		}
	}
	t.Setenv(consul.EnvToken, "a\nb")
	if _, err := consul.Open(t.Context(), &url.URL{Scheme: "consul"}); err == nil || !strings.Contains(err.Error(), "more than one line") {
		t.Errorf("a token of two lines gave %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]consul.Options{
		"an address without a port": {Address: "h"}, "a URL as an address": {Address: "http://h:1"}, "a token twice": {Token: "x", TokenFile: "y"},
		"a token of two lines": {Token: "a\nb"}, "a negative timeout": {Timeout: -1}, "a negative ttl": {TTL: -1}, "a ttl of a moment": {TTL: time.Millisecond},
	} {
		if r, err := consul.New(o); err == nil {
			t.Errorf("%s is taken", name)
			_ = r.Close()
		}
	}
}

// TestTokenFromTheEnvironment: the name is that of Consul's own tools.
func TestTokenFromTheEnvironment(t *testing.T) { // not parallel: it sets the environment
	s := guarded(t)
	t.Setenv(consul.EnvToken, serviceToken)
	file := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(file, []byte(guestToken), 0o600))
	for query, want := range map[string]error{"": nil, "?token-file=" + file: &status.Error{Code: status.PermissionDenied}} {
		r, err := registry.Openers{"consul": consul.Open}.Open(t.Context(), "consul://"+s.Addr+query)
		must(t, err)
		if err := r.Register(t.Context(), node("a"), time.Minute); !errors.Is(err, want) {
			t.Errorf("with %q Register gave %v, want %v", query, err, want)
		}
		must(t, r.Close())
	}
}
