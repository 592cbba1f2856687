package registrytest

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// patience is how long what a backend's own tests wait for may take, on a machine that is busy.
const patience = 30 * time.Second

// Set is what a watch shows, or its error.
type Set struct {
	Nodes []registry.Node
	Err   error
}

// Follow reads a watch until the end of the test.
func Follow(t *testing.T, r registry.Finder, service string) <-chan Set {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	sets, done := make(chan Set, 1000), make(chan struct{})
	go func() {
		defer close(done)
		for nodes, err := range r.Watch(ctx, service) {
			sets <- Set{nodes, err}
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return sets
}

// Expect reads sets until one is as ok wants it.
func Expect(t *testing.T, sets <-chan Set, what string, ok func(Set) bool) Set {
	t.Helper()
	var last Set
	timeout := time.After(patience)
	for {
		select {
		case last = <-sets:
			if ok(last) {
				return last
			}
		case <-timeout:
			t.Fatalf("the watch did not show %s; its last were %d nodes %+v and %v", what, len(last.Nodes), last.Nodes, last.Err)
		}
	}
}

// IDs wants exactly these, in this order.
func IDs(want ...string) func(Set) bool {
	return func(s Set) bool {
		if s.Err != nil || len(s.Nodes) != len(want) {
			return false
		}
		for i, n := range s.Nodes {
			if n.ID != want[i] {
				return false
			}
		}
		return true
	}
}

// Eventually polls until ok holds.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

// Journal keeps what a logger is told. The zero Journal is ready, and may be used concurrently.
type Journal struct {
	mu  sync.Mutex
	out bytes.Buffer
}

// Write implements io.Writer.
func (j *Journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.Write(p)
}

// String gives all that was written.
func (j *Journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.String()
}

// Logger writes into j.
func (j *Journal) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }
