package testserver

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// NATS says how a NATS server is run, of the version that servers/nats names. config is added to its configuration, in its own
// language:
//
//	jetstream: {store_dir: "DIR"}                                streams, below the server's own Dir
//	authorization: {user: svc, password: "secret"}               a login; or {token: "secret"}
//	tls: {cert_file: "F", key_file: "F", ca_file: "F", verify: true}
//	max_payload: 8MB
//
// DIR stands for the server's Dir. CI builds the server; where it cannot be built tests skip by [NATSMissing].
func NATS(config ...string) Spec {
	return Spec{
		Command: func(s *Server) (argv, env []string) {
			binary, _ := Build("nats", natsTarget) // the error is NATSMissing's
			lines := append([]string{fmt.Sprintf("listen: %q", s.Listen), "max_payload: 8MB", "write_deadline: 2s"}, config...)
			text := strings.ReplaceAll(strings.Join(lines, "\n")+"\n", "DIR", s.Dir)
			file := filepath.Join(s.Dir, "nats.conf")
			_ = os.WriteFile(file, []byte(text), 0o600) // the server says that it lacks
			return []string{binary, "-c", file}, nil
		},
		// It listens before JetStream is ready, and says so when all is.
		Ready: func(s *Server) bool { return strings.Contains(s.Log(), "Server is ready") && Listening(s) },
	}
}

const natsTarget = "github.com/nats-io/nats-server/v2"

// NATSMissing says what lacks to run a NATS server. It builds one, which takes a minute the first time.
func NATSMissing() error {
	if _, err := Build("nats", natsTarget); err != nil {
		return fmt.Errorf("no NATS server: %w", err)
	}
	return nil
}

// NATSOperator makes an operator, an account and its users. It gives what is to be in the configuration of a server that then takes
// those alone, and a folder with their credentials: svc.creds may do all, guest.creds publishes and subscribes to "free" alone, late.creds
// has expired, and other.creds is of an account that the server does not know.
func NATSOperator(t testing.TB) (config, dir string) {
	t.Helper()
	if err := NATSMissing(); err != nil {
		Skip(t, err.Error())
	}
	binary, err := Build("nats", "./operator")
	if err != nil {
		Skip(t, err.Error())
	}
	dir = t.TempDir()
	if said, err := exec.Command(binary, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	text, err := os.ReadFile(filepath.Join(dir, "operator.conf"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text), dir
}

// NATSCluster starts a cluster of n servers for a test, which are killed at its end. They have streams, and config beside; the name of
// a server is its address.
func NATSCluster(t testing.TB, n int, config ...string) []*Server {
	t.Helper()
	if err := NATSMissing(); err != nil {
		Skip(t, err.Error())
	}
	routes, quoted := make([]string, n), make([]string, n)
	for i := range n {
		routes[i] = FreeAddr()
		quoted[i] = strconv.Quote("nats://" + routes[i])
	}
	servers := make([]*Server, n)
	for i := range n {
		s := New(t.TempDir(), Spec{})
		s.spec = NATS(append([]string{
			fmt.Sprintf("server_name: %q", s.Addr), `jetstream: {store_dir: "DIR/streams"}`,
			fmt.Sprintf("cluster: {name: test, listen: %q, routes: [%s]}", routes[i], strings.Join(quoted, ", ")),
		}, config...)...)
		s.spec.Taken = "address already in use"
		t.Cleanup(func() { s.Stop("KILL") })
		servers[i] = s
	}
	var starting sync.WaitGroup
	errs := make([]error, n)
	for i, s := range servers { // they wait for each other
		starting.Go(func() { errs[i] = s.Start() })
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		awaitMembers(t, s, n)
	}
	return servers
}

// awaitMembers waits until s has routes to a cluster of n: it is ready before, and keeps till then to itself what its clients say.
func awaitMembers(t testing.TB, s *Server, n int) {
	t.Helper()
	var members []string
	var err error
	for end := time.Now().Add(startTime); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if members, err = natsMembers(s.Addr); len(members) >= n {
			return
		}
	}
	t.Fatalf("the NATS server at %s knows %d members of its cluster %v, want %d (%v)\n%s", s.Addr, len(members), members, n, err, s.Log())
}

// natsMembers asks a server for the addresses of its cluster, its own among them: it names them to everybody who connects.
func natsMembers(addr string) ([]string, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // it fails on closed connections alone
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return nil, err
	}
	var info struct {
		Members []string `json:"connect_urls"`
	}
	err = json.Unmarshal([]byte(strings.TrimPrefix(line, "INFO ")), &info)
	return info.Members, err
}
