package dns_test

import (
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/internal/tryout"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/dns"
)

// TestByURL: a service that takes its registry from the environment is found by another program, and by the command, of the same
// URL; and it is gone when it stops.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	t.Setenv(dns.EnvKey, keyName+":hmac-sha256:"+secret)
	tryout.Registry{
		URL:     "dns://" + shared.Addr(t) + "/" + domain() + "?ttl=15s",
		Openers: registry.Openers{"dns": dns.Open},
		Away:    "dns://" + testserver.FreeAddr() + "/" + zone,
	}.Try(t)
}
