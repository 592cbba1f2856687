//go:build unix

package program_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/program"
	"github.com/cb02dfca/micro/pkg/status"
)

// gone reports whether no process runs under the pid in the file. A zombie does not run: where no init collects what
// was orphaned, it stays in the table.
func gone(t testing.TB, file string) bool {
	t.Helper()
	return !running(t, pidIn(t, file))
}

func running(t testing.TB, pid int) bool {
	t.Helper()
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// pidIn waits for a pid in a file, which a handler writes.
func pidIn(t testing.TB, file string) (pid int) {
	t.Helper()
	eventually(t, "a pid in "+file, func() bool {
		text, _ := os.ReadFile(file)
		var err error
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil && strings.HasSuffix(string(text), "\n")
	})
	return pid
}

// stubborn is a handler that forks, and ignores SIGTERM with all that it forked.
func stubborn(t testing.TB) (path, leader, forked string) {
	t.Helper()
	dir := t.TempDir()
	leader, forked = filepath.Join(dir, "leader"), filepath.Join(dir, "forked")
	return script(t, `trap '' TERM`, `sleep 1000 &`, `echo $! >`+forked, `echo $$ >`+leader, `while :; do sleep 1000; done`), leader, forked
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	path, leader, forked := stubborn(t)
	p := open(t, program.Options{Path: path, Timeout: 500 * time.Millisecond, Grace: 300 * time.Millisecond})
	start := time.Now()
	_, err := p.Run(t.Context(), program.Request{Body: make([]byte, 1<<20)})
	wantStatus(t, err, status.HandlerTimeout, "the handler took longer than 500ms", false)
	if took := time.Since(start); took < 500*time.Millisecond {
		t.Errorf("ended after %v, before its time", took)
	}
	eventually(t, "the group is gone", func() bool { return gone(t, leader) && gone(t, forked) })
}

func TestTimeoutLetsHandlersCleanUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	started, tidy := filepath.Join(dir, "started"), filepath.Join(dir, "tidy")
	p := open(t, program.Options{
		Path:    script(t, `trap 'echo 1 >`+tidy+`; exit 0' TERM`, `echo 1 >`+started, `sleep 1000 & wait`),
		Timeout: time.Second,
	})
	_, err := p.Run(t.Context(), program.Request{})
	wantStatus(t, err, status.HandlerTimeout, "the handler took longer than 1s", false)
	pidIn(t, started)
	pidIn(t, tidy)
}

func TestCallersEnd(t *testing.T) {
	t.Parallel()
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		path, leader, forked := stubborn(t)
		p := open(t, program.Options{Path: path, Grace: 100 * time.Millisecond})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			pidIn(t, leader)
			cancel()
		}()
		_, err := p.Run(ctx, program.Request{})
		wantStatus(t, err, status.Canceled, "the caller went away", false)
		eventually(t, "the group is gone", func() bool { return gone(t, leader) && gone(t, forked) })
	})
	t.Run("deadline sooner than the timeout", func(t *testing.T) {
		t.Parallel()
		p := open(t, program.Options{Path: script(t, `exec sleep 1000`)})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := p.Run(ctx, program.Request{})
		wantStatus(t, err, status.DeadlineExceeded, "the caller's time ran out", false)
	})
}

// TestDescendants: what a handler leaves behind neither holds its answer up nor outlives the call.
func TestDescendants(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"holding the answer open": `sleep 1000 & echo $! >%s; echo 1`,
		"holding nothing":         `sleep 1000 </dev/null >/dev/null 2>&1 3>&- & echo $! >%s; echo 1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forked := filepath.Join(t.TempDir(), "forked")
			p := open(t, program.Options{Path: script(t, fmt.Sprintf(line, forked)), WaitDelay: 50 * time.Millisecond})
			got, err := p.Run(t.Context(), program.Request{})
			if err != nil || string(got.Body) != "1" {
				t.Fatalf("got %q, %v", got.Body, err)
			}
			eventually(t, "the descendant is gone", func() bool { return gone(t, forked) })
		})
	}
}

func TestDescendantInSessionOfItsOwn(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("SKIPPED: no setsid here")
	}
	forked := filepath.Join(t.TempDir(), "forked")
	// The file is written by the descendant once it has left the group.
	p := open(t, program.Options{
		Path:      script(t, `setsid sh -c 'echo $$ >`+forked+`; exec sleep 1000' &`, `while [ ! -s `+forked+` ]; do sleep 0.01; done`, `echo 1`),
		WaitDelay: 50 * time.Millisecond,
	})
	got, err := p.Run(t.Context(), program.Request{})
	pid := pidIn(t, forked)
	defer syscall.Kill(pid, syscall.SIGKILL)
	if err != nil || string(got.Body) != "1" {
		t.Fatalf("got %q, %v", got.Body, err)
	}
	if !running(t, pid) {
		t.Error("the descendant was killed")
	}
}

func TestGate(t *testing.T) {
	t.Parallel()
	gate, err := program.NewGate(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	fifo := filepath.Join(dir, "go")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p := open(t, program.Options{Path: script(t, `read line <`+fifo, `echo 1`), Gate: gate})
	errs := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := p.Run(t.Context(), program.Request{})
			errs <- err
		}()
	}
	eventually(t, "one runs and one waits", func() bool {
		running, waiting := gate.Load()
		return running == 1 && waiting == 1
	})
	_, err = p.Run(t.Context(), program.Request{})
	wantStatus(t, err, status.ResourceExhausted, "busy: 1 running and 1 waiting", true)
	for range 2 {
		write(t, fifo, 0, "x\n")
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "nothing runs", func() bool { running, waiting := gate.Load(); return running+waiting == 0 })
}

func TestTimeInQueueCounts(t *testing.T) {
	t.Parallel()
	gate, err := program.NewGate(1, 5)
	if err != nil {
		t.Fatal(err)
	}
	path, leader, _ := stubborn(t)
	p := open(t, program.Options{Path: path, Gate: gate})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = p.Run(ctx, program.Request{}) })
	pidIn(t, leader)

	late, done := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer done()
	_, err = p.Run(late, program.Request{})
	wantStatus(t, err, status.ResourceExhausted, "busy: the call's time ran out while it waited for its turn", true)
	done()
	_, err = p.Run(late, program.Request{})
	if status.CodeOf(err) != status.ResourceExhausted || !status.IsRefused(err) {
		t.Errorf("got %v, want a refusal", err)
	}
	// The one that waits is refused when the program is closed, the one that runs is killed.
	wg.Go(func() {
		_, err := p.Run(t.Context(), program.Request{})
		wantStatus(t, err, status.Unavailable, "shutting down", true)
	})
	eventually(t, "one waits", func() bool { _, waiting := gate.Load(); return waiting == 1 })
	over, stop := context.WithCancel(t.Context())
	stop()
	if err := p.Close(over); !errors.Is(err, context.Canceled) {
		t.Errorf("Close gave %v, want that it had to kill", err)
	}
	if !gone(t, leader) {
		t.Error("Close left the handler running")
	}
	wg.Wait()
	cancel()
}

func TestClose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	started, fifo := filepath.Join(dir, "started"), filepath.Join(dir, "go")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	gate, err := program.NewGate(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, program.Options{Path: script(t, `echo $$ >`+started, `read line <`+fifo, `echo 1`), Gate: gate})
	var wg sync.WaitGroup
	wg.Go(func() {
		if got, err := p.Run(t.Context(), program.Request{}); err != nil || string(got.Body) != "1" {
			t.Errorf("got %q, %v, want the answer of a call that was running", got.Body, err)
		}
	})
	pidIn(t, started)
	closed := make(chan error)
	go func() { closed <- p.Close(t.Context()) }()
	eventually(t, "new calls are refused", func() bool { // as busy before Close, as closed after
		_, err := p.Run(t.Context(), program.Request{})
		return status.CodeOf(err) == status.Unavailable && status.IsRefused(err)
	})
	select {
	case err := <-closed:
		t.Fatalf("Close gave %v while a call ran", err)
	default:
	}
	write(t, fifo, 0, "x\n")
	if err := <-closed; err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRunnerIsKilled: who is killed by SIGKILL can clean nothing up, and still leaves no handler.
func TestRunnerIsKilled(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("only Linux has a parent-death signal")
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	path := script(t, `trap '' TERM HUP INT`, `echo $$ >`+pidFile, `while :; do sleep 0.05; done`)
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runner := exec.Command(me, path)
	runner.Env = append(os.Environ(), "CHILD=runner")
	runner.Stderr = os.Stderr
	if err := runner.Start(); err != nil {
		t.Fatal(err)
	}
	pid := pidIn(t, pidFile)
	if !running(t, pid) {
		t.Fatal("the handler does not run")
	}
	if err := runner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = runner.Wait()
	start := time.Now()
	eventually(t, "the handler is gone", func() bool { return !running(t, pid) })
	if took := time.Since(start); took > time.Second {
		t.Errorf("the handler lived on for %v", took)
	}
}

// TestThreadsOutliveHandlers: the parent-death signal follows the thread, so threads must not end under a handler.
func TestThreadsOutliveHandlers(t *testing.T) {
	t.Parallel()
	p := open(t, program.Options{Path: script(t, `sleep 0.3`, `echo 1`)})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, err := p.Run(t.Context(), program.Request{})
			if err != nil || string(got.Body) != "1" {
				t.Errorf("got %q, %v", got.Body, err)
			}
		})
	}
	calls := make(chan struct{})
	go func() {
		wg.Wait()
		close(calls)
	}()
	for {
		select {
		case <-calls:
			return
		case <-time.After(time.Millisecond):
			var ended sync.WaitGroup
			ended.Go(func() { runtime.LockOSThread() }) // a goroutine that ends so takes its thread with it
			ended.Wait()
		}
	}
}

func TestFilesDoNotLeak(t *testing.T) {
	// Not parallel: it counts what the whole process has open.
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("SKIPPED: no /proc here")
	}
	p := open(t, program.Options{Path: script(t, `cat >/dev/null; echo 1`)})
	fail := open(t, program.Options{Path: script(t, `exit 1`)})
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	for range 20 {
		if _, err := p.Run(t.Context(), program.Request{Body: make([]byte, 100_000)}); err != nil {
			t.Fatal(err)
		}
		if _, err := fail.Run(t.Context(), program.Request{Body: []byte("x")}); err == nil {
			t.Fatal("no error")
		}
	}
	if after := count(); after > before {
		t.Errorf("%d files open, %d before", after, before)
	}
}
