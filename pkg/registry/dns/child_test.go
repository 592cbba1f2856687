package dns_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry/dns"
)

// childRole is the environment variable that makes the test binary a process that registers a node: the nameserver's address, the domain and the
// node's id.
const childRole = "DNS_TEST_CHILD"

func childMain() int {
	args := strings.Fields(os.Getenv(childRole))
	r, err := dns.New(dns.Options{Servers: args[:1], Zone: args[1], Key: key, TTL: 3 * time.Second})
	if err == nil {
		err = r.Register(context.Background(), node(args[2]), time.Hour)
	}
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // the end of the tests
	return 0
}

// spawn starts a process that registers a node, and gives what kills it.
func spawn(t *testing.T, addr, domain, id string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childRole+"="+addr+" "+domain+" "+id)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	kill = func() {
		_ = cmd.Process.Kill()
		_ = stdin.Close()
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("the process said %q, %v", line, err)
	}
	return kill
}
