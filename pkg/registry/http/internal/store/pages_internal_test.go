package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzRead: whatever a file holds, it is read or refused, and what is read has its number and sum.
func FuzzRead(f *testing.F) {
	var records []Record
	for i := range 40 {
		records = append(records, Record{ID: fmt.Sprint("node-", i), Node: []byte(strings.Repeat("x", 200))})
	}
	path := filepath.Join(f.TempDir(), FileName)
	if err := create(path, records); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte(nil), uint32(len(whole)))
	f.Add(uint32(4096*3+16), []byte{0xff, 0xff, 0xff, 0xff}, uint32(len(whole)))
	f.Add(uint32(24), []byte{1}, uint32(5000))
	f.Fuzz(func(t *testing.T, at uint32, over []byte, size uint32) {
		data := slices.Clone(whole)
		copy(data[int(at)%len(data):], over)
		data = data[:min(int(size), len(data))]
		if c, err := read("file", data); err == nil {
			want, err := decodeSum(c.about[string(sumKey)])
			if err != nil || want.count != uint64(len(c.records)) {
				t.Errorf("%d records, want %d, %v", len(c.records), want.count, err)
			}
		}
		r := &reader{path: "file", data: data, seen: map[uint64]bool{}, bad: func(*DamageError) error { return nil }}
		if r.metas(true) == nil {
			if _, err := r.contents(); err != nil { // as Salvage reads it
				t.Error(err)
			}
		} else {
			r.meta.pageSize = 4096
		}
		for _, rec := range r.scan() {
			if len(rec.Node) != 200 || !strings.HasPrefix(rec.ID, "node-") {
				t.Errorf("a record that was never written: %q", rec.ID)
			}
		}
	})
}
