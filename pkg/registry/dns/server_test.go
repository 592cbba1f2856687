package dns_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry/dns"
)

const (
	zone    = "svc.test"
	keyName = "micro-update"
	secret  = "c2VjcmV0LXdvcmQtb2YtdGhlLXRlc3RzLWZvci1ob21l" // base64
)

var key = dns.Key{Name: keyName, Secret: secret}

func keyText(name, secret string) string {
	return fmt.Sprintf("key %q {\n\talgorithm hmac-sha256; // as tsig-keygen has it\n\tsecret %q;\n};\n", name, secret)
}

// missing says what lacks to run a nameserver.
func missing() error {
	if _, err := exec.LookPath("named"); err != nil {
		return errors.New("no named: install Debian's bind9")
	}
	return nil
}

// shared is the nameserver of all tests that leave it running. Each test has a domain of its own in its zone.
var shared = testserver.Shared{Env: "BIND_ADDR", Missing: missing, Spec: spec("")}

// spec runs a named with a zone that can be updated with the key, and one that stays as it is. more is put into its options.
func spec(more string) testserver.Spec {
	return testserver.Spec{
		Command: func(s *testserver.Server) (argv, env []string) {
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o600); err != nil {
					panic(err)
				}
			}
			host, port, _ := net.SplitHostPort(s.Addr)
			write("named.conf", fmt.Sprintf(`options {
	directory %q; pid-file none; session-keyfile none; listen-on port %s { %s; }; listen-on-v6 { none; };
	recursion no; notify no; allow-transfer { none; }; dnssec-validation no; tcp-clients 1000; %s
};
controls { };
%skey "guest" { algorithm hmac-sha256; secret %q; };
zone %q { type primary; file "svc"; allow-update { key %q; }; };
zone "open.test" { type primary; file "open"; allow-update { any; }; };
zone "static.test" { type primary; file "static"; };
`, s.Dir, port, host, more, keyText(keyName, secret), secret, zone, keyName))
			const head = "$TTL 5\n@ IN SOA ns hostmaster 1 3600 600 86400 5\n@ IN NS ns\nns IN A 127.0.0.1\n"
			if _, err := os.Stat(filepath.Join(s.Dir, "svc")); err != nil {
				write("svc", head)
				write("open", head)
			}
			write("static", head+`_greeter._tcp 7 IN SRV 10 60 8080 web-1
_greeter._tcp 7 IN SRV 10 40 8081 web-2
_greeter._tcp 7 IN SRV 20 0 8082 spare
_grpc._tcp.cart.shop 7 IN SRV 0 0 50051 web-2
_moved._tcp IN CNAME _greeter._tcp
_closed._tcp IN SRV 0 0 0 .
_far._tcp IN SRV 0 0 80 host.elsewhere.test.
web-1 IN A 10.0.0.1
web-2 IN A 10.0.0.2
web-2 IN A 10.0.0.3
web-2 IN AAAA 2001:db8::2
spare IN A 10.0.0.9
`)
			return []string{"named", "-g", "-4", "-n", "1", "-c", filepath.Join(s.Dir, "named.conf")}, nil
		},
		Ready: answers,
		Taken: "address in use",
	}
}

// answers reports whether a nameserver has its zone.
func answers(s *testserver.Server) bool {
	m := new(wire.Msg)
	m.SetQuestion(zone+".", wire.TypeSOA)
	c := wire.Client{Net: "tcp", Timeout: time.Second}
	a, _, err := c.Exchange(m, s.Addr)
	return err == nil && len(a.Answer) == 1
}

// own starts a nameserver for a test, which is stopped at its end.
func own(t *testing.T, more string) *testserver.Server {
	t.Helper()
	s := unstarted(t, more)
	s.MustStart(t)
	return s
}

// unstarted gives a nameserver that the test starts.
func unstarted(t *testing.T, more string) *testserver.Server {
	t.Helper()
	if err := missing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	s := testserver.New(t.TempDir(), spec(more))
	t.Cleanup(func() { s.Stop("KILL") })
	return s
}
