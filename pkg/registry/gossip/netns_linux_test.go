package gossip_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/netspace"
	"github.com/cb02dfca/micro/pkg/registry"
)

// plug gives what puts a machine's cable out and in.
func plug(t *testing.T, lan *netspace.LAN) func(i int, in bool) {
	return func(i int, in bool) {
		t.Helper()
		must(t, lan.Plug(i, in))
	}
}

// inside runs what is started in a machine.
func inside(t *testing.T, m *netspace.Machine) func(f func() error) {
	return func(f func() error) { t.Helper(); must(t, m.Do(f)) }
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
	lan := netspace.NewLAN(t, 3)
	machines, plug := lan.Machines, plug(t, lan)
	key := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString([]byte(rightKey))), 0o600))
	var all []*process
	for i, m := range machines {
		url := "gossip://10.77.0.1:7946?key-file=" + key
		if i == 0 {
			url += "&bind=:7946"
		}
		all = append(all, start(t, role{URL: url, Nodes: []registry.Node{node(string(rune('a' + i)))}}, inside(t, m)))
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
	machines := netspace.NewLAN(t, 2).Machines
	a := start(t, role{URL: "gossip://?bind=10.77.0.1:7946&insecure=true", Nodes: []registry.Node{node("a")}}, inside(t, machines[0]))
	a.sees("alone, without seeds", "a")
	b := start(t, role{URL: "gossip://10.77.0.1?insecure=true"}, inside(t, machines[1]))
	if line := <-b.lines; line != "set a <nil>" {
		t.Errorf("its first set is %q", line)
	}
	b.leave()
	c := start(t, role{URL: "gossip://10.77.0.1"}, inside(t, machines[1]))
	if said, _ := c.wait(); !strings.Contains(said, "10.77.0.2 is not loopback, and without a key whoever reaches it may join") {
		t.Errorf("without a key it said %q", said)
	}
	d := start(t, role{URL: "gossip://10.99.0.1?insecure=true"}, inside(t, machines[1]))
	if said, _ := d.wait(); !strings.Contains(said, "there is no way to the seed 10.99.0.1:7946: network is unreachable") {
		t.Errorf("without a way it said %q", said)
	}
}
