package gossip_test

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/gossip"
	"github.com/cb02dfca/micro/pkg/status"
)

const (
	rightKey = "the-right-key-of-thirty-two-byte"
	wrongKey = "the-wrong-key-of-thirty-two-byte"
)

func TestKey(t *testing.T) {
	t.Parallel()
	guarded, unguarded := testserver.FreeAddr(), testserver.FreeAddr()
	for seed, key := range map[string]string{guarded: rightKey, unguarded: ""} {
		must(t, open(t, gossip.Options{Seeds: []string{seed}, Key: []byte(key)}).Register(t.Context(), node("there"), 0))
	}
	for _, tt := range []struct{ name, seed, key, text string }{
		{"the right key", guarded, rightKey, ""},
		{"another key", guarded, wrongKey, "its members have another key"},
		{"no key", guarded, "", "its members have a key: set MICRO_GOSSIP_KEY, or key-file"},
		{"a key too many", unguarded, wrongKey, "its members have no key, and this one has"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			said := &journal{}
			r := open(t, gossip.Options{Seeds: []string{tt.seed}, Key: []byte(tt.key), Logger: said.logger()})
			nodes, err := r.List(t.Context())
			if tt.text == "" {
				if err != nil || !ids("there")(set{nodes: nodes}) {
					t.Errorf("List gave %v, %v", names(nodes), err)
				}
				return
			}
			first := expect(t, watching(t, r, ""), "anything", func(set) bool { return true })
			for what, err := range map[string]error{"List": err, "Register": r.Register(t.Context(), node("mine"), 0), "Watch": first.err} {
				if !errors.Is(err, &status.Error{Code: status.Unauthenticated}) || !strings.Contains(err.Error(), tt.seed) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%s gave %v, want %q", what, err, tt.text)
				}
			}
			for _, text := range []string{rightKey, wrongKey, base64.StdEncoding.EncodeToString([]byte(wrongKey))} {
				if strings.Contains(said.String(), text) {
					t.Errorf("the logger was told a key:\n%s", said)
				}
			}
		})
	}
}

func TestOpen(t *testing.T) { // not parallel: it sets the environment
	t.Setenv(gossip.EnvKey, "")
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	key := base64.StdEncoding.EncodeToString([]byte(rightKey))
	good, bad := file("good", key+"\n"), file("bad", "s3cret\n")
	free := testserver.FreeAddr()
	for _, tt := range []struct{ raw, err string }{
		{"gossip", ""},
		{"gossip://", ""},
		{"gossip://" + free, ""},
		{"gossip://localhost," + free, ""},
		{"gossip://[::1]:7946?bind=127.0.0.1:0", ""},
		{"gossip://" + free + "?key-file=" + good, ""},
		{"gossip://?bind=" + testserver.FreeAddr() + "&advertise=127.0.0.1:0", ""},
		{"gossip://?bind=0.0.0.0:0&insecure=true&advertise=127.0.0.1:0", ""},
		{"gossip://?bind=0.0.0.0:0&advertise=127.0.0.1:0&key-file=" + good, ""},
		{"gossip://?bind=0.0.0.0:0&advertise=127.0.0.1:0", "0.0.0.0 is not loopback, and without a key whoever reaches it may join: set MICRO_GOSSIP_KEY or key-file, or insecure=true"},
		{"gossip://?bind=[::]:0&insecure=true&advertise=1.2.3.4", "want IP:port"},
		{"gossip://k:s3cret@h:1", "a key does not belong in a URL: use key-file, or MICRO_GOSSIP_KEY"},
		{"gossip://k:s3cret@h:1?x=y", "k:xxxxx@h:1"},
		{"gossip:h:1", "want gossip://host:port"},
		{"gossip://h:1/path", "want gossip://host:port"},
		{"gossip://h,,i", `seed ""`},
		{"gossip://h:0", `seed "h:0"`},
		{"gossip://?bind=h", `bind "h": want host:port`},
		{"gossip://?bind=127.0.0.1:x", "want a port up to 65535"},
		{"gossip://?bind=192.0.2.1:0&insecure=true", "bind 192.0.2.1:0: cannot assign requested address"},
		{"gossip://?insecure=maybe", `insecure="maybe"`},
		{"gossip://?ttl=1s", `unknown parameter "ttl", gossip takes: bind, advertise, key-file, insecure`},
		{"gossip://?key-file=" + filepath.Join(dir, "none"), "key file: open"},
		{"gossip://?key-file=" + bad, "key file " + bad + ": want 16, 24 or 32 bytes in base64"},
	} {
		r, err := registry.Openers{"gossip": gossip.Open}.Open(t.Context(), tt.raw)
		if err == nil {
			must(t, r.Close())
		}
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.raw, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%s gave %v, want %q", tt.raw, err, tt.err)
		case err != nil && strings.Contains(err.Error(), "s3cret"):
			t.Errorf("%s tells the key: %v", tt.raw, err)
		}
	}
	t.Setenv(gossip.EnvKey, "s3cret")
	if _, err := (registry.Openers{"gossip": gossip.Open}).Open(t.Context(), "gossip"); err == nil || !strings.Contains(err.Error(), "MICRO_GOSSIP_KEY: want 16") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a bad key of the environment gave %v", err)
	}
	t.Setenv(gossip.EnvKey, key)
	must(t, open(t, gossip.Options{Seeds: []string{free}, KeyFile: good}).Register(t.Context(), node("there"), 0))
	r, err := registry.Openers{"gossip": gossip.Open}.Open(t.Context(), "gossip://"+free)
	must(t, err)
	lists(t, r, "there")
	must(t, r.Close())
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]gossip.Options{
		"a seed without a port": {Seeds: []string{"h"}}, "a URL as a seed": {Seeds: []string{"gossip://h:1"}},
		"a key twice": {Key: []byte(rightKey), KeyFile: "x"}, "a short key": {Key: []byte("short")}, "a negative timeout": {Timeout: -1},
		"a name to advertise": {Advertise: "h:1"}, "a port that is taken": {Bind: taken(t)},
	} {
		if r, err := gossip.New(o); err == nil {
			t.Errorf("%s is taken", name)
			_ = r.Close()
		}
	}
}

// taken is an address that a member has.
func taken(t *testing.T) string { return open(t, at(testserver.FreeAddr())).Addr() }
