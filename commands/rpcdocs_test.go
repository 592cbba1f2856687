//go:build unix

package commands_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPageOfRPCFormats: the lines with curl of docs/rpc-formats.md do what the page says of them.
func TestPageOfRPCFormats(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "docs", "rpc-formats.md"))
	if err != nil {
		t.Fatal(err)
	}
	at := serve(t, "builtin:greeter").address()
	lines, n := strings.Split(string(page), "\n"), 0
	for i := 0; i < len(lines); i++ {
		line, command := strings.CutPrefix(lines[i], "    $ ")
		if !command || !strings.Contains(line, "curl ") {
			continue
		}
		n++
		want := ""
		for ; i+1 < len(lines) && strings.HasPrefix(lines[i+1], "    ") && !strings.HasPrefix(lines[i+1], "    $ "); i++ {
			want += strings.TrimPrefix(lines[i+1], "    ") + "\n"
		}
		got, err := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(line, "127.0.0.1:8080", at)).Output()
		if strings.TrimRight(string(got), "\n") != strings.TrimRight(want, "\n") || err != nil {
			t.Errorf("%s\nprints %s%v, want %s", line, got, err, want)
		}
	}
	if n < 6 {
		t.Errorf("%d lines with curl", n)
	}
}
