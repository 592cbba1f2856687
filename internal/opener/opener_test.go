package opener_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/opener"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	set := opener.Set[string]{
		"mdns": func(_ context.Context, u *url.URL) (string, error) {
			p, err := opener.Params(u, "scope", "at")
			return u.Host + " " + p["scope"] + p["at"], err
		},
		"etcd": func(_ context.Context, u *url.URL) (string, error) { return u.Host, nil },
	}
	for _, tt := range []struct{ raw, want, err string }{
		{"mdns", " ", ""},
		{"mdns?scope=lan", " lan", ""},
		{"mdns?at=a:1", " a:1", ""},
		{"mdns://host?scope=lan", "host lan", ""},
		{"etcd://a:2379", "a:2379", ""},
		{"consul://a", "", "known: etcd, mdns"},
		{"", "", "want one of etcd, mdns"},
		{"mdns?scop=lan", "", `unknown parameter "scop", mdns takes: scope, at`},
		{"mdns?scope=a&scope=b", "", "stands 2 times"},
		{"etcd://user:secret@%zz", "", "not a URL"},
	} {
		got, err := set.Open(t.Context(), tt.raw)
		if tt.err == "" && (err != nil || got != tt.want) {
			t.Errorf("%q: %q, %v; want %q", tt.raw, got, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error tells the password: %v", tt.raw, err)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q: error %v, want %q", tt.raw, err, tt.err)
		}
	}
	if _, err := set.Open(t.Context(), "x://"); !errors.Is(err, opener.ErrUnknown) {
		t.Errorf("unknown scheme: %v", err)
	}
}
