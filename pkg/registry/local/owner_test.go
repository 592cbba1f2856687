package local_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
)

func TestKilledOwner(t *testing.T) {
	t.Parallel()
	for name, poll := range map[string]bool{"events": false, "poll": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := open(t, local.Options{Dir: dir, Poll: poll, PollInterval: pollInterval})
			register(t, r, node("greeter", "mine"))
			w := watch(t, r)
			w.expect("mine")
			c := spawn(t, "register "+dir+" child 2")
			c.ready(t)
			w.expect("child-0", "child-1", "mine")
			if err := c.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			w.expect("mine")
			expectList(t, r, "mine")
			eventually(t, "the files of the dead are removed", func() bool {
				entries, err := os.ReadDir(dir)
				return err == nil && len(entries) == 1
			})
			again := spawn(t, "register "+dir+" child 1")
			again.ready(t)
			w.expect("child-0", "mine")
		})
	}
}

func TestEndedOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := open(t, local.Options{Dir: dir})
	w := watch(t, r)
	c := spawn(t, "register "+dir+" child 1")
	c.ready(t)
	w.expect("child-0")
	_ = c.stdin.Close() // it closes its registry
	w.expect()
	if err := c.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestHundredProcesses(t *testing.T) {
	t.Parallel()
	const count = 100
	dir := t.TempDir()
	r := open(t, local.Options{Dir: dir})
	w := watch(t, r)
	var children []*child
	var ids, even []string
	for i := range count {
		children = append(children, spawn(t, fmt.Sprintf("register %s p%d 1", dir, i)))
		ids = append(ids, fmt.Sprintf("p%d-0", i))
		if i%2 == 0 {
			even = append(even, fmt.Sprintf("p%d-0", i))
		}
	}
	for _, c := range children {
		c.ready(t)
	}
	w.expect(ids...)
	for range 20 {
		expectList(t, r, ids...)
	}
	for i, c := range children {
		if i%2 == 1 {
			_ = c.cmd.Process.Kill()
		}
	}
	w.expect(even...)
	expectList(t, r, even...)
	for _, c := range children {
		_ = c.cmd.Process.Kill()
	}
	w.expect()
	eventually(t, "the folder is empty", func() bool {
		expectList(t, r)
		entries, err := os.ReadDir(dir)
		return err == nil && len(entries) == 0
	})
}

// Of those who register one id at once exactly one gets it: with nothing there before, and with what a dead owner left.
func TestOneIDRace(t *testing.T) {
	t.Parallel()
	const owners, rounds = 8, 40
	dir := t.TempDir()
	var rs []*local.Registry
	for range owners {
		rs = append(rs, open(t, local.Options{Dir: dir}))
	}
	for round := range rounds {
		n := node("greeter", fmt.Sprintf("race-%d", round))
		if round%2 == 1 {
			dead, err := local.New(local.Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			register(t, dead, n)
			dead.Kill()
		}
		errs := make([]error, owners)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i, r := range rs {
			wg.Go(func() {
				<-start
				errs[i] = r.Register(t.Context(), n, 0)
			})
		}
		close(start)
		wg.Wait()
		expectOneWinner(t, errs)
		if nodes, err := rs[0].Get(t.Context(), "greeter"); err != nil || len(nodes) != round+1 {
			t.Fatalf("round %d: %d nodes, %v", round, len(nodes), err)
		}
	}
}

func expectOneWinner(t *testing.T, errs []error) {
	t.Helper()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, registry.ErrConflict):
			t.Fatal(err)
		}
	}
	if won != 1 {
		t.Fatalf("%d owners of one id", won)
	}
}

