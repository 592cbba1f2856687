package etcd_test

import (
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
)

// shared is the etcd of all tests that leave it running. Each test has a prefix of its own.
var shared = testserver.Shared{Env: "ETCD_ADDR", Missing: testserver.EtcdMissing, Spec: testserver.Etcd()}

// own starts a server for a test, which is stopped at its end.
func own(t *testing.T, flags ...string) *testserver.Server {
	t.Helper()
	s := unstarted(t, flags...)
	s.MustStart(t)
	return s
}

// unstarted gives a server that the test starts.
func unstarted(t *testing.T, flags ...string) *testserver.Server {
	t.Helper()
	if err := testserver.EtcdMissing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	s := testserver.New(t.TempDir(), testserver.Etcd(flags...))
	t.Cleanup(func() { s.Stop("KILL") })
	return s
}
