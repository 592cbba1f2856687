package rabbitmq_test

import (
	"flag"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/rabbitmq"
)

var servers = testserver.NewRabbitMQ()

func TestMain(m *testing.M) { goleak.VerifyTestMain(stopping{m}) }

// stopping stops the shared server when the tests have run.
type stopping struct{ *testing.M }

func (m stopping) Run() int {
	defer servers.Stop()
	// The tests wait for servers, and for time to pass, more than they compute: as many as processors at a time would take minutes.
	if !flag.Parsed() {
		flag.Parse()
	}
	_ = flag.Set("test.parallel", "16")
	return m.M.Run()
}

const wait = 30 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var exchanges atomic.Int64

// own gives Options for an exchange that no other test has.
func own(t testing.TB, addr string) rabbitmq.Options {
	t.Helper()
	return rabbitmq.Options{Addrs: []string{addr}, Exchange: fmt.Sprintf("test-%d-%d", time.Now().UnixNano(), exchanges.Add(1))}
}

// open gives a broker, which is closed at the end of the test.
func open(t testing.TB, o rabbitmq.Options) *rabbitmq.Broker {
	t.Helper()
	b, err := rabbitmq.New(o)
	must(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestConformance(t *testing.T) {
	brokertest.Run(t, harness(rabbitmq.Classic))
}

func TestConformanceOfQuorumQueues(t *testing.T) {
	brokertest.Run(t, harness(rabbitmq.Quorum))
}

func TestKilledServer(t *testing.T) {
	t.Parallel()
	brokertest.RunServer(t, ofServer(rabbitmq.Classic))
}

func TestKilledServerOfQuorumQueues(t *testing.T) {
	t.Parallel()
	brokertest.RunServer(t, ofServer(rabbitmq.Quorum))
}

var can = brokertest.Capabilities{Several: true, Keeps: true, Redelivers: true, Tries: 5}

func harness(queueType string) brokertest.Harness {
	return brokertest.Harness{
		New: func(t *testing.T) func() broker.Broker {
			o := own(t, servers.Addr(t))
			o.QueueType = queueType
			return func() broker.Broker { return open(t, o) }
		},
		Can: can,
	}
}

func ofServer(queueType string) brokertest.Harness {
	return brokertest.Harness{
		Server: func(t *testing.T) brokertest.Server {
			s := servers.Lend(t)
			o := own(t, s.Addr)
			o.QueueType = queueType
			return brokertest.Server{
				Open:  func() broker.Broker { return open(t, o) },
				Kill:  func() { s.Stop("KILL") },
				Start: func() { s.MustStart(t) },
			}
		},
		Can: can,
	}
}
