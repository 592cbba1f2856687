package nats_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/nats"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { shared.Stop(); os.Exit(code) }))
}

const (
	password = "s3cret-word"
	accounts = 200 // of the shared server
)

// shared is the server of all tests that leave it running. Each test has an account of its own, in which it is alone.
var shared = testserver.Shared{Missing: testserver.NATSMissing, Spec: testserver.NATS(withStreams, manyAccounts())}

const withStreams = `jetstream: {store_dir: "DIR/streams"}`

func manyAccounts() string {
	var b strings.Builder
	b.WriteString("accounts: {\n")
	for i := range accounts {
		fmt.Fprintf(&b, "a%d: {jetstream: enabled, users: [{user: u%d, password: %q}]}\n", i, i, password)
	}
	b.WriteString("}")
	return b.String()
}

var lastAccount atomic.Int64

// account gives options for an account of the shared server that no other test has.
func account(t testing.TB) nats.Options {
	t.Helper()
	addr := shared.Addr(t)
	n := lastAccount.Add(1) - 1
	if n >= accounts {
		t.Fatal("more tests than accounts")
	}
	return nats.Options{Servers: []string{addr}, Username: fmt.Sprint("u", n), Password: password}
}

// own starts a server for a test.
func own(t *testing.T, config ...string) *testserver.Server {
	t.Helper()
	if err := testserver.NATSMissing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	return testserver.Own(t, testserver.NATS(config...))
}

// open makes a broker until the end of the test.
func open(t testing.TB, o nats.Options) *nats.Broker {
	t.Helper()
	b, err := nats.New(o)
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

// second gives an error that comes with a value.
func second[T any](_ T, err error) error { return err }

// journal is what a logger was told.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

var _ broker.Broker = (*nats.Broker)(nil)
