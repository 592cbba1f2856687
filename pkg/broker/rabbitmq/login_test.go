package rabbitmq_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/rabbitmq"
	"github.com/cb02dfca/micro/pkg/status"
)

const password = "s3cret-word"

// guarded starts a RabbitMQ with the users "svc", who may do all, "narrow", who may do what is needed, and "guest2", who may do nothing, and the virtual host "team/a"
// beside "/".
func guarded(t *testing.T) *testserver.Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "definitions.json")
	must(t, os.WriteFile(file, []byte(`{
		"users": [{"name":"svc","password":"`+password+`","tags":""}, {"name":"guest2","password":"`+password+`","tags":""}, {"name":"narrow","password":"`+password+`","tags":""}],
		"vhosts": [{"name":"/"}, {"name":"team/a"}],
		"permissions": [
			{"user":"svc","vhost":"/","configure":".*","write":".*","read":".*"},
			{"user":"svc","vhost":"team/a","configure":".*","write":".*","read":".*"},
			{"user":"narrow","vhost":"/","configure":"^micro","write":"^(micro|amq\\.default)","read":"^micro"},
			{"user":"guest2","vhost":"/","configure":"^$","write":"^$","read":"^$"}],
		"topic_permissions": [], "parameters": [], "policies": [], "queues": [], "exchanges": [], "bindings": []}`), 0o600))
	return servers.Own(t, "load_definitions = "+file)
}

func TestLogin(t *testing.T) { // not parallel: a part of it sets the environment
	s := guarded(t)
	t.Run("from the environment", func(t *testing.T) { testLoginFromTheEnvironment(t, s) })
	for _, tt := range []struct {
		name, user, password, vhost string
		code                        status.Code
		text                        string
	}{
		{"no user", "", "", "", status.Unauthenticated, `user "guest": wrong name or password; set RABBITMQ_USERNAME and RABBITMQ_PASSWORD, or credentials-file`},
		{"a wrong password", "svc", "wrong-" + password, "", status.Unauthenticated, `user "svc": wrong name or password`},
		{"an unknown user", "nobody", password, "", status.Unauthenticated, `user "nobody": wrong name or password`},
		{"an unknown virtual host", "svc", password, "none", status.NotFound, `there is no virtual host "none"`},
		{"a forbidden virtual host", "guest2", password, "team/a", status.PermissionDenied, `user "guest2" may not use the virtual host "team/a"`},
		{"no permission", "guest2", password, "", status.PermissionDenied, `user "guest2": `},
		{"the right one", "svc", password, "", 0, ""},
		{"what the documentation tells to allow", "narrow", password, "", 0, ""},
		{"the right virtual host", "svc", password, "team/a", 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			said := &brokertest.Journal{}
			b := open(t, rabbitmq.Options{Addrs: []string{s.Addr}, VHost: tt.vhost, Username: tt.user, Password: tt.password, Logger: said.Logger()})
			in := newInbox()
			_, subscribing := b.Subscribe(t.Context(), "t", in.handle, broker.Queue(strings.ReplaceAll(tt.name, " ", "-")))
			_, publishing := b.Publish(t.Context(), &broker.Message{Topic: "t"})
			for what, err := range map[string]error{"Subscribe": subscribing, "Publish": publishing} {
				if tt.code == 0 && err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if tt.code != 0 && (!errors.Is(err, &status.Error{Code: tt.code}) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), s.Addr) || !strings.HasPrefix(err.Error(), "broker: ")) {
					t.Errorf("%s gave %v, want %v and %q", what, err, tt.code, tt.text)
				}
				if err != nil && strings.Contains(err.Error(), password) {
					t.Errorf("%s tells the password: %v", what, err)
				}
			}
			if tt.code == 0 {
				in.wait(t, 1)
				_, err := b.Subscribe(t.Context(), "t", in.handle)
				must(t, err)
			}
			if strings.Contains(said.String(), password) {
				t.Errorf("the logger was told the password:\n%s", said)
			}
		})
	}
}

