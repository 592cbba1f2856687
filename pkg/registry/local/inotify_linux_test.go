package local_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cb02dfca/micro/pkg/registry/local"
)

// The test leaks no descriptor: it runs before the parallel ones.
func TestDescriptors(t *testing.T) {
	count := func() int {
		t.Helper()
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	use := func() {
		t.Helper()
		dir := t.TempDir()
		owner, dead := open(t, local.Options{Dir: dir}), open(t, local.Options{Dir: dir})
		inotify := func() int {
			open := 0
			entries, _ := os.ReadDir("/proc/self/fd")
			for _, e := range entries {
				if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.Contains(to, "inotify") {
					open++
				}
			}
			return open
		}
		register(t, dead, node("greeter", "dead"))
		register(t, owner, node("greeter", "g-1"))
		dead.Kill()
		for i := range 5 {
			n := node("greeter", "g-1")
			n.Metadata["i"] = string(rune('a' + i))
			register(t, owner, n)
			expectList(t, owner, "g-1")
			_ = open(t, local.Options{Dir: dir}).Register(t.Context(), n, 0) // taken
			for range owner.Watch(t.Context(), "") {
				if inotify() == 0 {
					t.Error("no inotify instance while a watch is open: the test does not test")
				}
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
		eventually(t, "no inotify instance is open when nobody watches", func() bool { return inotify() == 0 })
		if err := owner.Close(); err != nil {
			t.Error(err)
		}
	}
	use() // what the runtime opens once
	before := count()
	for range 5 {
		use()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// unshare gives the command that runs another in namespaces of its own, or skips the test.
func unshare(t *testing.T, args ...string) []string {
	t.Helper()
	for _, argv := range [][]string{append([]string{"unshare"}, args...), append([]string{"unshare", "--user", "--map-current-user"}, args...)} {
		if exec.Command(argv[0], append(argv[1:], "true")...).Run() == nil {
			return argv
		}
	}
	t.Skipf("SKIPPED, and so not tested here: unshare %s is not possible", strings.Join(args, " "))
	return nil
}

// Nodes of another network namespace do not show, do not hold an id, and are not taken for dead.
func TestNetworkNamespace(t *testing.T) {
	t.Parallel()
	argv := unshare(t, "--net")
	dir := t.TempDir()
	r := open(t, local.Options{Dir: dir})
	w := watch(t, r)
	w.expect()
	c := spawn(t, "register "+dir+" twin 2", argv...)
	c.ready(t)
	register(t, r, node("greeter", "twin-1"))
	w.expect("twin-1")
	expectList(t, r, "twin-1")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("%d files, %v; want two of the other namespace and one of this", len(entries), err)
	}
	other := spawn(t, "list "+dir, argv...) // a third namespace
	if line := other.says(t); line != "nodes 0 <nil>" {
		t.Errorf("in a third namespace: %s", line)
	}
}

// Where the user has no inotify instance left, a watch polls, and sees the same.
func TestInotifyExhausted(t *testing.T) {
	t.Parallel()
	if exec.Command("unshare", "--user", "--map-root-user", "sh", "-c", "echo 0 > /proc/sys/user/max_inotify_instances").Run() != nil {
		t.Skip("SKIPPED, and so not tested here: a user namespace with no inotify instances is not possible")
	}
	dir := t.TempDir()
	r := open(t, local.Options{Dir: dir})
	register(t, r, node("greeter", "g-1"))
	c := spawn(t, "watch "+dir, "unshare", "--user", "--map-root-user", "sh", "-c",
		`echo 0 > /proc/sys/user/max_inotify_instances; exec "$0" "$@"`)
	expect := func(want string) {
		t.Helper()
		if line := c.says(t); line != want {
			t.Fatalf("the child says %q, want %q", line, want)
		}
	}
	expect("nodes 1 <nil>")
	register(t, r, node("greeter", "g-2"))
	expect("nodes 2 <nil>")
	dead := open(t, local.Options{Dir: dir})
	register(t, dead, node("greeter", "g-3"))
	expect("nodes 3 <nil>")
	dead.Kill()
	expect("nodes 2 <nil>")
	fds := fmt.Sprintf("/proc/%d/fd/", c.cmd.Process.Pid)
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink(fds + e.Name()); strings.Contains(to, "inotify") {
			t.Error("the child has an inotify instance: the test does not test")
		}
	}
}

// Where a file system cannot rename exclusively the file is linked; its owner's death is seen as well.
func TestLinked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := open(t, local.Options{Dir: dir})
	w := watch(t, r)
	w.expect()
	f, err := local.PublishLinked(dir, node("greeter", "linked"))
	if err != nil {
		t.Fatal(err)
	}
	w.expect("linked")
	if _, err := local.PublishLinked(dir, node("greeter", "linked")); !os.IsExist(err) {
		t.Errorf("a link over what is there gave %v", err)
	}
	_ = f.Close()
	w.expect()
}

// The kernel tells of a closed file a moment before it lets go of its lock. A watch that looks in between looks again,
// and does not wait for the next reading of the whole folder.
func TestClosedBeforeUnlocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := open(t, local.Options{Dir: dir})
	w := watch(t, r)
	f, err := local.PublishLinked(dir, node("greeter", "g-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w.expect("g-1")
	touched, err := os.OpenFile(r.Path("g-1"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_ = touched.Close() // the event
	register(t, r, node("greeter", "g-2"))
	w.expect("g-1", "g-2") // it was looked at, and lives
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	w.expect("g-2")
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("it took %v: only a reading of the whole folder saw it", took)
	}
}

func TestNetworkFileSystems(t *testing.T) {
	t.Parallel()
	for magic, want := range map[uint32]string{ // linux/magic.h
		0x6969: "nfs", 0xFF534D42: "smb", 0xFE534D42: "smb", 0x01021997: "9p", 0x00C36400: "ceph",
		0x01021994: "" /* tmpfs */, 0xEF53: "" /* ext4 */, 0x794C7630: "" /* overlayfs */, 0x65735546: "" /* FUSE: perhaps local */, 0: "",
	} {
		if got := local.NetworkFSType(magic); got != want {
			t.Errorf("%#x: %q, want %q", magic, got, want)
		}
	}
}

// FuzzParseEvents: no bytes of the kernel's make the parser fail.
func FuzzParseEvents(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 'a', '@', 'b', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Add([]byte{1, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		for name := range local.ParseEvents(data) {
			if name == "" || strings.ContainsRune(name, 0) {
				t.Errorf("the name %q", name)
			}
		}
	})
}
