//go:build unix

package local_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
)

// Entries that are no regular files of the user are not waited for, not followed, and not believed.
func TestSpecialFiles(t *testing.T) {
	t.Parallel()
	var log logbook
	dir := t.TempDir()
	owner := open(t, local.Options{Dir: dir})
	register(t, owner, node("greeter", "g-1"))
	r := open(t, local.Options{Dir: dir, Logger: log.logger()})
	elsewhere := t.TempDir() + "/record"
	if err := os.WriteFile(elsewhere, r.Record(node("greeter", "linked")), 0o600); err != nil {
		t.Fatal(err)
	}
	for id, err := range map[string]error{
		"fifo":     unix.Mkfifo(r.Path("fifo"), 0o600),
		"linked":   os.Symlink(elsewhere, r.Path("linked")),
		"loop":     os.Symlink(r.Path("loop"), r.Path("loop")),
		"dangling": os.Symlink("/nowhere", r.Path("dangling")),
		"alias":    os.Symlink(owner.Path("g-1"), r.Path("alias")),
	} {
		if err != nil {
			t.Fatal(id, err)
		}
	}
	odd := []string{"fifo", "linked", "loop", "dangling", "alias"}
	if os.Getuid() == 0 {
		if err := os.WriteFile(r.Path("foreign"), r.Record(node("greeter", "foreign")), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(r.Path("foreign"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		odd = append(odd, "foreign")
	}
	for range 2 {
		expectList(t, r, "g-1")
	}
	for _, id := range odd {
		if log.lines("/"+id+"@")+log.lines("file="+id+"@") != 1 {
			t.Errorf("%s is not logged once:\n%s", id, &log)
		}
		if _, err := os.Lstat(r.Path(id)); err != nil {
			t.Errorf("%s was removed: %v", id, err)
		}
		if err := r.Register(t.Context(), node("greeter", id), 0); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("%s: Register gave %v, want ErrUnavailable", id, err)
		}
	}
}

// A process that is stopped, with the folder's lock in its hands at that, keeps nobody from reading or registering.
func TestStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := spawn(t, "register "+dir+" stopped 1")
	c.ready(t)
	if err := c.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	r := open(t, local.Options{Dir: dir})
	w := watch(t, r)
	w.expect("stopped-0")
	dead := open(t, local.Options{Dir: dir})
	register(t, dead, node("greeter", "dead"))
	register(t, r, node("greeter", "g-1"))
	w.expect("dead", "g-1", "stopped-0")
	dead.Kill()
	w.expect("g-1", "stopped-0")
	expectList(t, r, "g-1", "stopped-0")
	err = r.Register(t.Context(), node("greeter", "dead"), 0)
	if !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), r.Path("dead")) {
		t.Errorf("got %v, want ErrUnavailable that names the file in the way", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	register(t, r, node("greeter", "dead"))
	w.expect("dead", "g-1", "stopped-0")
}

// A process that has run out of descriptors does not take the set for empty.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	register(t, open(t, local.Options{Dir: dir}), node("greeter", "g-1"))
	c := spawn(t, "exhausted "+dir, "sh", "-c", `ulimit -n 64; exec "$0" "$@"`)
	if line := c.says(t); line != "nodes 0 true" {
		t.Errorf("the child says %q, want no nodes and ErrUnavailable", line)
	}
}
