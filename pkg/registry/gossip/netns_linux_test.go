package gossip_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cb02dfca/micro/pkg/registry"
)

// namespace makes a network namespace with loopback up and nothing else.
func namespace(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: network namespaces need root, so partitions are not tested here")
	}
	ns := fmt.Sprintf("gossip%08x", rand.Uint32())
	ip(t, "netns", "add", ns)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	ip(t, "-n", ns, "link", "set", "lo", "up")
	return ns
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// lan makes machines on one link, 10.78.0.1 and on, and what plugs one out and in.
func lan(t *testing.T, size int) (machines []string, plug func(i int, in bool)) {
	t.Helper()
	middle := namespace(t)
	ip(t, "-n", middle, "link", "add", "name", "bridge0", "type", "bridge")
	ip(t, "-n", middle, "link", "set", "bridge0", "up")
	for i := range size {
		ns, port := namespace(t), fmt.Sprint("port", i)
		ip(t, "-n", middle, "link", "add", port, "type", "veth", "peer", "name", "lan", "netns", ns)
		ip(t, "-n", middle, "link", "set", port, "master", "bridge0", "up")
		ip(t, "-n", ns, "addr", "add", fmt.Sprintf("10.78.0.%d/24", i+1), "dev", "lan")
		ip(t, "-n", ns, "link", "set", "lan", "up")
		machines = append(machines, ns)
	}
	return machines, func(i int, in bool) {
		t.Helper()
		ip(t, "-n", middle, "link", "set", fmt.Sprint("port", i), map[bool]string{true: "up", false: "down"}[in])
	}
}

// inside runs f in a namespace, on a thread that is thrown away. Processes that f starts stay there.
func inside(t *testing.T, ns string) func(f func() error) {
	return func(f func() error) {
		t.Helper()
		fd, err := unix.Open(filepath.Join("/var/run/netns", ns), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				done <- err
				return
			}
			done <- f()
		}()
		must(t, <-done)
	}
}

// sees reads what a process writes until it sees exactly these.
func (p *process) sees(what string, want ...string) {
	p.t.Helper()
	timeout := time.After(wait)
	last := ""
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				said, err := p.wait()
				p.t.Fatalf("%s: the process ended: %v: %s", what, err, said)
			}
			if last = line; line == "set "+strings.Join(want, " ")+" <nil>" {
				return
			}
		case <-timeout:
			p.t.Fatalf("%s: it sees %q, want %v", what, last, want)
		}
	}
}

// TestPartition: machines that cannot reach each other see their own side alone, and all again when they can.
func TestPartition(t *testing.T) {
	t.Parallel()
	machines, plug := lan(t, 3)
	key := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString([]byte(rightKey))), 0o600))
	var all []*process
	for i, ns := range machines {
		url := "gossip://10.78.0.1:7946?key-file=" + key
		if i == 0 {
			url += "&bind=:7946"
		}
		all = append(all, start(t, role{URL: url, Nodes: []registry.Node{node(string(rune('a' + i)))}}, inside(t, ns)))
	}
	everybody := func(what string) {
		t.Helper()
		for _, p := range all {
			p.sees(what, "a", "b", "c")
		}
	}
	everybody("at first")

	plug(0, false) // the seed
	cut := time.Now()
	all[1].sees("without the seed", "b", "c")
	all[2].sees("without the seed", "b", "c")
	all[0].sees("the seed alone", "a")
	t.Logf("a partition was seen after %v", time.Since(cut).Round(100*time.Millisecond))
	plug(0, true)
	healed := time.Now()
	everybody("when the seed is back")
	t.Logf("that it was healed was seen after %v", time.Since(healed).Round(100*time.Millisecond))

	for i := range all {
		plug(i, false)
	}
	for i, p := range all {
		p.sees("alone", string(rune('a'+i)))
	}
	for i := range all {
		plug(i, true)
	}
	everybody("when everybody was gone")

	all[0].kill() // the seed, for good
	all[1].sees("when the seed was killed", "b", "c")
	all[2].sees("when the seed was killed", "b", "c")
	plug(1, false)
	all[1].sees("without a seed, alone", "b")
	all[2].sees("without a seed, alone", "c")
	plug(1, true)
	all[1].sees("without a seed, when the other is back", "b", "c")
	all[2].sees("without a seed, when the other is back", "b", "c")
}

// TestMachines: a member beyond loopback announces the address that leads to the seeds, and tells services to bind it.
func TestMachines(t *testing.T) {
	t.Parallel()
	machines, _ := lan(t, 2)
	a := start(t, role{URL: "gossip://?bind=10.78.0.1:7946&insecure=true", Nodes: []registry.Node{node("a")}}, inside(t, machines[0]))
	a.sees("alone, without seeds", "a")
	b := start(t, role{URL: "gossip://10.78.0.1?insecure=true"}, inside(t, machines[1]))
	if line := <-b.lines; line != "set a <nil>" {
		t.Errorf("its first set is %q", line)
	}
	b.leave()
	c := start(t, role{URL: "gossip://10.78.0.1"}, inside(t, machines[1]))
	if said, _ := c.wait(); !strings.Contains(said, "10.78.0.2 is not loopback, and without a key whoever reaches it may join") {
		t.Errorf("without a key it said %q", said)
	}
	d := start(t, role{URL: "gossip://10.99.0.1?insecure=true"}, inside(t, machines[1]))
	if said, _ := d.wait(); !strings.Contains(said, "there is no way to the seed 10.99.0.1:7946: network is unreachable") {
		t.Errorf("without a way it said %q", said)
	}
}