func TestOneIDRaceOfProcesses(t *testing.T) {
	t.Parallel()
	const owners, rounds = 4, 25
	dir := t.TempDir()
	var children []*child
	for range owners {
		children = append(children, spawn(t, "race "+dir+" race"))
	}
	for _, c := range children {
		c.ready(t)
	}
	for round := range rounds {
		for _, c := range children {
			if _, err := c.stdin.Write([]byte("go\n")); err != nil {
				t.Fatal(err)
			}
		}
		won := 0
		for _, c := range children {
			switch line := c.says(t); line {
			case "won":
				won++
			case "taken":
			default:
				t.Fatal(line)
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d owners of one id", round, won)
		}
	}
}

func TestConflictNamesTheHolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := spawn(t, "register "+dir+" greeter 1")
	c.ready(t)
	r := open(t, local.Options{Dir: dir})
	err := r.Register(t.Context(), node("auth", "greeter-0"), 0)
	if !errors.Is(err, registry.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprint(c.cmd.Process.Pid)) {
		t.Errorf("got %v, want ErrConflict with the process %d", err, c.cmd.Process.Pid)
	}
	if err := r.Deregister(t.Context(), node("auth", "greeter-0")); err != nil {
		t.Errorf("a node of that service is not there: %v", err)
	}
	expectList(t, r, "greeter-0")
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait()
	register(t, r, node("auth", "greeter-0"))
}

func TestRenewalWritesNothing(t *testing.T) {
	t.Parallel()
	r := open(t, local.Options{Dir: t.TempDir()})
	n := node("greeter", "g-1")
	register(t, r, n)
	before, err := os.Stat(r.Path(n.ID))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		register(t, r, n.Clone())
	}
	after, err := os.Stat(r.Path(n.ID))
	if err != nil || !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Errorf("the file was written anew: %v", err)
	}
	if mode := after.Mode().Perm(); mode != 0o600 && os.PathSeparator == '/' {
		t.Errorf("the file's mode is %#o", mode)
	}
}

func TestRemovedFileComesBack(t *testing.T) {
	t.Parallel()
	for name, restore := range map[string]func(t *testing.T, r *local.Registry, n registry.Node){
		"with the next renewal": func(t *testing.T, r *local.Registry, n registry.Node) { register(t, r, n) },
		"by itself":             func(_ *testing.T, r *local.Registry, _ registry.Node) { r.RestoreNow() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logbook
			dir := t.TempDir()
			owner, reader := open(t, local.Options{Dir: dir, Logger: log.logger()}), open(t, local.Options{Dir: dir})
			n := node("greeter", "g-1")
			register(t, owner, n)
			w := watch(t, reader)
			w.expect("g-1")
			for range 2 {
				if err := os.Remove(owner.Path(n.ID)); err != nil {
					t.Fatal(err)
				}
				w.expect()
				restore(t, owner, n)
				w.expect("g-1")
				expectList(t, reader, "g-1")
			}
			if name == "by itself" && log.lines("is back") != 2 {
				t.Errorf("log: %s", &log)
			}
		})
	}
}

// What was deleted, and taken by another owner, is that one's.
func TestRemovedFileTaken(t *testing.T) {
	t.Parallel()
	for name, quiet := range map[string]bool{"renewal": false, "restore": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logbook
			dir := t.TempDir()
			a, b := open(t, local.Options{Dir: dir, Logger: log.logger()}), open(t, local.Options{Dir: dir})
			n, m := node("greeter", "g-1"), node("greeter", "g-1")
			m.Address = "127.0.0.1:4712"
			register(t, a, n)
			if err := os.Remove(a.Path(n.ID)); err != nil {
				t.Fatal(err)
			}
			register(t, b, m)
			if quiet {
				a.RestoreNow()
				if log.lines("has taken its id") != 1 {
					t.Errorf("log: %s", &log)
				}
			}
			if err := a.Register(t.Context(), n, 0); !errors.Is(err, registry.ErrConflict) {
				t.Errorf("got %v, want ErrConflict", err)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
			if nodes, err := b.Get(t.Context(), "greeter"); err != nil || len(nodes) != 1 || nodes[0].Address != m.Address {
				t.Errorf("got %v, %v", nodes, err)
			}
		})
	}
}

