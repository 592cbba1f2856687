package local_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
)

const pollInterval = 20 * time.Millisecond

// childRole is the environment variable that makes the test binary a process of the tests: what it is to do.
const childRole = "LOCAL_TEST_CHILD"

// childMain is the main of a child. It answers on standard output, and lives until its standard input ends:
//
//	register DIR ID COUNT   registers nodes
//	race DIR ID ROUNDS      for each line of standard input tries to register ID-N, and says "won" or "taken"
//	list DIR                lists the nodes
//	watch DIR               says how many nodes there are, each time
//	exhausted DIR           lists the nodes with no file descriptor left
func childMain() int {
	args := strings.Fields(os.Getenv(childRole))
	r, err := local.New(local.Options{Dir: args[1]})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	ctx := context.Background()
	switch args[0] {
	case "register":
		count, _ := strconv.Atoi(args[3])
		for i := range count {
			if err := r.Register(ctx, node("greeter", fmt.Sprintf("%s-%d", args[2], i)), time.Minute); err != nil {
				fmt.Println("error", err)
				return 1
			}
		}
		fmt.Println("ready")
	case "race":
		race(ctx, r, args[2])
	case "list":
		nodes, err := r.List(ctx)
		fmt.Println("nodes", len(nodes), err)
	case "watch":
		ctx, stop := context.WithCancel(ctx)
		go func() {
			defer stop()
			_, _ = io.Copy(io.Discard, os.Stdin)
		}()
		for nodes, err := range r.Watch(ctx, "") {
			fmt.Println("nodes", len(nodes), err)
		}
	case "exhausted":
		exhausted(ctx, r)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := r.Close(); err != nil {
		fmt.Println("error", err)
		return 1
	}
	return 0
}

func race(ctx context.Context, r *local.Registry, id string) {
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for i := 0; lines.Scan(); i++ {
		switch err := r.Register(ctx, node("greeter", fmt.Sprintf("%s-%d", id, i)), 0); {
		case err == nil:
			fmt.Println("won")
		case errors.Is(err, registry.ErrConflict):
			fmt.Println("taken")
		default:
			fmt.Println("error", err)
		}
	}
}

func exhausted(ctx context.Context, r *local.Registry) {
	var files []*os.File
	for {
		f, err := os.Open(os.Args[0])
		if err != nil {
			break
		}
		files = append(files, f)
	}
	nodes, err := r.List(ctx)
	for _, f := range files {
		_ = f.Close()
	}
	fmt.Println("nodes", len(nodes), errors.Is(err, registry.ErrUnavailable))
}

// child is a running child process.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// spawn starts a child, under the command wrapper if there is one. It is killed at the end of the test.
func spawn(t testing.TB, role string, wrapper ...string) *child {
	t.Helper()
	argv := append(wrapper, os.Args[0], "-test.run=^$")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), childRole+"="+role)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd, stdin: stdin, out: bufio.NewReader(stdout)}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return c
}

// says gives the child's next line.
func (c *child) says(t testing.TB) string {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the child said nothing: %v", err)
	}
	return strings.TrimSpace(line)
}

// ready waits until the child has registered.
func (c *child) ready(t testing.TB) {
	t.Helper()
	if line := c.says(t); line != "ready" {
		t.Fatalf("the child says: %s", line)
	}
}

func node(service, id string) registry.Node {
	return registry.Node{
		ID: id, Service: service, Version: "1.2.3", Address: "127.0.0.1:4711",
		Metadata: map[string]string{"protocol": "mucp", "transport": "http", "upgrade": "micro"},
	}
}

// open opens a registry that the test closes.
func open(t testing.TB, o local.Options) *local.Registry {
	t.Helper()
	r, err := local.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}
