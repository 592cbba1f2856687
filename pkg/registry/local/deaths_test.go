package local_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cb02dfca/micro/pkg/registry/local"
	"github.com/cb02dfca/micro/pkg/registry/multi"
)

var _ multi.Witness = (*local.Registry)(nil)

// modes are the ways in which a watch learns of changes.
func modes(t *testing.T, f func(t *testing.T, dir string, r *local.Registry)) {
	t.Helper()
	for name, poll := range map[string]bool{"events": false, "poll": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "nodes")
			f(t, dir, open(t, local.Options{Dir: dir, Poll: poll, PollInterval: pollInterval}))
		})
	}
}

func TestDiedByKill(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, dir string, r *local.Registry) {
		other := open(t, local.Options{Dir: dir})
		w := watch(t, r)
		seen := watch(t, other) // who may be the first to remove the file
		c := spawn(t, "register "+dir+" child 1")
		c.ready(t)
		w.expect("child-0")
		seen.expect("child-0")
		if n, died := r.Died("child-0"); died {
			t.Fatalf("%v died, its owner lives", n)
		}
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		w.expect()
		seen.expect()
		for _, r := range []*local.Registry{r, other} {
			eventually(t, "its death is known", func() bool {
				n, died := r.Died("child-0")
				return died && n.Equal(node("greeter", "child-0"))
			})
		}
		again := spawn(t, "register "+dir+" child 1")
		again.ready(t)
		w.expect("child-0")
		if _, died := r.Died("child-0"); died {
			t.Error("it died, and its id was registered again")
		}
		if _, died := r.Died("nobody"); died {
			t.Error("what never was died")
		}
	})
}

// With events a death is known by the time that the watch shows it: whoever joins registries asks then.
func TestDiedAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, other := open(t, local.Options{Dir: dir}), open(t, local.Options{Dir: dir})
	watch(t, other).expect()
	for range 20 {
		c := spawn(t, "register "+dir+" child 1")
		c.ready(t)
		sets := 0
		for nodes, err := range r.Watch(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			if sets++; sets == 1 {
				_ = c.cmd.Process.Kill()
			}
			if len(nodes) == 0 {
				break
			}
		}
		if _, died := r.Died("child-0"); !died {
			t.Fatal("the watch shows its death, Died does not")
		}
	}
}

func TestDiedByWithdrawal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := open(t, local.Options{Dir: dir})
	w := watch(t, r)
	c := spawn(t, "register "+dir+" child 1")
	c.ready(t)
	w.expect("child-0")
	_ = c.stdin.Close()
	w.expect()
	eventually(t, "its withdrawal is known", func() bool { _, died := r.Died("child-0"); return died })
}

func TestRemovedIsNotDead(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, dir string, r *local.Registry) {
		for name, remove := range map[string]func() error{
			"file":         func() error { return os.Remove(r.Path("child-0")) },
			"folder":       func() error { return os.RemoveAll(dir) },
			"folder moved": func() error { return os.Rename(dir, filepath.Join(t.TempDir(), "elsewhere")) },
		} {
			w := watch(t, r)
			c := spawn(t, "register "+dir+" child 1")
			c.ready(t)
			w.expect("child-0")
			eventually(t, "it is removed", func() bool { return remove() == nil })
			w.expect()
			if _, died := r.Died("child-0"); died {
				t.Errorf("%s removed: its owner lives, and died", name)
			}
			_ = c.cmd.Process.Kill()
			_ = c.cmd.Wait()
			eventually(t, name+" removed: its death is known", func() bool { _, died := r.Died("child-0"); return died })
		}
	})
}

func TestDiedOfLists(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := open(t, local.Options{Dir: dir}), open(t, local.Options{Dir: dir})
	c := spawn(t, "register "+dir+" child 1")
	c.ready(t)
	expectList(t, a, "child-0")
	expectList(t, b, "child-0")
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	for _, r := range []*local.Registry{a, b} { // a removes the file, b finds none
		expectList(t, r)
		if _, died := r.Died("child-0"); !died {
			t.Error("its death is not known")
		}
	}
	own := node("greeter", "child-0")
	register(t, a, own)
	if _, died := a.Died(own.ID); died {
		t.Error("a node registered here died")
	}
}

// What is known of a death is forgotten after two minutes, and bounded.
func TestDeathsForgotten(t *testing.T) {
	t.Parallel()
	local.CheckDeaths(t)
}

func TestOwnNodeStaysAfterRemoval(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nodes")
	owner, reader := open(t, local.Options{Dir: dir}), open(t, local.Options{Dir: dir})
	register(t, owner, node("greeter", "mine"))
	w := watch(t, reader)
	w.expect("mine")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.expect()
	for _, r := range []*local.Registry{owner, reader} {
		if n, died := r.Died("mine"); died {
			t.Errorf("%+v died, its folder was removed", n)
		}
	}
}