func TestRemovedFolderComesBack(t *testing.T) {
	t.Parallel()
	for name, poll := range map[string]bool{"events": false, "poll": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := filepath.Join(t.TempDir(), "parent")
			dir := filepath.Join(parent, "nodes")
			owner := open(t, local.Options{Dir: dir})
			reader := open(t, local.Options{Dir: dir, Poll: poll, PollInterval: pollInterval})
			w := watch(t, reader)
			n, m := node("greeter", "g-1"), node("greeter", "g-2")
			register(t, owner, n)
			w.expect("g-1")
			removals := []func() error{
				func() error { return os.RemoveAll(dir) },
				func() error { return os.RemoveAll(parent) },
				func() error { return os.Rename(dir, fmt.Sprintf("%s-%d", dir, time.Now().UnixNano())) },
			}
			for _, remove := range removals {
				eventually(t, "the folder is gone", func() bool { return remove() == nil }) // the watch may make it anew at once
				w.expect()
				register(t, owner, n) // a renewal
				w.expect("g-1")
				register(t, owner, m) // and the watch goes on in the new folder
				w.expect("g-1", "g-2")
				if err := owner.Deregister(t.Context(), m); err != nil {
					t.Fatal(err)
				}
				w.expect("g-1")
				expectList(t, reader, "g-1")
			}
		})
	}
}

func TestLargeRecord(t *testing.T) {
	t.Parallel()
	r := open(t, local.Options{Dir: t.TempDir()})
	n := node("greeter", "g-1")
	for i := range registry.MaxEndpoints {
		n.Endpoints = append(n.Endpoints, endpoint(fmt.Sprintf("Say.Hello%d", i)))
	}
	register(t, r, n)
	nodes, err := r.Get(t.Context(), "greeter")
	if err != nil || len(nodes) != 1 || nodes[0].Endpoints != nil {
		t.Fatalf("got %d nodes, %v; want one without endpoints", len(nodes), err)
	}
	register(t, r, n)
}

func TestFileNames(t *testing.T) {
	t.Parallel()
	r := open(t, local.Options{Dir: t.TempDir()})
	seen := map[string]string{}
	ids := []string{
		"a", "A", "con", "con.1", "a.json", "a-b", "a.b", "a_b", "Greeter-1", "greeter-1",
		"a/b", "a/b/c.d", "a_b/c", "a/./b",
		strings.Repeat("x", registry.MaxName+32), strings.Repeat("x", registry.MaxName+31), strings.Repeat("X", registry.MaxName+32),
	}
	for _, id := range ids {
		register(t, r, node("greeter", id))
		name := filepath.Base(r.Path(id))
		if other, ok := seen[strings.ToLower(name)]; ok {
			t.Errorf("%q and %q have one file, %s", id, other, name)
		}
		seen[strings.ToLower(name)] = id
		if len(name) > 128 || strings.Count(name, ".") != 2 {
			t.Errorf("%q has the file %s", id, name)
		}
		if _, err := os.Stat(r.Path(id)); err != nil {
			t.Error(err)
		}
	}
	expectList(t, r, ids...)
}

func TestNegativeTTL(t *testing.T) {
	t.Parallel()
	r := open(t, local.Options{Dir: t.TempDir()})
	if err := r.Register(t.Context(), node("greeter", "g-1"), -time.Second); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

// What earlier processes left is removed once it is old: a file that was never finished, a node of another namespace.
func TestSweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := open(t, local.Options{Dir: dir})
	n := node("greeter", "g-1")
	files := map[string]time.Duration{
		r.Path("x") + ".young":        0,
		dir + "/.unfinished":          time.Hour,
		dir + "/.unfinished-just-now": 0,
		r.PathElsewhere("old"):        48 * time.Hour,
		r.PathElsewhere("young"):      time.Hour,
	}
	for path, age := range files {
		if err := os.WriteFile(path, r.RecordElsewhere(n), 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	register(t, r, n)
	exists := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	eventually(t, "old files are gone", func() bool { return !exists(dir+"/.unfinished") && !exists(r.PathElsewhere("old")) })
	for _, path := range []string{r.Path("x") + ".young", dir + "/.unfinished-just-now", r.PathElsewhere("young")} {
		if !exists(path) {
			t.Errorf("%s was removed", path)
		}
	}
}
