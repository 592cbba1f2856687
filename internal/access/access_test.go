package access_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/access"
)

const secret = "s3cret-word"

func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func check(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s gave %v, want %q", what, err, want)
	case err != nil && strings.Contains(err.Error(), secret):
		t.Errorf("%s tells the secret: %v", what, err)
	}
}

func TestLogin(t *testing.T) {
	for _, tt := range []struct{ name, file, user, password, want, err string }{
		{name: "none"},
		{name: "of the environment", user: "svc", password: secret, want: "svc " + secret},
		{name: "of a file, before the environment", file: "a:b:c d\r\n", user: "svc", password: secret, want: "a b:c d"},
		{name: "half", user: "svc", err: "one of U and P is set without the other"},
		{name: "no name", file: ":" + secret, err: "want one line, name:password"},
		{name: "no colon", file: secret, err: "want one line, name:password"},
		{name: "two lines", file: "a:b\nc:" + secret, err: "want one line, name:password"},
	} {
		t.Setenv("U", tt.user)
		t.Setenv("P", tt.password)
		params := map[string]string{}
		if tt.file != "" {
			params[access.ParamCredentials] = file(t, tt.file)
		}
		user, password, err := access.Login(params, "U", "P")
		if check(t, tt.name, err, tt.err); strings.TrimSpace(user+" "+password) != tt.want {
			t.Errorf("%s: got %q %q", tt.name, user, password)
		}
	}
	_, _, err := access.ReadLogin(filepath.Join(t.TempDir(), "none"))
	check(t, "no file", err, "no such file")
}

func TestToken(t *testing.T) {
	for _, tt := range []struct{ name, file, env, want, err string }{
		{name: "none"},
		{name: "of the environment", env: secret, want: secret},
		{name: "of a file, before the environment", file: "a b\n", env: secret, want: "a b"},
		{name: "two lines in the environment", env: secret + "\n" + secret, err: "E holds more than one line"},
		{name: "empty", file: "\n", err: "want one line, the token"},
		{name: "two lines", file: "a\n" + secret, err: "want one line, the token"},
	} {
		t.Setenv("E", tt.env)
		params := map[string]string{}
		if tt.file != "" {
			params[access.ParamToken] = file(t, tt.file)
		}
		token, err := access.Token(params, "E")
		if check(t, tt.name, err, tt.err); token != tt.want {
			t.Errorf("%s: got %q", tt.name, token)
		}
	}
}

func TestTLS(t *testing.T) {
	text := file(t, secret)
	for _, tt := range []struct {
		params map[string]string
		on     bool
		err    string
	}{
		{nil, false, ""},
		{map[string]string{"tls": "false"}, false, ""},
		{map[string]string{"tls": "true"}, true, ""},
		{map[string]string{"tls": "maybe"}, false, `tls="maybe"`},
		{map[string]string{"tls": "false", "ca-file": text}, false, `tls="false"`},
		{map[string]string{"ca-file": text}, false, "holds no certificate"},
		{map[string]string{"ca-file": text + "x"}, false, "ca-file: open"},
		{map[string]string{"cert-file": text}, false, "cert-file and key-file go together"},
		{map[string]string{"cert-file": text, "key-file": text}, false, "cert-file, key-file: "},
	} {
		config, err := access.TLS(tt.params)
		check(t, strings.Join([]string{"TLS", tt.params["tls"]}, " "), err, tt.err)
		if err == nil && (config != nil) != tt.on {
			t.Errorf("%v: %v", tt.params, config)
		}
	}
}

// TestCompleteLogin: a login is given whole, in one way.
func TestCompleteLogin(t *testing.T) {
	for _, tt := range []struct{ name, user, password, file, want, err string }{
		{name: "none", want: ":"},
		{name: "given", user: "svc", password: secret, want: "svc:" + secret},
		{name: "of a file", file: file(t, "a:"+secret+"\n"), want: "a:" + secret},
		{name: "a user alone", user: "svc", err: "a user needs a name and a password"},
		{name: "a password alone", password: secret, err: "a user needs a name and a password"},
		{name: "a user and a file", user: "svc", file: "any", err: "both a user and a credentials file are given"},
		{name: "a password and a file", password: secret, file: "any", err: "both a user and a credentials file are given"},
		{name: "a file that is not there", file: filepath.Join(t.TempDir(), "none"), err: "credentials file: "},
	} {
		user, password := tt.user, tt.password
		err := access.CompleteLogin(&user, &password, tt.file)
		check(t, tt.name, err, tt.err)
		if err == nil && user+":"+password != tt.want {
			t.Errorf("%s gave %q", tt.name, user+":"+password)
		}
	}
}
