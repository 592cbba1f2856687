// Package registrytest is the conformance suite of registries: one call tells whether a backend keeps what package
// registry promises.
//
//	func TestConformance(t *testing.T) {
//		registrytest.Run(t, registrytest.Harness{
//			New: func(t *testing.T) registrytest.Open {
//				dir := t.TempDir()
//				return func(t *testing.T) registry.Registry { ... } // each call: another process on the same directory
//			},
//			Shared: true, Endpoints: true,
//		})
//	}
//
// The suite speaks to the backend through its public methods only, in real time: it polls with a deadline and never
// sleeps for a guessed while.
package registrytest

import (
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Open opens one more registry on a system, as another process of the same user would have it. It fails the test if
// that is not possible. The suite closes what it opened, and may close it twice.
type Open func(t *testing.T) registry.Registry

// Harness says how a backend is made, and what it can do. What it cannot is skipped by capability; all else is asked of
// every backend.
type Harness struct {
	// New makes a fresh, empty system: a directory, a server, a network of its own. What it starts it stops with
	// t.Cleanup. Required. Tests run in parallel, each with a system of its own.
	New func(t *testing.T) Open

	// Shared: a node that one registry of a system announces shows in the others.
	Shared bool
	// Endpoints: the backend carries a node's endpoints, at least three small ones.
	Endpoints bool
	// Conflicts: Register and Deregister of a node that another registry of the system holds are refused with
	// ErrConflict, until that one deregisters, closes or dies.
	Conflicts bool
	// Kill ends a registry that Open gave as kill -9 ends its process: nothing is withdrawn. Nil: not possible in a
	// test. What was killed is closed later all the same.
	Kill func(t *testing.T, r registry.Registry)
	// SeesDeath: the nodes of a killed registry go at once, however long their ttl. Needs Kill.
	SeesDeath bool
	// TTL is the shortest ttl that the backend keeps: a node that is not renewed stays that long, and goes within Wait
	// after it. Default 300 ms.
	TTL time.Duration
	// NoTTL: a node that is not renewed stays; nothing lapses.
	NoTTL bool
	// Wait is how long a change may take to show in another registry, on a busy machine. Default 10 s.
	Wait time.Duration
	// Crowd is how many nodes the crowd test registers. Default 500.
	Crowd int
}

// Run runs the suite as subtests of t.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.New == nil {
		t.Fatal("registrytest: Harness.New is missing")
	}
	if h.TTL == 0 {
		h.TTL = 300 * time.Millisecond
	}
	if h.Wait == 0 {
		h.Wait = 10 * time.Second
	}
	if h.Crowd == 0 {
		h.Crowd = 500
	}
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(&suite{T: t, h: h})
		})
		if c.watches {
			t.Run("by changes: "+c.name, func(t *testing.T) {
				t.Parallel()
				(&suite{T: t, h: h, byChanges: true}).changes(c.run)
			})
		}
	}
}

type testCase struct {
	name    string
	run     func(*suite)
	watches bool // it is run again with watches by changes, where the backend is a registry.ChangeWatcher
}

func cases() []testCase {
	return []testCase{
		{"get, list and deregister", (*suite).lifecycle, false},
		{"fields come back", (*suite).fields, false},
		{"endpoints come back", (*suite).endpoints, false},
		{"versions and hidden nodes", (*suite).versions, false},
		{"unicode metadata", (*suite).unicode, false},
		{"one id stands once", (*suite).oneID, false},
		{"names are matched exactly", (*suite).exactNames, false},
		{"invalid nodes", (*suite).invalid, false},
		{"not found", (*suite).notFound, false},
		{"a passed node is copied", (*suite).copied, false},
		{"given sets are the caller's", (*suite).givenSets, false},
		{"context done", (*suite).contextDone, false},

		{"watch yields the present set", (*suite).watchFirst, true},
		{"watch of one service", (*suite).watchService, true},
		{"watch of all services", (*suite).watchAll, true},
		{"watch sees every kind of change", (*suite).watchChanges, true},
		{"a renewal wakes no watcher", (*suite).watchRenewal, true},
		{"a slow watcher gets the last set", (*suite).watchSlow, true},
		{"watch ends with its context", (*suite).watchContext, true},
		{"watch ends with its loop", (*suite).watchBreak, false},
		{"a watch runs once for each loop", (*suite).watchTwice, false},
		{"a watch of anything", (*suite).watchRandom, true},

		{"a ttl lapses", (*suite).ttlLapses, false},
		{"a renewal holds", (*suite).ttlRenewal, false},
		{"ttl zero holds", (*suite).ttlZero, false},
		{"a lapsed node comes back", (*suite).ttlReturn, true},

		{"another registry sees it", (*suite).shared, false},
		{"another registry's watch sees it", (*suite).sharedWatch, true},
		{"close withdraws", (*suite).closeWithdraws, true},
		{"two owners of one id", (*suite).twoOwners, false},
		{"a taken id is refused", (*suite).conflict, false},
		{"a killed owner", (*suite).killed, true},

		{"close ends watches", (*suite).closeEndsWatches, true},
		{"close twice, use after close", (*suite).closed, false},
		{"a crowd", (*suite).crowd, true},
		{"concurrent use", (*suite).concurrent, true},
	}
}
