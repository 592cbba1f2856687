package dns_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/dns"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
	"github.com/cb02dfca/micro/pkg/status"
)

const otherSecret = "b3RoZXItc2VjcmV0LXdvcmQtb2YtdGhlLXRlc3Rz"

func TestKeys(t *testing.T) {
	t.Parallel()
	addr := shared.Addr(t)
	for _, tt := range []struct {
		name, zone string
		key        dns.Key
		code       status.Code
		text       string
		reads      bool
	}{
		{"no key", zone, dns.Key{}, status.PermissionDenied, "it does not let svc.test. be updated without a key (REFUSED)", true},
		{"a key that may not", zone, dns.Key{Name: "guest", Secret: secret}, status.PermissionDenied, `with the key "guest." (REFUSED)`, true},
		{"an unknown key", zone, dns.Key{Name: "nobody", Secret: secret}, status.Unauthenticated, `it does not know the key "nobody."`, false},
		{"a wrong secret", zone, dns.Key{Name: keyName, Secret: otherSecret}, status.Unauthenticated, `the key "micro-update." is not the one that it has (BADSIG)`, false},
		{"another algorithm", zone, dns.Key{Name: keyName, Algorithm: "hmac-sha512", Secret: secret}, status.Unauthenticated, "(BADKEY)", false},
		{"a zone of somebody else", "elsewhere.test", key, status.PermissionDenied, "elsewhere.test.", false},
		{"a zone that stays as it is", "static.test", key, status.PermissionDenied, "(REFUSED)", true},
		{"the right one", domain(), key, 0, "", true},
		{"a zone for everybody", "open.test", dns.Key{}, 0, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			said := &registrytest.Journal{}
			r := open(t, dns.Options{Servers: []string{addr}, Zone: tt.zone, Key: tt.key, Logger: said.Logger()})
			sets := registrytest.Follow(t, r, "clock")
			first := registrytest.Expect(t, sets, "anything", func(registrytest.Set) bool { return true })
			for what, err := range map[string]error{
				"Register": r.Register(t.Context(), node(strings.ReplaceAll(tt.name, " ", "-")), time.Minute), "List": second(r.List(t.Context())), "Watch": first.Err,
			} {
				if good := tt.code == 0 || tt.reads && what != "Register"; good {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
					continue
				}
				if !errors.Is(err, &status.Error{Code: tt.code}) || !strings.Contains(err.Error(), addr) || what == "Register" && !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%s gave %v, want %v and %q", what, err, tt.code, tt.text)
				}
				if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), otherSecret) {
					t.Errorf("%s tells the secret: %v", what, err)
				}
			}
			if strings.Contains(said.String(), secret) || strings.Contains(said.String(), otherSecret) {
				t.Errorf("the logger was told the secret:\n%s", said)
			}
		})
	}
}

// Nothing unsigned leaves the machine to change a zone.
func TestUnsignedStaysHere(t *testing.T) {
	t.Parallel()
	r := open(t, dns.Options{Servers: []string{"192.0.2.1:53"}, Zone: zone})
	err := r.Register(t.Context(), node("a"), 0)
	if !errors.Is(err, &status.Error{Code: status.Unauthenticated}) || !strings.Contains(err.Error(), "set tsig-file, DNS_TSIG_FILE or DNS_TSIG_KEY") {
		t.Errorf("Register gave %v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, pem := testserver.Certificates(t)
	_, port, _ := net.SplitHostPort(testserver.FreeAddr())
	own(t, fmt.Sprintf("listen-on port %s tls own { 127.0.0.1; };\n};\ntls own { cert-file %q; key-file %q;", port, cert, pem))
	file := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(file, []byte(keyText(keyName, secret)), 0o600))
	for _, tt := range []struct{ name, query, err string }{
		{"with the authority", "&ca-file=" + ca, ""},
		{"no authority", "&tls=true", "certificate signed by unknown authority"},
		{"no TLS", "&tcp=true", "is not answering"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := registry.Openers{"dns": dns.Open}.Open(t.Context(), "dns://127.0.0.1:"+port+"/"+zone+"?tsig-file="+file+tt.query)
			must(t, err)
			defer r.Close()
			switch err := r.Register(t.Context(), node("a"), time.Minute); {
			case tt.err == "":
				must(t, err)
				if nodes, err := r.Get(t.Context(), "greeter"); !registrytest.IDs("a")(registrytest.Set{Nodes: nodes, Err: err}) {
					t.Errorf("Get gave %+v, %v", nodes, err)
				}
			case !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), tt.err):
				t.Errorf("Register gave %v, want %q", err, tt.err)
			}
		})
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	good := dns.Key{Name: "a.b.", Algorithm: "hmac-sha256.", Secret: secret}
	for text, want := range map[string]string{
		keyText("a.b", secret): "",
		"# comment\n/* one\nmore */ key a.b{algorithm \"hmac-sha256\";secret " + secret + ";};": "",
		"a.b:hmac-sha256:" + secret + "\n": "",
		"a.b::" + secret:                   "",
		"":                                 "want a key",
		secret:                             "want a key",
		"key a.b { algorithm hmac-sha256; secret " + secret:       "want a key",
		"key a.b { algorithm hmac-md5; secret " + secret + "; };": "its algorithm is none of hmac-sha256",
		"a.b:hmac-sha256:s3cret-no-base64!":                       "its secret is not base64",
		":hmac-sha256:" + secret:                                  "without a name",
		"a.b:hmac-sha256:":                                        "its secret is not base64",
		"zone a { };":                                             "want a key",
		"key \"":                                                  "want a key",
	} {
		k, err := dns.ParseKey(text)
		switch {
		case want == "" && (err != nil || k != good):
			t.Errorf("%q gave %q, %v", text, k, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q gave %v, want %q", text, err, want)
		case err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "s3cret")):
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v %s", good, good, good, good); strings.Contains(s, secret) {
		t.Errorf("a key prints as %s", s)
	}
}

