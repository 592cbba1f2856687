package registrytest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// childVar makes a test binary a process that registers a node.
const childVar = "REGISTRYTEST_CHILD"

type child struct {
	Args []string
	Node registry.Node
}

// Child is for a TestMain, before anything else. In a process that Spawn started it opens a registry, of what Spawn was given, registers
// the node for an hour, waits for the end of the tests, and exits. In others it does nothing.
func Child(open func(args []string) (registry.Registry, error)) {
	raw := os.Getenv(childVar)
	if raw == "" {
		return
	}
	var c child
	err := json.Unmarshal([]byte(raw), &c)
	if err == nil {
		var r registry.Registry
		if r, err = open(c.Args); err == nil {
			err = r.Register(context.Background(), c.Node, time.Hour)
		}
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// Spawn starts a process that registers a node, and gives what kills it. args are for the function that Child has.
func Spawn(t *testing.T, n registry.Node, args ...string) (kill func()) {
	t.Helper()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	raw, err := json.Marshal(child{args, n})
	fail(err)
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childVar+"="+string(raw))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	fail(err)
	stdout, err := cmd.StdoutPipe()
	fail(err)
	fail(cmd.Start())
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
