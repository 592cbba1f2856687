package multi_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/registry/multi"
)

// roleVar makes the test binary another process: an owner of the node "x" in a folder's registry.
const roleVar = "MULTI_TEST_FOLDER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(roleVar); dir != "" {
		if err := own(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	if do := roles()[os.Getenv("MULTI_TEST_ROLE")]; do != nil {
		if err := do(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	if args := strings.Fields(os.Getenv(ownerVar)); len(args) > 0 {
		if err := ownInAll(args[0], args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func own(dir string) error {
	r, err := local.New(local.Options{Dir: dir})
	if err != nil {
		return err
	}
	if err := r.Register(context.Background(), node("x"), time.Minute); err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return r.Close()
}

// process starts the test binary as another process, which ends with the test, and waits for its first line.
func process(t *testing.T, env string, wrapper ...string) (cmd *exec.Cmd, line string) {
	t.Helper()
	argv := append(wrapper, os.Args[0])
	cmd = exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Stderr = append(os.Environ(), env), os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		t.Fatalf("the process said nothing: %v", lines.Err())
	}
	return cmd, lines.Text()
}

// TestLocalTellsDeaths joins the folder's registry with a network that keeps copies, as mDNS does: a node whose owner
// was killed goes from both at once; one whose file or folder was merely removed is shown by its copy.
func TestLocalTellsDeaths(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		poll bool
		do   func(dir string, owner *exec.Cmd) error
		want int
	}{
		"killed":               {false, func(_ string, owner *exec.Cmd) error { return owner.Process.Kill() }, 0},
		"killed, polled":       {true, func(_ string, owner *exec.Cmd) error { return owner.Process.Kill() }, 0},
		"file removed":         {false, removeFiles, 1},
		"folder removed":       {false, func(dir string, _ *exec.Cmd) error { return os.RemoveAll(dir) }, 1},
		"file removed, polled": {true, removeFiles, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "nodes")
			files, err := local.New(local.Options{Dir: dir, Poll: tt.poll, PollInterval: 10 * time.Millisecond})
			must(t, err)
			copies := memory.New()
			r := join(t, multi.Member{Name: "local", Registry: files, Authority: true}, multi.Member{Name: "mdns", Registry: copies})
			owner, line := process(t, roleVar+"="+dir)
			if line != "ready" {
				t.Fatal(line)
			}
			must(t, copies.Register(t.Context(), node("x"), 0))
			done := false
			for nodes, err := range files.Watch(t.Context(), "") {
				must(t, err)
				if len(nodes) == 1 && !done {
					done = true
					must(t, tt.do(dir, owner))
				}
				if len(nodes) == 0 {
					break
				}
			}
			nodes, err := r.List(t.Context())
			must(t, err)
			if len(nodes) != tt.want {
				t.Errorf("the list has %v, want %d", nodes, tt.want)
			}
			if tt.want == 0 {
				watchGone(t, r)
			}
		})
	}
}

func removeFiles(dir string, _ *exec.Cmd) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return err
}

// watchGone looks at the first set of a watch.
func watchGone(t *testing.T, r registry.Registry) {
	t.Helper()
	for nodes, err := range r.Watch(t.Context(), "") {
		if err != nil || len(nodes) > 0 {
			t.Errorf("a watch begins with %v, %v", nodes, err)
		}
		return
	}
}
