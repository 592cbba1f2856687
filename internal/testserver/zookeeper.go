package testserver

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// zookeeperJar is the server, as Debian's zookeeper has it; its manifest names what it needs.
const zookeeperJar = "/usr/share/java/zookeeper.jar"

// ZooKeeper says how a ZooKeeper is run, with lines of configuration beside those that every one has.
func ZooKeeper(lines ...string) Spec {
	return Spec{
		Command: func(s *Server) (argv, env []string) {
			host, port, _ := net.SplitHostPort(s.Listen)
			config := append([]string{
				"dataDir=" + filepath.Join(s.Dir, "data"), "clientPort=" + port, "clientPortAddress=" + host, "tickTime=500", "initLimit=20", "syncLimit=10",
				"minSessionTimeout=1000", "maxSessionTimeout=60000", "maxClientCnxns=0", "admin.enableServer=false", "4lw.commands.whitelist=*",
			}, lines...)
			_ = os.MkdirAll(filepath.Join(s.Dir, "data"), 0o700)
			file := filepath.Join(s.Dir, "zoo.cfg")
			_ = os.WriteFile(file, []byte(strings.Join(config, "\n")+"\n"), 0o600)
			return []string{
				"java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.forceSync=no", "-Dznode.container.checkIntervalMs=200",
				"-cp", zookeeperJar + ":/usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar:/usr/share/java/slf4j-simple.jar", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
				"org.apache.zookeeper.server.quorum.QuorumPeerMain", file,
			}, nil
		},
		Ready: func(s *Server) bool { return strings.Contains(ZooKeeperWord(s.Addr, "srvr"), "Mode:") },
		Taken: "Address already in use",
	}
}

// ZooKeeperMissing says what lacks to run a ZooKeeper.
func ZooKeeperMissing() error {
	_, err := exec.LookPath("java")
	if _, there := os.Stat(zookeeperJar); err != nil || there != nil {
		return errors.New("no ZooKeeper: install Debian's zookeeper")
	}
	return nil
}

// ZooKeeperWord asks a server by a word of four letters.
func ZooKeeperWord(addr, what string) string {
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
