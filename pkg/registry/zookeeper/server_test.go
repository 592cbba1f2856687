package zookeeper_test

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
)

// jar is the server, as Debian's zookeeper has it; its manifest names what it needs.
const jar = "/usr/share/java/zookeeper.jar"

// missing says what lacks to run a ZooKeeper.
func missing() error {
	_, err := exec.LookPath("java")
	if _, there := os.Stat(jar); err != nil || there != nil {
		return errors.New("no ZooKeeper: install Debian's zookeeper")
	}
	return nil
}

// shared is the ZooKeeper of all tests that leave it running. Each test has a prefix of its own.
var shared = testserver.Shared{Env: "ZK_ADDR", Missing: missing, Spec: spec()}

// spec runs a ZooKeeper with lines of configuration beside those that every one has.
func spec(lines ...string) testserver.Spec {
	return testserver.Spec{
		Command: func(s *testserver.Server) (argv, env []string) {
			host, port, _ := net.SplitHostPort(s.Addr)
			config := append([]string{
				"dataDir=" + filepath.Join(s.Dir, "data"), "clientPort=" + port, "clientPortAddress=" + host, "tickTime=500", "initLimit=20", "syncLimit=10",
				"minSessionTimeout=1000", "maxSessionTimeout=60000", "maxClientCnxns=0", "admin.enableServer=false", "4lw.commands.whitelist=*",
			}, lines...)
			_ = os.MkdirAll(filepath.Join(s.Dir, "data"), 0o700)
			file := filepath.Join(s.Dir, "zoo.cfg")
			_ = os.WriteFile(file, []byte(strings.Join(config, "\n")+"\n"), 0o600)
			return []string{
				"java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.forceSync=no", "-Dznode.container.checkIntervalMs=200",
				"-cp", jar + ":/usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar:/usr/share/java/slf4j-simple.jar", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
				"org.apache.zookeeper.server.quorum.QuorumPeerMain", file,
			}, nil
		},
		Ready: func(s *testserver.Server) bool { return strings.Contains(word(s.Addr, "srvr"), "Mode:") },
		Taken: "Address already in use",
	}
}

// word asks a server by a word of four letters.
func word(addr, what string) string {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.WriteString(c, what)
	said, _ := io.ReadAll(c)
	return string(said)
}

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
	if err := missing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	s := testserver.New(t.TempDir(), spec(lines...))
	t.Cleanup(func() { s.Stop("KILL") })
	return s
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
