package local_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "nodes")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for raw, want := range map[string]string{
		"local://?dir=" + url.QueryEscape(dir):  "",
		"local:///?dir=" + dir:                  "",
		"local://?dir=" + url.QueryEscape(file): file,
		"local://?dri=x":                        `unknown parameter "dri"`,
		"local://?dir=a&dir=b":                  "2 times",
		"local://host":                          "want local://",
		"local:///some/path":                    "want local://",
		"local:opaque":                          "want local://",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		r, err := local.Open(t.Context(), u)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "registry: ") {
				t.Errorf("%s: got %v, want %q", raw, err, want)
			}
			if r != nil {
				t.Errorf("%s: beside the error there is a registry, %#v", raw, r)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		register(t, r, node("greeter", "g-1"))
		expectList(t, r, "g-1")
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if fi, err := os.Stat(dir); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", fi, err)
	}
}

func TestUnusableFolder(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("modes and symbolic links")
	}
	base := t.TempDir()
	link, file, open := filepath.Join(base, "link"), filepath.Join(base, "file"), filepath.Join(base, "open")
	for _, err := range []error{
		os.Symlink(t.TempDir(), link), os.WriteFile(file, nil, 0o600), os.Mkdir(open, 0o700), os.Chmod(open, 0o777),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]string{link: "symbolic link", file: "not a directory", open: "chmod 700", filepath.Join(file, "x"): "not a directory"}
	if os.Getuid() == 0 {
		foreign := filepath.Join(base, "foreign")
		if err := os.Mkdir(foreign, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(foreign, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		cases[foreign] = "belongs to user 65534"
	}
	for dir, want := range cases {
		_, err := local.New(local.Options{Dir: dir})
		if !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: got %v, want ErrUnavailable with %q", dir, err, want)
		}
	}
	if _, err := local.New(local.Options{Dir: base, PollInterval: -1}); err == nil {
		t.Error("a negative poll interval was taken")
	}
}

// A folder that became unusable while it was in use is an error of each call, and of a watch once; it is not an empty set.
func TestFolderTurnsUnusable(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("modes")
	}
	dir := filepath.Join(t.TempDir(), "nodes")
	r := open(t, local.Options{Dir: dir, Poll: true, PollInterval: pollInterval})
	n := node("greeter", "g-1")
	register(t, r, n)
	w := watch(t, r)
	w.expect("g-1")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := r.List(t.Context())
	for what, err := range map[string]error{"List": err, "Register": r.Register(t.Context(), n, 0)} {
		if !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("%s gave %v, want ErrUnavailable", what, err)
		}
	}
	w.until("an error", func() bool { return len(w.errs) == 1 && errors.Is(w.errs[0], registry.ErrUnavailable) })
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.until("the set again", func() bool { return w.sets == 2 && len(w.errs) == 1 })
	w.expect("g-1")
}

func TestDefaultFolder(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("not decided by XDG_RUNTIME_DIR")
	}
	base := t.TempDir()
	good, bad, temp := filepath.Join(base, "good"), filepath.Join(base, "bad"), filepath.Join(base, "tmp")
	for _, dir := range []string{good, bad, temp} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(bad, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)
	for _, c := range []struct{ run, want string }{
		{good, filepath.Join(good, "micro")},
		{bad, temp},
		{"relative", temp},
		{"", temp},
		{filepath.Join(base, "missing"), temp},
	} {
		t.Setenv("XDG_RUNTIME_DIR", c.run)
		r := open(t, local.Options{})
		if fi, err := os.Stat(r.Dir()); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%q: %v, %v", c.run, fi, err)
		}
		if !strings.HasPrefix(r.Dir(), c.want) && !strings.HasPrefix(r.Dir(), "/run/user/") {
			t.Errorf("%q: the folder is %s, want it in %s", c.run, r.Dir(), c.want)
		}
	}
	// A default folder is private altogether; where none can be used the error says why of each.
	t.Setenv("XDG_RUNTIME_DIR", good)
	if err := os.Chmod(filepath.Join(good, "micro"), 0o755); err != nil {
		t.Fatal(err)
	}
	var log logbook
	if r := open(t, local.Options{Logger: log.logger()}); filepath.Dir(r.Dir()) == good || log.lines("preferred folder") != 1 {
		t.Errorf("the folder is %s, log: %s", r.Dir(), &log)
	}
	mine, err := filepath.Glob(filepath.Join(temp, "micro-*"))
	if err != nil || len(mine) != 1 && !isDir("/run/user/") {
		t.Fatal(mine, err)
	}
	for _, dir := range mine {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(base, dir); err != nil {
			t.Fatal(err)
		}
	}
	_, err = local.New(local.Options{})
	if err == nil && !isDir("/run/user/") {
		t.Error("an open folder and a symbolic link were taken")
	}
	if err != nil && (!strings.Contains(err.Error(), "chmod 700") || !strings.Contains(err.Error(), "symbolic link")) {
		t.Error(err)
	}
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// Whatever else lies in the folder: it is ignored, said once, and left alone.
func TestOddities(t *testing.T) {
	t.Parallel()
	var log logbook
	dir := t.TempDir()
	r := open(t, local.Options{Dir: dir, Logger: log.logger()})
	w := watch(t, r)
	register(t, r, node("greeter", "g-1"))
	w.expect("g-1")
	files := map[string][]byte{
		dir + "/README":       []byte("hello"),
		dir + "/garbage.json": []byte("{"),
		r.Path("empty"):       nil,
		r.Path("garbage"):     []byte("\x00\xff\x00"),
		r.Path("cut"):         r.Record(node("greeter", "cut"))[:60],
		r.Path("huge"):        make([]byte, 1<<20),
		r.Path("other-name"):  r.Record(node("greeter", "name")),
		r.Path("invalid"):     []byte(strings.ReplaceAll(string(r.Record(node("greeter", "invalid"))), "127.0.0.1:4711", "\\u001b[31m")),
		r.Path("new-format"):  []byte(strings.Replace(string(r.Record(node("greeter", "new-format"))), `"version":1`, `"version":2`, 1)),
		r.Path("elsewhere"):   r.RecordElsewhere(node("greeter", "elsewhere")),
	}
	whole := filepath.Join(t.TempDir(), "whole") // nobody is to see half a file
	for path, data := range files {
		if err := os.WriteFile(whole, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(whole, path); err != nil {
			t.Fatal(err)
		}
	}
	quiet := r.PathElsewhere("elsewhere")
	if err := os.WriteFile(quiet, r.RecordElsewhere(node("greeter", "elsewhere")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.Path("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	files[r.Path("folder")] = nil
	for range 3 {
		expectList(t, r, "g-1")
	}
	register(t, r, node("greeter", "g-2"))
	w.expect("g-1", "g-2")
	for path := range files {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("it was removed: %v", err)
		}
		if count := log.lines(filepath.Base(path)); count != 1 {
			t.Errorf("%d log lines of %s", count, path)
		}
	}
	if log.lines(filepath.Base(quiet)) != 0 {
		t.Errorf("a node of another namespace was logged")
	}
}

// A node whose file's place is taken by no file is refused, with what to do; one that is no record gives way.
func TestPlaceTaken(t *testing.T) {
	t.Parallel()
	r := open(t, local.Options{Dir: t.TempDir()})
	if err := os.Mkdir(r.Path("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := r.Register(t.Context(), node("greeter", "folder"), 0)
	if !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), r.Path("folder")) || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("got %v, want ErrUnavailable that says what to remove", err)
	}
	if err := os.WriteFile(r.Path("garbage"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	register(t, r, node("greeter", "garbage"))
	expectList(t, r, "garbage")
}
