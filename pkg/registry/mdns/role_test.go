package mdns_test

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
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/netspace"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns"
)

// roleVar makes the test binary play another process: "serve", "list" or "watch", with its arguments as JSON.
const roleVar = "MDNS_TEST_ROLE"

type role struct {
	Do    string
	URL   string
	Node  registry.Node
	Lease time.Duration
	Get   string
}

func TestMain(m *testing.M) {
	if raw := os.Getenv(roleVar); raw != "" {
		if err := play(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// play does what the role says until stdin is closed. What it has to tell goes to stdout, a line of JSON each.
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
	r, err := mdns.Open(ctx, u)
	if err != nil {
		return err
	}
	defer r.Close()
	out := json.NewEncoder(os.Stdout)
	switch p.Do {
	case "serve":
		if err := r.Register(ctx, p.Node, p.Lease); err != nil {
			return err
		}
		if err := out.Encode("ready"); err != nil {
			return err
		}
		return serve(ctx, r, p)
	case "list":
		nodes, err := r.List(ctx)
		if err != nil {
			return err
		}
		return out.Encode(nodes)
	case "get":
		nodes, err := r.Get(ctx, p.Get)
		if err != nil {
			return err
		}
		return out.Encode(nodes)
	case "watch":
		go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
		for nodes, err := range r.Watch(ctx, p.Get) {
			if err != nil {
				return err
			}
			if err := out.Encode(nodes); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("no such role: %q", p.Do)
}

// serve renews the node until stdin is closed.
func serve(ctx context.Context, r registry.Registry, p role) error {
	ended := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(ended) }()
	var renew <-chan time.Time
	if p.Lease > 0 {
		renew = time.Tick(p.Lease / 3)
	}
	for {
		select {
		case <-ended:
			return nil
		case <-renew:
			if err := r.Register(ctx, p.Node, p.Lease); err != nil {
				return err
			}
		}
	}
}

// process is a running role.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.Closer
	lines  *bufio.Scanner
	stderr bytes.Buffer // to be read when the process has ended
}

// start runs a role, on the machine m unless that is nil. It is ended with the test.
func start(t *testing.T, m *netspace.Machine, p role) *process {
	t.Helper()
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	proc := &process{t: t}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVar+"="+string(raw))
	cmd.Stderr = &proc.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	run := cmd.Start
	if m != nil {
		run = func() error { return m.Do(cmd.Start) }
	}
	if err := run(); err != nil {
		t.Fatal(err)
	}
	proc.cmd, proc.stdin, proc.lines = cmd, stdin, bufio.NewScanner(stdout)
	proc.lines.Buffer(nil, 1<<20)
	t.Cleanup(func() { proc.stop() })
	return proc
}

// stop ends the process by closing its stdin.
func (p *process) stop() {
	_ = p.stdin.Close()
	_ = p.cmd.Wait()
}

// kill ends it with SIGKILL.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// line reads one line of its output.
func (p *process) line() string {
	p.t.Helper()
	if !p.lines.Scan() {
		_ = p.cmd.Wait()
		p.t.Fatalf("process ended: %v: %s", p.lines.Err(), &p.stderr)
	}
	return p.lines.Text()
}

// nodes reads one set of nodes.
func (p *process) nodes() []registry.Node {
	p.t.Helper()
	var out []registry.Node
	if err := json.Unmarshal([]byte(p.line()), &out); err != nil {
		p.t.Fatal(err)
	}
	return out
}

// until reads sets until one has want nodes.
func (p *process) until(want int) []registry.Node {
	p.t.Helper()
	for {
		if nodes := p.nodes(); len(nodes) == want {
			return nodes
		}
	}
}
