package zookeeper_test

import (
	"net"
	"testing"

	"github.com/cb02dfca/micro/internal/testserver"
)

// shared is the ZooKeeper of all tests that leave it running. Each test has a prefix of its own.
var shared = testserver.Shared{Env: "ZK_ADDR", Missing: testserver.ZooKeeperMissing, Spec: testserver.ZooKeeper()}

// word asks a server by a word of four letters.
var word = testserver.ZooKeeperWord

// own starts a server for a test, which is stopped at its end.
func own(t *testing.T, lines ...string) *testserver.Server {
	t.Helper()
	s := unstarted(t, lines...)
	s.MustStart(t)
	return s
}

// unstarted gives a server that the test starts.
func unstarted(t *testing.T, lines ...string) *testserver.Server {
	t.Helper()
	if err := testserver.ZooKeeperMissing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	s := testserver.New(t.TempDir(), testserver.ZooKeeper(lines...))
	t.Cleanup(func() { s.Stop("KILL") })
	return s
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
