package opener_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/opener"
)

func TestRedacted(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"etcd":                                   "etcd",
		"default?scope=lan":                      "default?scope=lan",
		"etcd://a:1,b:2/prefix?ttl=5s":           "etcd://a:1,b:2/prefix?ttl=5s",
		"etcd://u:pa55@a:1":                      "etcd://u:xxxxx@a:1",
		"etcd://u:pa55@a:1,b:2":                  "etcd://u:xxxxx@a:1,b:2",
		"nats://pa55@a:1":                        "nats://xxxxx@a:1",
		"nats://pa55:@a:1":                       "nats://xxxxx@a:1",
		"etcd://u:pa55@a:port":                   "etcd://u:xxxxx@a:port",
		"etcd://u:pa%zz55@a":                     "etcd://u:xxxxx@a",
		"etcd://u:pa 55@a":                       "etcd://u:xxxxx@a",
		"etcd://u:pa/55@a":                       "etcd://u:xxxxx@a",
		"etcd://u:55/pa55@a":                     "etcd://u:xxxxx@a",
		"etcd://u:pa#55@a":                       "etcd://u:xxxxx@a",
		"etcd://u:pa?55@a":                       "etcd://u:xxxxx@a",
		"etcd://u:55?pa55@a":                     "etcd://u:xxxxx@a",
		"etcd://u:pa@55@a?ttl=5s":                "etcd://u:xxxxx@a?ttl=5s",
		"etcd:u:pa55@a":                          "etcd:u:xxxxx@a",
		"u:pa55@a":                               "u:xxxxx@a",
		"pa55@a:1":                               "xxxxx@a:1",
		"etcd://a?password=pa55&ttl=5s":          "etcd://a?password=xxxxx&ttl=5s",
		"nats://a?ttl=5s&Auth-Token=pa55":        "nats://a?ttl=5s&Auth-Token=xxxxx",
		"nats://a?token-file=/home/u@x/token":    "nats://a?token-file=/home/u@x/token",
		"nats://a?ttl=5s&key-file=/home/u@x/key": "nats://a?ttl=5s&key-file=/home/u@x/key",
	} {
		got := opener.RedactedText(raw)
		if got != want {
			t.Errorf("%q is shown as %q, want %q", raw, got, want)
		}
		if u, err := url.Parse(raw); err == nil && strings.Contains(opener.Redacted(u), "pa55") {
			t.Errorf("%q, parsed, is shown as %q", raw, opener.Redacted(u))
		}
	}
}

// A password with characters that do not belong in a URL is told in no part by the error that says so.
func TestOpenTellsNoPassword(t *testing.T) {
	t.Parallel()
	set := opener.Set[string]{"etcd": func(_ context.Context, u *url.URL) (string, error) {
		_, err := opener.Params(u, "ttl")
		return u.Host, err
	}}
	for _, raw := range []string{"etcd://u:pa55/b@a", "etcd://u:pa55%zz@a", "etcd://u:pa55 @a", "etcd://u:b@a:pa55?x=u@", "etcd://pa55@a?x=1", "etcd://a?password=pa55"} {
		if _, err := set.Open(t.Context(), raw); err == nil || strings.Contains(err.Error(), "pa55") {
			t.Errorf("%q: %v", raw, err)
		}
	}
}
