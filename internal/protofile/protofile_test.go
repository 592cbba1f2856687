package protofile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/protofile"
)

// write writes files below a folder of the test's.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	common  = "syntax = \"proto3\";\npackage shop;\nmessage Item { string name = 1; }\n"
	service = "syntax = \"proto3\";\npackage shop;\nimport \"api/common.proto\";\nimport \"google/protobuf/timestamp.proto\";\n" +
		"service Shop {\n  // Gives an item.\n  rpc Get(Item) returns (stream google.protobuf.Timestamp);\n}\n"
)

// TestLoad holds how files and what they import are found.
func TestLoad(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"api/common.proto": common, "api/shop.proto": service,
		"flat/common.proto": common, "flat/shop.proto": strings.ReplaceAll(service, "api/", "")})
	for name, c := range map[string]struct{ file, path string }{
		"below a path":        {filepath.Join(dir, "api", "shop.proto"), dir},
		"by its name":         {"api/shop.proto", dir},
		"from its own folder": {filepath.Join(dir, "flat", "shop.proto"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var paths []string
			if c.path != "" {
				paths = append(paths, c.path)
			}
			fds, err := protofile.Load(t.Context(), []string{c.file}, paths)
			if err != nil {
				t.Fatal(err)
			}
			m := fds[0].Services().ByName("Shop").Methods().ByName("Get")
			if !m.IsStreamingServer() || m.Input().FullName() != "shop.Item" {
				t.Errorf("got %v", m)
			}
			if got := fds[0].SourceLocations().ByDescriptor(m).LeadingComments; got != " Gives an item.\n" {
				t.Errorf("got the comment %q", got)
			}
		})
	}
}

// TestErrors holds that a file that is wrong is told with the place in it.
func TestErrors(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"bad.proto": "syntax = \"proto3\";\nmessage A { strin name = 1; }\n", "worse.proto": "message {\n",
		"alone.proto": "syntax = \"proto3\";\nimport \"gone.proto\";\n"})
	for _, c := range []struct {
		name, want string
		source     bool
	}{
		{"bad.proto", "bad.proto:2:13:", true},
		{"worse.proto", "worse.proto:1:9:", true},
		{"alone.proto", "alone.proto:2:8:", true},
		{"none.proto", "none.proto", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := protofile.Load(t.Context(), []string{filepath.Join(dir, c.name)}, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, protofile.ErrSource) != c.source {
				t.Errorf("got %v", err)
			}
			if !c.source && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v, want fs.ErrNotExist", err)
			}
		})
	}
	if _, err := protofile.Load(t.Context(), []string{dir}, nil); err == nil {
		t.Error("a folder was read")
	}
}
