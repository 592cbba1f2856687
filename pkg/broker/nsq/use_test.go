package nsq_test

import (
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/internal/tryout"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/nsq"
)

// TestByURL: a service that takes its broker from the environment hears from another program, and from the command, of the same
// URL; and it finds what came while it was away.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	d := startNSQD(t, config{secrets: map[string]string{secret: ""}})
	t.Setenv(nsq.EnvSecret, secret)
	tryout.Broker{URL: "nsq://" + d.addr, Openers: broker.Openers{"nsq": nsq.Open}}.Try(t)

	if out := tryout.Command(t, "publish", "notes", "text=x", "--broker", "nsq://"+testserver.FreeAddr()); !strings.Contains(out, "error: broker ") ||
		!strings.Contains(out, " is not answering: connection refused\n") {
		t.Errorf("without nsqd micro publish printed %q", out)
	}
	t.Setenv(nsq.EnvSecret, "wrong-"+secret)
	if out := tryout.Command(t, "publish", "notes", "text=x"); !strings.Contains(out, "the secret is not let in") || strings.Contains(out, secret) {
		t.Errorf("with a wrong secret micro publish printed %q", out)
	}
}
