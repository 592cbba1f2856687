// Package netspace makes networks for tests: machines, which are Linux network namespaces, the links between them, and partitions,
// by which packets are lost without a word. A namespace has no name and no process: it is there as long as the process that made it,
// or a process that runs in it, so that nothing is left of a test that dies. It needs root. Tests and measurements alone import it.
package netspace

import "testing"

// New makes a machine with loopback alone, for a test, which is skipped where that is not possible.
func New(t testing.TB) *Machine {
	t.Helper()
	m, err := Open()
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	t.Cleanup(m.Close)
	return m
}

// NewLAN is OpenLAN for a test, which is skipped where that is not possible.
func NewLAN(t testing.TB, size int) *LAN {
	t.Helper()
	l, err := OpenLAN(size)
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	t.Cleanup(l.Close)
	return l
}

// LAN is machines on one link, each by an interface "lan".
type LAN struct {
	Machines []*Machine
	middle   *Machine // it has the bridge, and a port for each machine
}

// Site is a machine beyond a router, which this process reaches by several ways: addresses of the machine's, each of which the router
// can be told to lose the packets of. Whatever listens there on all addresses is reached by all.
type Site struct {
	*Machine
	t      testing.TB
	router *Machine
	ways   int
}

// A Flow is what a cut takes: packets to the site, packets from it, or both.
type Flow int

// The flows.
const (
	To Flow = 1 << iota
	From
	Both = To | From
)

// String names a flow.
func (f Flow) String() string { return [...]string{"none", "to it", "from it", "both"}[f] }

// Way is an address of a site's.
type Way struct {
	// Host is the address.
	Host string
	s    *Site
	cut  Flow
}
