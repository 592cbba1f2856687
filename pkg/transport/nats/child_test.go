package nats_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/nats"
)

// childRole is the environment variable that makes the test binary a process that echoes calls: NATS's address.
const childRole = "NATS_TEST_ECHO"

func childMain() int {
	t, err := nats.New(nats.Options{Servers: []string{os.Getenv(childRole)}})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	l, err := t.Listen(context.Background(), "")
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println(l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go echo(c)
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin) // the end of the tests
	return 0
}

func echo(c transport.Conn) {
	for {
		var m transport.Message
		if c.Recv(context.Background(), &m) != nil {
			return
		}
		if m.Kind == transport.Call {
			_ = c.Send(context.Background(), &transport.Message{Kind: transport.Reply, ID: m.ID, Header: m.Header, Body: m.Body})
		}
	}
}

// spawn starts a process that echoes calls, and gives its subject and what kills it.
func spawn(t *testing.T, addr string) (subject string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childRole+"="+addr)
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
	if err != nil || !strings.HasPrefix(line, "_INBOX.") {
		t.Fatalf("the process said %q, %v", line, err)
	}
	return strings.TrimSpace(line), kill
}
