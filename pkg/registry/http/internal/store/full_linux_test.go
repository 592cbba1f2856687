package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry/http/internal/store"
)

// TestFault_R5_FullDisk: writes are refused as long as there is no room, and taken within a second after there is; nothing is lost.
func TestFault_R5_FullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a small file system")
	}
	t.Parallel()
	dir := t.TempDir()
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	defer func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	ballast := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 600<<10), 0o600))
	s, _ := open(t, dir)
	var kept []store.Record
	var full *store.FullError
	for i := 0; full == nil; i++ {
		r := record(string(rune('a'+i)), 20_000)
		err := s.Put(r)
		switch {
		case err == nil:
			kept = append(kept, r)
		case !errors.As(err, &full):
			t.Fatal(err)
		case i > 100:
			t.Fatal("2 MB fit into 1 MB")
		}
	}
	if s.Full() == nil {
		t.Error("the store does not say that it is full")
	}
	must(t, s.Remove("a")) // waits for room, and is no error
	kept = kept[1:]
	must(t, os.Remove(ballast))
	room := time.Now()
	for s.Full() != nil {
		if time.Since(room) > 5*time.Second {
			t.Fatal("still full")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if d := time.Since(room); d > 2*time.Second {
		t.Errorf("took %v to see that there is room", d)
	}
	last := record("z", 20_000)
	must(t, s.Put(last))
	must(t, s.Close())
	if _, got := open(t, dir); !same(got, append(kept, last)) {
		t.Errorf("%d records after all, want %d", len(got), len(kept)+1)
	} else {
		t.Logf("%d records fit", len(kept))
	}
}
