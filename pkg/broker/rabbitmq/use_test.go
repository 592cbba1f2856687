package rabbitmq_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/internal/tryout"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/rabbitmq"
	"github.com/cb02dfca/micro/pkg/micro"
)

// TestByURL: a service that takes its broker from the environment hears from another program, and from the command, of the same
// URL; and it finds what came while it was away.
func TestByURL(t *testing.T) { // not parallel: it sets the environment
	tryout.Broker{
		URL:     fmt.Sprintf("rabbitmq://%s?exchange=test-%d", servers.Addr(t), time.Now().UnixNano()),
		Openers: broker.Openers{"rabbitmq": rabbitmq.Open},
	}.Try(t)
	if out := tryout.Command(t, "publish", "nobody", "text=x", "--require-subscriber"); !strings.Contains(out, "error: ") {
		t.Errorf("to nobody micro publish printed %q", out)
	}

	t.Setenv(micro.EnvBroker, "amqp://"+testserver.FreeAddr())
	if out := tryout.Command(t, "publish", "notes", "text=x"); !strings.Contains(out, "error: broker amqp://127.0.0.1:") || !strings.Contains(out, " is not answering: connection refused\n") {
		t.Errorf("without RabbitMQ micro publish printed %q", out)
	}
	t.Setenv(micro.EnvBroker, "rabbitmq://"+servers.Addr(t))
	t.Setenv(rabbitmq.EnvUsername, "svc")
	t.Setenv(rabbitmq.EnvPassword, password)
	if out := tryout.Command(t, "publish", "notes", "text=x"); !strings.Contains(out, `401 Unauthorized: user "svc": wrong name or password`) || strings.Contains(out, password) {
		t.Errorf("with a wrong password micro publish printed %q", out)
	}
}
