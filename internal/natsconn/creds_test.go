package natsconn_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/natsconn"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/status"
)

// TestCredentials: a server in operator mode lets in whom the JWT and the key of a credentials file say, and others are told why not,
// without what the file holds.
func TestCredentials(t *testing.T) {
	t.Parallel()
	config, dir := testserver.NATSOperator(t)
	s := own(t, config)
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		return data
	}
	mixed := filepath.Join(dir, "mixed.creds") // one user's JWT, and another's key
	svc, guest := string(read("svc.creds")), string(read("guest.creds"))
	const keyMark = "-----BEGIN USER NKEY SEED-----"
	must(t, os.WriteFile(mixed, []byte(svc[:strings.Index(svc, keyMark)]+guest[strings.Index(guest, keyMark):]), 0o600))
	for _, tt := range []struct {
		file, subject string
		code          status.Code
		text          string
	}{
		{"svc.creds", "orders", 0, ""},
		{"guest.creds", "free", 0, ""},
		{"guest.creds", "orders", status.PermissionDenied, `it may not publish to "orders"`},
		{"late.creds", "orders", status.Unauthenticated, "late.creds is not let in"},
		{"other.creds", "orders", status.Unauthenticated, "other.creds is not let in"},
		{"mixed.creds", "orders", status.Unauthenticated, "mixed.creds is not let in"},
		{"", "orders", status.Unauthenticated, "it asks for a login"},
	} {
		t.Run(tt.file+" "+tt.subject, func(t *testing.T) {
			t.Parallel()
			o := natsconn.Options{}
			if tt.file != "" {
				o.CredentialsFile = filepath.Join(dir, tt.file)
			}
			err := open(t, o, s.Addr).Publish(t.Context(), messages(tt.subject)...)
			switch {
			case tt.code == 0:
				must(t, err)
			case !errors.Is(err, &status.Error{Code: tt.code}) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), s.Addr):
				t.Errorf("Publish gave %v, want %v and %q", err, tt.code, tt.text)
			case strings.Contains(err.Error(), "eyJ"), strings.Contains(err.Error(), "SU"):
				t.Errorf("the error tells of the login: %v", err)
			}
		})
	}
}

// TestRenewedCredentials: the file is read at each connection, as tools renew it.
func TestRenewedCredentials(t *testing.T) {
	t.Parallel()
	config, dir := testserver.NATSOperator(t)
	s := own(t, config)
	file := filepath.Join(t.TempDir(), "user.creds")
	use := func(name string) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		must(t, os.WriteFile(file, data, 0o600))
	}
	use("guest.creds")
	u, err := url.Parse("nats://" + s.Addr + "?credentials-file=" + file)
	must(t, err)
	o, _, err := natsconn.Parse(u, words)
	must(t, err)
	up := make(chan struct{}, 10)
	o.Up = func(*nats.Conn) { up <- struct{}{} }
	c := open(t, o, s.Addr)
	if err := c.Publish(t.Context(), messages("orders")...); !errors.Is(err, &status.Error{Code: status.PermissionDenied}) {
		t.Errorf("the guest's Publish gave %v", err)
	}
	<-up
	use("svc.creds")
	s.Stop("KILL")
	s.MustStart(t)
	<-up
	must(t, c.Publish(t.Context(), messages("orders")...))
}