func TestOpen(t *testing.T) { // not parallel: it sets the environment
	for _, name := range []string{dns.EnvKey, dns.EnvKeyFile} {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	good := file("good", keyText("a", secret))
	for _, tt := range []struct{ raw, err string }{
		{"dns://h/z.test", ""},
		{"dns://h,i:1/z.test/?ttl=10s&poll=1s&skew=1m&tcp=true", ""},
		{"dns://[::1]:53?domain=z.test.", ""},
		{"dns://h/z.test?tsig-file=" + good, ""},
		{"dns://h/z.test?tls=true", ""},
		{"dns://h/cluster.local?srv=_grpc._tcp.{service}.default.svc", ""},
		{"dns://h", "want a domain, such as svc.example.org"},
		{"dns://h/.", "want a domain"},
		{"dns://h/" + strings.Repeat("a.", 100) + "test", "is too long"},
		{"dns://h/z.test?domain=y.test", "the zone is given twice"},
		{"dns://me:s3cret@h/z.test", "keys do not belong in a URL: use tsig-file, DNS_TSIG_FILE or DNS_TSIG_KEY"},
		{"dns:h:1", "want dns://host:port/zone"},
		{"dns://h/z.test#f", "want dns://host:port/zone"},
		{"dns://h,,i/z.test", `server ""`},
		{"dns://h:0/z.test", `server "h:0"`},
		{"dns://h/z.test?ttl=x", `ttl "x" is not a duration`},
		{"dns://h/z.test?ttl=48h", "want one from 1s to 24h"},
		{"dns://h/z.test?poll=-1s", `poll "-1s" is not a duration`},
		{"dns://h/z.test?tcp=maybe", `tcp="maybe"`},
		{"dns://h/z.test?services=a,b.c", ""},
		{"dns://h/z.test?services=a,", `"" is no name of a service`},
		{"dns://h/z.test?srv=_grpc._tcp", `one "{service}" in it`},
		{"dns://h/z.test?key=s3cret", `unknown parameter "key", dns takes: domain, srv, services, tsig-file`},
		{"dns://h/z.test?tsig-file=" + filepath.Join(dir, "none"), "key file: open"},
		{"dns://h/z.test?tsig-file=" + file("bad", "s3cret\n"), "want a key as BIND writes it"},
		{"dns://h/z.test?ca-file=" + good, "holds no certificate"},
	} {
		r, err := registry.Openers{"dns": dns.Open}.Open(t.Context(), tt.raw)
		if err == nil {
			must(t, r.Close())
		}
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.raw, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%s gave %v, want %q", tt.raw, err, tt.err)
		case err != nil && strings.Contains(err.Error(), "s3cret") && !strings.Contains(tt.raw, "key="):
			t.Errorf("%s tells the secret: %v", tt.raw, err)
		}
	}
	t.Setenv(dns.EnvKey, "s3cret")
	if _, err := dns.Open(t.Context(), &url.URL{Scheme: "dns", Host: "h", Path: "/z.test"}); err == nil || !strings.Contains(err.Error(), "DNS_TSIG_KEY: want a key") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a key that is none gave %v", err)
	}
	t.Setenv(dns.EnvKeyFile, good)
	if _, err := dns.Open(t.Context(), &url.URL{Scheme: "dns", Host: "h", Path: "/z.test"}); err == nil || !strings.Contains(err.Error(), "both DNS_TSIG_KEY and DNS_TSIG_FILE are set") {
		t.Errorf("two keys gave %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]dns.Options{
		"a server without a port": {Servers: []string{"h"}, Zone: zone}, "a URL as a server": {Servers: []string{"dns://h:1"}, Zone: zone}, "no zone": {Servers: []string{"h:1"}},
		"a key twice": {Zone: zone, Key: key, KeyFile: "x"}, "a key without a secret": {Zone: zone, Key: dns.Key{Name: "x"}},
		"a negative timeout": {Zone: zone, Timeout: -1}, "a negative poll": {Zone: zone, Poll: -1},
	} {
		if len(o.Servers) == 0 {
			o.Servers = []string{"127.0.0.1:53"}
		}
		if r, err := dns.New(o); err == nil {
			t.Errorf("%s is taken", name)
			_ = r.Close()
		}
	}
}
