package lease_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry"
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
