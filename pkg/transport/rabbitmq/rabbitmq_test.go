package rabbitmq_test

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/transport/rabbitmq"
	"github.com/cb02dfca/micro/pkg/transport/transporttest"
)

var servers = testserver.NewRabbitMQ()

func TestMain(m *testing.M) {
	if os.Getenv(childRole) != "" {
		os.Exit(childMain())
	}
	goleak.VerifyTestMain(stopping{m})
}

// stopping stops the shared server when the tests have run.
type stopping struct{ *testing.M }

func (m stopping) Run() int {
	defer servers.Stop()
	return m.M.Run()
}

const wait = 30 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open gives a transport, which is closed at the end of the test.
func open(t testing.TB, o rabbitmq.Options) *rabbitmq.Transport {
	t.Helper()
	tr, err := rabbitmq.New(o)
	must(t, err)
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

func TestConformance(t *testing.T) {
	t.Parallel()
	addr := servers.Addr(t)
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		return transporttest.Harness{Transport: open(t, rabbitmq.Options{Addrs: []string{addr}})}
	})
}
