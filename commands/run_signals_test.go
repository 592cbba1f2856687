//go:build unix

package commands_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cb02dfca/micro/commands"
	brokermemory "github.com/cb02dfca/micro/pkg/broker/memory"
	registrymemory "github.com/cb02dfca/micro/pkg/registry/memory"
)

// TestRunProcess is the program that TestRunSignals starts.
func TestRunProcess(t *testing.T) {
	args := os.Getenv("RUN_PROCESS")
	if args == "" {
		t.Skip("only as a process of its own")
	}
	d := commands.System(strings.Split(args, " "))
	d.Backends = runBackends(registrymemory.New(), brokermemory.New())
	ctx, stop := commands.Signals(context.Background())
	code := commands.Main(ctx, d)
	stop()
	os.Exit(code)
}

// TestRunSignals: the first signal drains, the second ends at once, and neither leaves a handler.
func TestRunSignals(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		signal syscall.Signal
		twice  bool
	}{"SIGINT drains": {syscall.SIGINT, false}, "SIGTERM drains": {syscall.SIGTERM, false}, "twice leaves at once": {syscall.SIGINT, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fifo := filepath.Join(t.TempDir(), "fifo")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			started := fifo + ".started"
			slow := handlerFile(t, "slow.sh", `sleep 600 >/dev/null 2>&1 &`, `echo $! >`+started+`.child`, `echo $$ >`+started, `read line <`+fifo, `echo 1`)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRunProcess$")
			cmd.Env = append(os.Environ(), "RUN_PROCESS=run "+slow)
			var stderr lockedBuffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var at string
			runEventually(t, "ready", func() bool {
				if m := readyAt.FindStringSubmatch(stderr.String()); m != nil {
					at = m[1]
				}
				return at != ""
			})
			answered := make(chan string, 1)
			go func() { answered <- postOrFail(at) }()
			runEventually(t, "the handler runs", func() bool { text, _ := os.ReadFile(started); return bytes.HasSuffix(text, []byte("\n")) })
			_ = cmd.Process.Signal(test.signal)
			runEventually(t, "it drains", func() bool { return strings.Contains(stderr.String(), "Ctrl-C again leaves at once") })
			if test.twice {
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				runEventually(t, "it ends", func() bool { // a signal that follows at once counts as the first one's double
					_ = cmd.Process.Signal(test.signal)
					select {
					case <-ended:
						return true
					default:
						return false
					}
				})
				if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGINT {
					t.Errorf("ended with %v, want SIGINT, which a shell gives as 130", cmd.ProcessState)
				}
				<-answered
				if _, err := os.Stat("/proc/self/stat"); err == nil { // only Linux has a parent-death signal
					runEventually(t, "the handler is gone", func() bool { return !alive(t, started) })
					runEventually(t, "what it started is gone", func() bool { return !alive(t, started+".child") })
				}
				return
			}
			if err := os.WriteFile(fifo, []byte("x\n"), 0); err != nil {
				t.Fatal(err)
			}
			if got := <-answered; got != "1" {
				t.Errorf("the running call got %q, want its answer", got)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v, want exit code 0\n%s", err, stderr.String())
			}
		})
	}
}

// alive reports whether the process whose id is in the file runs. A zombie does not.
func alive(t *testing.T, file string) bool {
	t.Helper()
	pid, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// postOrFail is post for a server that may go away.
func postOrFail(at string) string {
	rsp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Post("http://"+at+"/Slow.Call", "application/json", strings.NewReader("{}"))
	if err != nil {
		return err.Error()
	}
	defer rsp.Body.Close()
	body, err := io.ReadAll(rsp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}
