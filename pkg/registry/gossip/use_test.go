package gossip_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/internal/tryout"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/gossip"
)

// TestByURL: a service that takes its registry from the environment is found by another program, and by the command, of the same
// URL, at the first answer; and it is gone when it stops.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	setKey := func(key string) { t.Setenv(gossip.EnvKey, base64.StdEncoding.EncodeToString([]byte(key))) }
	setKey(rightKey)
	tryout.Registry{
		URL:     "gossip://" + testserver.FreeAddr(),
		Openers: registry.Openers{"gossip": gossip.Open},
		While: func() {
			setKey(wrongKey)
			defer setKey(rightKey)
			if out := tryout.Command(t, "list", "nodes"); !strings.Contains(out, "its members have another key") || strings.Contains(out, "wrong-key") {
				t.Errorf("with another key micro list nodes printed %q", out)
			}
		},
	}.Try(t)
}
