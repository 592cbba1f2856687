package netspace

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// aloneVar names, in the process that Alone starts, the test that it is for.
const aloneVar = "NETSPACE_ALONE"

// Alone runs a test a second time, in a process of its own that has a network of its own, of loopback alone: what the test does to
// the network touches nothing else, and nothing is left of it. It reports true there. Here it waits for that process, whose failure
// and whose skip become the test's, and reports false: the test returns then. It is called by a test, not by a subtest.
func Alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(aloneVar) == t.Name() {
		return true
	}
	m := New(t)
	args := []string{"-test.run=^" + regexp.QuoteMeta(t.Name()) + "$", "-test.v", "-test.parallel=100"} // what waits for packets that do not come is no load
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+max(time.Second, time.Until(end)-time.Second).String())
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), aloneVar+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should this process be killed
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	_, why, skipped := strings.Cut(out.String(), "SKIPPED: ")
	switch {
	case err != nil:
		t.Errorf("alone: %v\n%s", err, out.String())
	case skipped:
		why, _, _ = strings.Cut(why, "\n")
		t.Skip("SKIPPED: " + why)
	default:
		t.Logf("alone:\n%s", out.String())
	}
	return false
}
