package nats_test

import (
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
)

// shared is the NATS of all tests that leave it running. Each test has a prefix of its own.
var shared = testserver.Shared{Env: "NATS_ADDR", Missing: testserver.NATSMissing, Spec: testserver.NATS()}

// own starts a server for a test, which is stopped at its end.
func own(t *testing.T, config ...string) *testserver.Server {
	t.Helper()
	s := unstarted(t, config...)
	s.MustStart(t)
	return s
}

// unstarted gives a server that the test starts.
func unstarted(t *testing.T, config ...string) *testserver.Server {
	t.Helper()
	if err := testserver.NATSMissing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	s := testserver.New(t.TempDir(), testserver.NATS(config...))
	t.Cleanup(func() { s.Stop("KILL") })
	return s
}