// A file comes before the environment.
func testLoginFromTheEnvironment(t *testing.T, s *testserver.Server) {
	t.Setenv(rabbitmq.EnvUsername, "svc")
	t.Setenv(rabbitmq.EnvPassword, password)
	file := filepath.Join(t.TempDir(), "login")
	must(t, os.WriteFile(file, []byte("guest2:"+password), 0o600))
	for query, want := range map[string]error{"/team%2Fa": nil, "": nil, "?credentials-file=" + file: &status.Error{Code: status.PermissionDenied}} {
		b, err := broker.Openers{"rabbitmq": rabbitmq.Open}.Open(t.Context(), "rabbitmq://"+s.Addr+query)
		must(t, err)
		if _, err := b.Publish(t.Context(), &broker.Message{Topic: "t"}); !errors.Is(err, want) {
			t.Errorf("with %q Publish gave %v, want %v", query, err, want)
		}
		must(t, b.Close())
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := testserver.Certificates(t)
	s := servers.Own(t, "listeners.tcp = none", "listeners.ssl.1 = ADDR", "ssl_options.cacertfile = "+ca, "ssl_options.certfile = "+cert,
		"ssl_options.keyfile = "+key, "ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = true")
	for _, tt := range []struct{ name, query, err string }{
		{"both", "?ca-file=" + ca + "&cert-file=" + cert + "&key-file=" + key, ""},
		{"no authority", "?tls=true", "certificate signed by unknown authority"},
		{"no certificate", "?ca-file=" + ca, "is not answering"},
		{"no TLS", "", "is not answering"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, err := broker.Openers{"rabbitmq": rabbitmq.Open}.Open(t.Context(), "rabbitmq://"+s.Addr+tt.query)
			must(t, err)
			defer b.Close()
			in := newInbox()
			_, err = b.Subscribe(t.Context(), "t", in.handle)
			if tt.err != "" {
				if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("Subscribe gave %v, want %q", err, tt.err)
				}
				return
			}
			must(t, err)
			_, err = b.Publish(t.Context(), &broker.Message{Topic: "t"})
			must(t, err)
			in.wait(t, 1)
		})
	}
}

func TestOpen(t *testing.T) { // not parallel: it sets the environment
	for _, name := range []string{rabbitmq.EnvUsername, rabbitmq.EnvPassword} {
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
		{"rabbitmq", ""},
		{"rabbitmq://", ""},
		{"amqp://h", ""},
		{"rabbitmq://h,i:1/some/vhost?tries=7&exchange=orders&queue-type=quorum", ""},
		{"rabbitmq://[::1]:5672", ""},
		{"rabbitmq://h?credentials-file=" + good, ""},
		{"rabbitmq://h?tls=true", ""},
		{"amqp://svc:s3cret@h:1", "credentials do not belong in a URL: use credentials-file, or RABBITMQ_USERNAME and RABBITMQ_PASSWORD"},
		{"rabbitmq://svc:s3cret@h:1?x=y", "svc:xxxxx@h:1"},
		{"rabbitmq:h:1", "want rabbitmq://host:port/vhost"},
		{"rabbitmq://h#f", "want rabbitmq://host:port/vhost"},
		{"rabbitmq://h,,i", `address ""`},
		{"rabbitmq://h:0", `address "h:0"`},
		{"rabbitmq://h/" + strings.Repeat("v", 256), "a virtual host's name of 256 bytes"},
		{"rabbitmq://h?tries=x", `tries "x" is not a number`},
		{"rabbitmq://h?tries=0", `tries "0" is not a number`},
		{"rabbitmq://h?tries=1001", "1001 tries: want 1 to 1000"},
		{"rabbitmq://h?exchange=a+b", `exchange "a b"`},
		{"rabbitmq://h?exchange=amq.topic", `exchange "amq.topic"`},
		{"rabbitmq://h?queue-type=stream", `queue type "stream": want classic or quorum`},
		{"rabbitmq://h?retries=1", `unknown parameter "retries", rabbitmq takes: exchange, queue-type, tries, credentials-file, tls, ca-file, cert-file, key-file`},
		{"rabbitmq://h?credentials-file=" + filepath.Join(dir, "none"), "credentials file: open"},
		{"rabbitmq://h?credentials-file=" + file("bad", "s3cret\n"), "want one line, name:password"},
		{"rabbitmq://h?tls=maybe", `tls="maybe"`},
		{"rabbitmq://h?ca-file=" + good, "holds no certificate"},
		{"rabbitmq://h?cert-file=" + good, "cert-file and key-file go together"},
	} {
		b, err := broker.Openers{"rabbitmq": rabbitmq.Open, "amqp": rabbitmq.Open}.Open(t.Context(), tt.raw)
		if err == nil {
			must(t, b.Close())
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
	t.Setenv(rabbitmq.EnvUsername, "svc")
	if _, err := rabbitmq.Open(t.Context(), &url.URL{Scheme: "rabbitmq"}); err == nil || !strings.Contains(err.Error(), "is set without the other") {
		t.Errorf("a user without a password gave %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]rabbitmq.Options{
		"an address without a port": {Addrs: []string{"h"}}, "a URL as an address": {Addrs: []string{"amqp://h:1"}},
		"a name alone": {Username: "svc"}, "a user twice": {Username: "svc", Password: "x", CredentialsFile: "y"},
		"a negative timeout": {Timeout: -1}, "negative tries": {Tries: -1}, "a negative limit": {MaxMessage: -1},
	} {
		if b, err := rabbitmq.New(o); err == nil {
			t.Errorf("%s is taken", name)
			_ = b.Close()
		}
	}
}
