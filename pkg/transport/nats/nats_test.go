package nats_test

import (
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/nats"
	"github.com/cb02dfca/micro/pkg/transport/transporttest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childRole) != "" {
		os.Exit(childMain())
	}
	goleak.VerifyTestMain(stopping{m})
}

// stopping stops the shared server when the tests have run.
type stopping struct{ *testing.M }

func (m stopping) Run() int {
	defer shared.Stop()
	return m.M.Run()
}

const wait = 15 * time.Second

// shared is the NATS of all tests that leave it running.
var shared = testserver.Shared{Env: "NATS_ADDR", Missing: testserver.NATSMissing, Spec: testserver.NATS()}

// own starts a server for a test, which is stopped at its end.
func own(t *testing.T, config ...string) *testserver.Server {
	t.Helper()
	if err := testserver.NATSMissing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	return testserver.Own(t, testserver.NATS(config...))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open gives a transport, which is closed at the end of the test.
func open(t testing.TB, o nats.Options) *nats.Transport {
	t.Helper()
	tr, err := nats.New(o)
	must(t, err)
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

// apart is two transports in one: one that dials and one that listens, as two processes have them.
type apart struct{ dial, listen *nats.Transport }

func (a apart) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	return a.dial.Dial(ctx, addr)
}

func (a apart) Listen(ctx context.Context, addr string) (transport.Listener, error) {
	return a.listen.Listen(ctx, addr)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		return transporttest.Harness{Transport: open(t, nats.Options{Servers: []string{shared.Addr(t)}})}
	})
}

func TestConformanceOfTwo(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		o := nats.Options{Servers: []string{shared.Addr(t)}}
		return transporttest.Harness{Transport: apart{open(t, o), open(t, o)}}
	})
}

// A NATS that takes but small messages carries large ones all the same.
func TestConformanceOfSmallPayload(t *testing.T) {
	t.Parallel()
	s := own(t, "max_payload: 2048")
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		return transporttest.Harness{Transport: open(t, nats.Options{Servers: []string{s.Addr}, MaxMessage: 300_000}), MaxMessage: 300_000}
	})
}
