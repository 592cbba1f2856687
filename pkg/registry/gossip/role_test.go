package gossip_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/gossip"
)

// roleVar makes the test binary play another process, with its role as JSON.
const roleVar = "GOSSIP_TEST_ROLE"

// role is a process that registers nodes, if any, and writes the ids of each set that it sees, a line each.
type role struct {
	URL   string
	Nodes []registry.Node
}

// play does what the role says until stdin is closed.
func play(raw string) error {
	var p role
	if err := json.Unmarshal([]byte(raw), &p); err != nil {
		return err
	}
	u, err := url.Parse(p.URL)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := gossip.Open(ctx, u)
	if err != nil {
		return err
	}
	defer r.Close()
	for _, n := range p.Nodes {
		if err := r.Register(ctx, n, 0); err != nil {
			return err
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	for nodes, err := range r.Watch(ctx, "") {
		fmt.Println("set", strings.Join(names(nodes), " "), err)
	}
	return nil
}

// process is one that plays a role.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.Closer
	lines  chan string
	stderr bytes.Buffer
	ended  bool
}

// start starts a process, by run, which is given what is to be run. It is killed at the end of the test.
func start(t *testing.T, p role, run func(func() error)) *process {
	t.Helper()
	raw, err := json.Marshal(p)
	must(t, err)
	proc := &process{t: t, cmd: exec.Command(os.Args[0], "-test.run=^$"), lines: make(chan string, 10000)}
	proc.cmd.Env = append(os.Environ(), roleVar+"="+string(raw))
	proc.cmd.Stderr = &proc.stderr
	proc.stdin, err = proc.cmd.StdinPipe()
	must(t, err)
	out, err := proc.cmd.StdoutPipe()
	must(t, err)
	run(proc.cmd.Start)
	go func() { // it ends with the process
		defer close(proc.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			proc.lines <- scan.Text()
		}
	}()
	t.Cleanup(proc.kill)
	return proc
}

// here runs in this process's place.
func here(t *testing.T) func(func() error) {
	return func(f func() error) { t.Helper(); must(t, f()) }
}

func (p *process) kill() {
	if p.ended {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.stdin.Close()
	_, _ = p.wait()
}

// leave lets the process end by itself.
func (p *process) leave() {
	_ = p.stdin.Close()
	if said, err := p.wait(); err != nil {
		p.t.Errorf("a process ended with %v: %s", err, said)
	}
}

// wait waits for the process's end, and gives what it said on standard error.
func (p *process) wait() (string, error) {
	p.ended = true
	for range p.lines { // Wait closes the pipe that is read from
	}
	err := p.cmd.Wait()
	return p.stderr.String(), err
}
