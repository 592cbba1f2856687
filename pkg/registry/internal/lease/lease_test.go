package lease_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
	"github.com/cb02dfca/micro/pkg/registry/internal/lease"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func node(id, service string) registry.Node {
	return registry.Node{ID: id, Service: service, Address: "127.0.0.1:1"}
}

func TestOwners(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := lease.New[int](lease.Limits{})
		defer table.Close()
		if err := table.Register(1, node("a", "one"), time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		err := table.Register(2, node("a", "two"), 0)
		var taken *lease.ConflictError
		if !errors.Is(err, registry.ErrConflict) || !errors.As(err, &taken) || taken.Left != 40*time.Second || taken.Service != "one" {
			t.Errorf("got %v", err)
		}
		if err := table.Deregister(2, "one", "a"); !errors.Is(err, registry.ErrConflict) {
			t.Errorf("got %v", err)
		}
		if err := table.Deregister(1, "two", "a"); err != nil || table.Nodes().Len() != 1 {
			t.Errorf("a node of another service: %v, %d nodes", err, table.Nodes().Len())
		}
		table.Release(2)
		if table.Nodes().Len() != 1 {
			t.Error("another owner's release took the node")
		}
		table.Release(1)
		if err := table.Register(2, node("a", "two"), 0); err != nil {
			t.Errorf("a released id: %v", err)
		}
		time.Sleep(time.Hour) // the timer of the first lease takes nothing
		if table.Nodes().Len() != 1 {
			t.Error("the second owner's node is gone")
		}
	})
}

func TestLimits(t *testing.T) {
	t.Parallel()
	table := lease.New[int](lease.Limits{Nodes: 3, Service: 2})
	defer table.Close()
	for _, step := range []struct {
		id, service string
		full        bool
	}{
		{"a", "one", false}, {"b", "one", false}, {"c", "one", true}, {"c", "two", false}, {"d", "three", true},
		{"a", "one", false}, {"a", "two", false}, {"b", "two", true}, {"b", "one", false},
	} {
		err := table.Register(1, node(step.id, step.service), 0)
		var full *lease.FullError
		if errors.As(err, &full) != step.full || !step.full && err != nil {
			t.Errorf("%s of %s: %v", step.id, step.service, err)
		}
	}
	if err := table.Register(1, node("a", "one"), -1); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("a negative ttl: %v", err)
	}
	table.Close()
	if err := table.Register(1, node("a", "one"), 0); !errors.Is(err, registry.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// paper is a journal whose writes wait to be let through.
type paper struct {
	mu      sync.Mutex
	written map[string]time.Duration
	pass    chan error
}

func newPaper() *paper { return &paper{written: map[string]time.Duration{}, pass: make(chan error)} }

func (p *paper) Put(e lease.Entry[int]) error {
	err := <-p.pass
	if err == nil {
		p.mu.Lock()
		p.written[e.Node.ID] = e.TTL
		p.mu.Unlock()
	}
	return err
}

func (p *paper) Remove(ids ...string) error {
	err := <-p.pass
	if err == nil {
		p.Forget(ids...)
	}
	return err
}

func (p *paper) Forget(ids ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		delete(p.written, id)
	}
}

func (p *paper) has() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprint(p.written)
}

// TestJournalFirst: nothing is seen, or gone, before the journal has it, and nothing that it refuses ever is.
func TestJournalFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPaper()
		table := lease.NewDurable(lease.Limits{Nodes: 2}, p, hub.New())
		defer table.Close()
		begin := func(f func() error) chan error {
			done := make(chan error, 1)
			go func() { done <- f() }()
			synctest.Wait()
			return done
		}
		put := func(owner int, id string, ttl time.Duration) chan error {
			return begin(func() error { return table.Register(owner, node(id, "one"), ttl) })
		}
		a := put(1, "a", time.Minute)
		other := put(2, "a", time.Minute) // waits for what becomes of the first
		b := put(1, "b", time.Minute)
		if err := <-put(1, "c", time.Minute); !errors.As(err, new(*lease.FullError)) {
			t.Errorf("with two nodes on their way a third: %v", err)
		}
		if table.Nodes().Len() != 0 {
			t.Error("a node is seen before it is written")
		}
		p.pass <- nil
		p.pass <- nil
		if err := errors.Join(<-a, <-b); err != nil {
			t.Error(err)
		}
		if err := <-other; !errors.Is(err, registry.ErrConflict) {
			t.Errorf("the second owner: %v", err)
		}
		if err := <-put(1, "a", 59*time.Second+time.Millisecond); err != nil { // not written
			t.Errorf("a renewal: %v", err)
		}
		refused := errors.New("refused")
		gone := begin(func() error { return table.Deregister(1, "one", "b") })
		if table.Nodes().Len() != 2 {
			t.Error("a node is gone before that is written")
		}
		p.pass <- refused
		if err := <-gone; err != refused || table.Nodes().Len() != 2 {
			t.Errorf("got %v, %d nodes", err, table.Nodes().Len())
		}
		changed := begin(func() error { return table.Register(1, node("a", "two"), time.Hour) })
		time.Sleep(2 * time.Minute) // a and b lapse, a while it is written
		if got := p.has(); got != "map[a:1m0s]" || table.Nodes().Len() != 1 {
			t.Errorf("the journal has %s, the table %d nodes", got, table.Nodes().Len())
		}
		p.pass <- nil
		if err := <-changed; err != nil || p.has() != "map[a:1h0m0s]" {
			t.Errorf("got %v, the journal has %s", err, p.has())
		}
		changed = begin(func() error { return table.Register(1, node("a", "three"), time.Hour) })
		time.Sleep(2 * time.Hour)
		p.pass <- refused
		if err := <-changed; err != refused || p.has() != "map[]" || table.Nodes().Len() != 0 {
			t.Errorf("got %v, the journal has %s, the table %d nodes", err, p.has(), table.Nodes().Len())
		}
		table.Restore(lease.Entry[int]{Owner: 7, Node: node("old", "one"), TTL: time.Minute})
		released := begin(func() error { return table.Release(7) })
		p.pass <- nil
		if err := <-released; err != nil || table.Nodes().Len() != 0 {
			t.Errorf("released: %v", err)
		}
	})
}

// TestGuests give way to owners, and are in no journal.
func TestGuests(t *testing.T) {
	t.Parallel()
	p := newPaper()
	table := lease.NewDurable(lease.Limits{}, p, hub.New())
	defer table.Close()
	if err := table.Guest(9, node("a", "one")); err != nil {
		t.Fatal(err)
	}
	if err := table.Guest(9, node("b", "one")); err != nil {
		t.Fatal(err)
	}
	go func() { p.pass <- nil }()
	if err := table.Register(1, node("a", "one"), 0); err != nil {
		t.Errorf("an owner: %v", err)
	}
	if err := table.Guest(9, node("a", "two")); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("a guest over an owner: %v", err)
	}
	if err := table.Release(9); err != nil || p.has() != "map[a:0s]" || table.Nodes().Len() != 1 {
		t.Errorf("got %v, the journal has %s, the table %d nodes", err, p.has(), table.Nodes().Len())
	}
	go func() { p.pass <- nil }()
	if err := table.Evict("one", "a"); err != nil || table.Nodes().Len() != 0 {
		t.Errorf("evicted: %v", err)
	}
}
