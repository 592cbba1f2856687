//go:build unix

package grpc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
)

// stopped reports whether all threads of a process are stopped, which takes as long as one of them does not get a processor. It holds where
// the system has no /proc.
func stopped(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if _, state, _ := strings.Cut(string(text), ") "); err == nil && !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

// TestStoppedServer: a server that is stopped costs one call its deadline. The next ones are not sent to it, and so go elsewhere; until it
// is heard of again.
func TestStoppedServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	c := newClient(t, newTransport(t, grpc.Options{DialTimeout: 300 * time.Millisecond}))
	call := func(timeout time.Duration) error {
		_, err := client.Call[text](t.Context(), c, "pkg", "Say.Hello", wrapperspb.String("John"), client.Address(s.addr), client.Timeout(timeout))
		return err
	}
	must(t, call(5*time.Second))
	must(t, s.cmd.Process.Signal(syscall.SIGSTOP))
	for until := time.Now().Add(10 * time.Second); !stopped(s.cmd.Process.Pid) && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	if err := call(200 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) || transport.NotSent(err) {
		t.Errorf("a call to a stopped server: %v", err)
	}
	if err := call(5 * time.Second); !transport.NotSent(err) {
		t.Errorf("the next call: %v", err)
	}
	must(t, s.cmd.Process.Signal(syscall.SIGCONT))
	if err := call(5 * time.Second); err != nil && status.CodeOf(err) != status.Internal {
		t.Errorf("a call after that: %v", err)
	}
	for until := time.Now().Add(10 * time.Second); call(time.Second) != nil; {
		if time.Now().After(until) {
			t.Fatal("the server goes on, and calls do not")
		}
	}
}
