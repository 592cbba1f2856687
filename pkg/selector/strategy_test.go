package selector_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/cb02dfca/micro/pkg/selector"
)

func strategies() map[string]selector.Strategy {
	return map[string]selector.Strategy{
		"Random":         selector.Random(),
		"RoundRobin":     selector.RoundRobin(),
		"LeastConn":      selector.LeastConn(),
		"P2C":            selector.P2C(),
		"ConsistentHash": selector.ConsistentHash(),
	}
}

// TestEvenLoad gives each node about its part of calls that end at once.
func TestEvenLoad(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const n, calls = 10, 20_000
				f := newFinder()
				b := open(t, f, selector.WithStrategy(strategy))
				f.set("greeter", names(n)...)
				counts := map[string]int{}
				for i := range calls {
					id, done := pick(t, b, selector.Query{Service: "greeter", Key: fmt.Sprint("user-", i)})
					done(nil)
					counts[id]++
				}
				for id, got := range counts {
					if off := math.Abs(float64(got)/(calls/n) - 1); off > 0.25 || len(counts) != n {
						t.Errorf("%s has %d of %d calls, and %d nodes have any", id, got, calls, len(counts))
					}
				}
			})
		})
	}
}

func TestRoundRobinTakesTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f, selector.WithStrategy(selector.RoundRobin()))
		f.set("greeter", "a", "b", "c")
		f.set("other", "x", "y")
		var turns, others strings.Builder
		for range 6 {
			id, _ := pick(t, b, greeter)
			turns.WriteString(id)
			id, _ = pick(t, b, selector.Query{Service: "other"})
			others.WriteString(id)
		}
		if !strings.Contains("abcabcabc", turns.String()) || !strings.Contains("xyxyxyx", others.String()) {
			t.Errorf("turns %s and %s", &turns, &others)
		}
	})
}

// TestBusyNodes holds calls open: LeastConn fills every node to the same height; P2C leaves a slow node out of most.
func TestBusyNodes(t *testing.T) {
	t.Parallel()
	t.Run("LeastConn", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFinder()
			b := open(t, f, selector.WithStrategy(selector.LeastConn()))
			f.set("greeter", names(5)...)
			counts := map[string]int{}
			for range 50 {
				id, _ := pick(t, b, greeter)
				counts[id]++
			}
			for id, n := range counts {
				if n != 10 {
					t.Errorf("%s has %d calls, want 10", id, n)
				}
			}
		})
	})
	t.Run("P2C", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFinder()
			b := open(t, f)
			f.set("greeter", "fast", "quick", "slow")
			for range 10 {
				pick(t, b, selector.Query{Service: "greeter", Filters: []selector.Filter{selector.ID("slow")}})
			}
			if got := only(picks(t, b, greeter, 1000)); got != "[fast quick]" {
				t.Errorf("beside a slow node: %s", got)
			}
			// Its load is still known after the set has changed.
			f.set("greeter", "fast", "slow")
			synctest.Wait()
			if got := only(picks(t, b, greeter, 1000)); got != "[fast]" {
				t.Errorf("after a change: %s", got)
			}
			f.set("greeter", "fast")
			synctest.Wait()
			f.set("greeter", "fast", "slow")
			synctest.Wait()
			if got := only(picks(t, b, greeter, 1000)); got != "[fast]" {
				t.Errorf("after it went and came: %s", got)
			}
		})
	})
}

func TestDoneLowersTheLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f, selector.WithStrategy(selector.LeastConn()))
		f.set("greeter", "a", "b")
		var ends []func(error)
		for range 10 {
			_, done := pick(t, b, selector.Query{Service: "greeter", Filters: []selector.Filter{selector.ID("a")}})
			ends = append(ends, done)
		}
		if got := only(picks(t, b, greeter, 100)); got != "[b]" {
			t.Errorf("while a is busy: %s", got)
		}
		for _, done := range ends {
			done(nil)
		}
		if got := only(picks(t, b, greeter, 100)); got != "[a b]" {
			t.Errorf("once it is idle: %s", got)
		}
	})
}

// owners gives the node of each of 5000 keys.
func owners(t *testing.T, b *selector.Balancer, q selector.Query) []string {
	t.Helper()
	all := make([]string, 5000)
	for i := range all {
		q.Key = fmt.Sprint("key-", i)
		id, done := pick(t, b, q)
		done(nil)
		all[i] = id
	}
	return all
}

func TestConsistentHashMovesLittle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, g := newFinder(), newFinder()
		b := open(t, f, selector.WithStrategy(selector.ConsistentHash()))
		other := open(t, g, selector.WithStrategy(selector.ConsistentHash()))
		ids := names(20)
		f.set("greeter", ids...)
		g.set("greeter", ids...)
		before := owners(t, b, greeter)
		if fmt.Sprint(before) != fmt.Sprint(owners(t, b, greeter)) || fmt.Sprint(before) != fmt.Sprint(owners(t, other, greeter)) {
			t.Error("a key changes its node though no node came or went")
		}
		f.set("greeter", ids[1:]...)
		synctest.Wait()
		for i, now := range owners(t, b, greeter) {
			if before[i] != ids[0] && now != before[i] {
				t.Fatalf("key %d moved from %s to %s, and %s went", i, before[i], now, ids[0])
			}
		}
		f.set("greeter", append(ids, "new")...)
		synctest.Wait()
		moved := 0
		for i, now := range owners(t, b, greeter) {
			if now != before[i] {
				moved++
				if now != "new" {
					t.Fatalf("key %d moved from %s to %s, and a node came", i, before[i], now)
				}
			}
		}
		if want := len(before) / 21; moved < want/2 || moved > want*2 {
			t.Errorf("%d keys moved to the new node, want about %d", moved, want)
		}
	})
}

// TestConsistentHashOfAPart gives a key of a filtered set the node that it would have if there were no others.
func TestConsistentHashOfAPart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, g := newFinder(), newFinder()
		b := open(t, f, selector.WithStrategy(selector.ConsistentHash()))
		part := open(t, g, selector.WithStrategy(selector.ConsistentHash()))
		ids := names(20)
		f.set("greeter", ids...)
		g.set("greeter", ids[3:]...)
		a := owners(t, b, selector.Query{Service: "greeter", Avoid: ids[:3]})
		if fmt.Sprint(a) != fmt.Sprint(owners(t, part, greeter)) {
			t.Error("a part of a set and the same set on its own differ")
		}
	})
}

// TestConsistentHashIsStable pins the choice: clients of other versions of this package must agree on it.
func TestConsistentHashIsStable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFinder()
		b := open(t, f, selector.WithStrategy(selector.ConsistentHash()))
		f.set("greeter", "a", "b", "c", "d")
		var got strings.Builder
		for i := range 16 {
			id, _ := pick(t, b, selector.Query{Service: "greeter", Key: fmt.Sprint(i)})
			got.WriteString(id)
		}
		if want := "ddacccaabdbbadab"; got.String() != want {
			t.Errorf("got %s, want %s", &got, want)
		}
	})
}
