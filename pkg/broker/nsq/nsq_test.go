package nsq_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/nsq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var can = brokertest.Capabilities{Several: true, Keeps: true, Redelivers: true, Tries: 4}

// quick are options for tests, which do not wait long for a message to come again.
func quick(servers ...string) nsq.Options {
	return nsq.Options{Servers: servers, Tries: 4, RetryWait: 20 * time.Millisecond, AckWait: 2 * time.Second}
}

func TestBroker(t *testing.T) {
	brokertest.Run(t, brokertest.Harness{
		Can: can,
		New: func(t *testing.T) func() broker.Broker {
			d := startNSQD(t, config{})
			return func() broker.Broker { return open(t, quick(d.addr)) }
		},
		Server: func(t *testing.T) brokertest.Server {
			d := startNSQD(t, config{})
			return brokertest.Server{Open: func() broker.Broker { return open(t, quick(d.addr)) }, Kill: d.kill, Start: func() { d.start(t) }}
		},
	})
}

// TestDiscovered is the suite with several nsqd's, which are found by lookupd beside one that is named.
func TestDiscovered(t *testing.T) {
	brokertest.Run(t, brokertest.Harness{
		Can: can,
		New: func(t *testing.T) func() broker.Broker {
			first, second := startNSQD(t, config{}), startNSQD(t, config{clock: time.Hour})
			o := quick(first.addr)
			o.Lookupd, o.LookupInterval = []string{lookupd(t, first, second)}, 50*time.Millisecond
			return func() broker.Broker { return open(t, o) }
		},
	})
}

// TestNSQD is the suite with the nsqd that NSQD names. It is stopped as its tools do: one that is killed loses what it had in memory.
func TestNSQD(t *testing.T) {
	binary := os.Getenv("NSQD")
	if binary == "" {
		t.Skip("NSQD names no nsqd")
	}
	spec := func(flags ...string) testserver.Spec {
		return testserver.Spec{Ready: testserver.Listening, Command: func(s *testserver.Server) (argv, env []string) {
			data := filepath.Join(s.Dir, "data")
			_ = os.MkdirAll(data, 0o700)
			return append([]string{binary, "--tcp-address=" + s.Addr, "--http-address=127.0.0.1:0", "--data-path=" + data, "--max-msg-size=8388608",
				"--max-body-size=16777216", "--broadcast-address=127.0.0.1"}, flags...), nil
		}}
	}
	brokertest.Run(t, brokertest.Harness{
		Can: can,
		New: func(t *testing.T) func() broker.Broker {
			d := testserver.Own(t, spec())
			return func() broker.Broker { return open(t, quick(d.Addr)) }
		},
		Server: func(t *testing.T) brokertest.Server {
			d := testserver.Own(t, spec())
			return brokertest.Server{Open: func() broker.Broker { return open(t, quick(d.Addr)) }, Kill: func() { d.Stop("TERM") }, Start: func() { d.MustStart(t) }}
		},
	})
}

// open makes a broker until the end of the test.
func open(t testing.TB, o nsq.Options) *nsq.Broker {
	t.Helper()
	b, err := nsq.New(o)
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
