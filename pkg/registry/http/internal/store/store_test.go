package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func record(id string, size int) store.Record {
	return store.Record{ID: id, Owner: [32]byte{1, 2, 3}, TTL: 30 * time.Second, Node: []byte(strings.Repeat(id, size/len(id)+1))}
}

func open(t *testing.T, dir string) (*store.Store, []store.Record) {
	t.Helper()
	s, records, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, records
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// same compares records whatever their order.
func same(got, want []store.Record) bool {
	text := func(all []store.Record) []string {
		var out []string
		for _, r := range all {
			out = append(out, fmt.Sprintf("%s %x %v %s", r.ID, r.Owner, r.TTL, r.Node))
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(text(got), text(want))
}

func TestRecordsOutlastTheStore(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "for", "it")
	s, records := open(t, dir)
	if len(records) != 0 || !s.Fresh() {
		t.Errorf("a new file has %d records, fresh %t", len(records), s.Fresh())
	}
	want := []store.Record{record("a", 10), record("b/c", 60_000), record("d", 1)}
	for _, r := range append(want, record("a", 20), record("x", 5), record("y", 5), want[0]) {
		must(t, s.Put(r))
	}
	must(t, s.Remove("x", "nobody"))
	s.Forget("y")
	epoch, first := s.Epoch(), s.FirstRevision()
	must(t, s.Close())
	must(t, s.Close())
	if err := s.Put(want[0]); !errors.Is(err, registry.ErrClosed) {
		t.Errorf("Put after Close gave %v", err)
	}
	s, records = open(t, dir)
	if !same(records, want) {
		t.Errorf("got %d records, want %d", len(records), len(want))
	}
	if s.Epoch() != epoch || len(epoch) != 32 || s.Fresh() || s.FirstRevision() <= first {
		t.Errorf("epoch %s, was %s; fresh %t; first revision %d, was %d", s.Epoch(), epoch, s.Fresh(), s.FirstRevision(), first)
	}
	info, err := os.Stat(s.Path())
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v", info.Mode())
	}
}

// TestWritersShareTransactions: many writers at once need few of them.
func TestWritersShareTransactions(t *testing.T) {
	t.Parallel()
	s, _ := open(t, t.TempDir())
	const writers = 200
	var writing sync.WaitGroup
	begin := make(chan struct{})
	for i := range writers {
		writing.Go(func() {
			<-begin
			if err := s.Put(record(fmt.Sprint("node-", i), 300)); err != nil {
				t.Error(err)
			}
		})
	}
	close(begin)
	writing.Wait()
	if n := s.Commits(); n > writers/2 {
		t.Errorf("%d writers at once cost %d transactions", writers, n)
	}
}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir)
	if _, _, err := store.Open(store.Options{Dir: dir}); !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second Open gave %v", err)
	}
	if _, _, err := store.Salvage(dir); !errors.Is(err, store.ErrLocked) {
		t.Errorf("Salvage of an open file gave %v", err)
	}
}

// TestFilesOfOthers: what is no registry's file is left as it is.
func TestFilesOfOthers(t *testing.T) {
	t.Parallel()
	other := func(path string) error {
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucket([]byte("bank"))
			if err != nil {
				return err
			}
			return b.Put([]byte("key"), []byte("value"))
		})
		return errors.Join(err, db.Close())
	}
	for name, write := range map[string]func(path string) error{
		"empty":              func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"text":               func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("hello\n", 5000)), 0o600) },
		"zeros":              func(path string) error { return os.WriteFile(path, make([]byte, 1<<16), 0o600) },
		"of another program": other,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, store.FileName)
			must(t, write(path))
			before, err := os.ReadFile(path)
			must(t, err)
			s, _, err := store.Open(store.Options{Dir: dir})
			var damage *store.DamageError
			if !errors.As(err, &damage) || damage.Path != path {
				t.Errorf("got %v", err)
			}
			if s != nil {
				must(t, s.Close())
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}

// sample is a file of some pages, with branches and long records.
func sample(t *testing.T) (data []byte, records []store.Record) {
	t.Helper()
	dir := t.TempDir()
	s, _ := open(t, dir)
	for i := range 60 {
		r := record(fmt.Sprintf("node-%03d", i), 100+i*7)
		if i == 30 {
			r = record("node-030", 9000)
		}
		records = append(records, r)
		must(t, s.Put(r))
	}
	path := s.Path()
	must(t, s.Close())
	data, err := os.ReadFile(path)
	must(t, err)
	return data, records
}

// reopen opens a file with these bytes. It gives no records where that is refused.
func reopen(t *testing.T, dir string, data []byte) ([]store.Record, error) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, store.FileName), data, 0o600))
	s, records, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		var damage *store.DamageError
		if !errors.As(err, &damage) {
			t.Errorf("not a DamageError: %v", err)
		}
		return nil, err
	}
	return records, s.Close()
}

// TestFault_R7_FlippedBits: a file in which a bit changed is refused, or gives all that was put. It is never shorter.
func TestFault_R7_FlippedBits(t *testing.T) {
	t.Parallel()
	data, want := sample(t)
	dir := t.TempDir()
	refused := 0
	for at := 0; at < len(data); at += 1 + at%311 { // other bytes of each page
		flipped := slices.Clone(data)
		flipped[at] ^= 1 << (at % 8)
		got, err := reopen(t, dir, flipped)
		switch {
		case err != nil:
			refused++
		case !same(got, want):
			t.Fatalf("with byte %d flipped the file opens with %d records of %d", at, len(got), len(want))
		}
	}
	if refused < 50 {
		t.Errorf("%d files were refused", refused)
	}
}

// TestFault_R7_TornFiles: a file that lacks its end, or a part of it, is refused.
func TestFault_R7_TornFiles(t *testing.T) {
	t.Parallel()
	data, want := sample(t)
	dir := t.TempDir()
	for size := 0; size < len(data); size += 1024 {
		if got, err := reopen(t, dir, data[:size]); err == nil && !same(got, want) {
			t.Errorf("the first %d bytes of %d open with %d records", size, len(data), len(got))
		}
		holed := slices.Clone(data)
		clear(holed[size:min(size+1024, len(holed))])
		if got, err := reopen(t, dir, holed); err == nil && !same(got, want) {
			t.Errorf("with a hole at %d it opens with %d records", size, len(got))
		}
	}
}

func TestSalvage(t *testing.T) {
	t.Parallel()
	data, want := sample(t)
	at := strings.Index(string(data), "node-007node-007node") // the last copy that was written is the one in use
	for next := at; next >= 0; {
		data[next] = '!'
		next = strings.Index(string(data), "node-007node-007node")
	}
	dir := t.TempDir()
	if _, err := reopen(t, dir, data); err == nil {
		t.Fatal("the damaged file was opened")
	}
	n, kept, err := store.Salvage(dir)
	must(t, err)
	if n != len(want)-1 {
		t.Errorf("salvaged %d records, want %d", n, len(want)-1)
	}
	if old, err := os.ReadFile(kept); err != nil || string(old) != string(data) {
		t.Errorf("the damaged file was not kept: %v", err)
	}
	if _, got := open(t, dir); !same(got, slices.DeleteFunc(slices.Clone(want), func(r store.Record) bool { return r.ID == "node-007" })) {
		t.Errorf("%d records after it", len(got))
	}
}

// TestSalvageOfAPart: where a half of the file is lost, wherever its root stood, the records of the other half are saved, each as it was.
func TestSalvageOfAPart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := open(t, dir)
	want := map[string]store.Record{}
	for i := range 1000 {
		r := record(fmt.Sprintf("node-%04d", i), 200)
		want[r.ID] = r
		must(t, s.Put(r))
	}
	must(t, s.Close())
	data, err := os.ReadFile(filepath.Join(dir, store.FileName))
	must(t, err)
	used := len(data)
	for data[used-1] == 0 {
		used--
	}
	half := used / 2 / 4096 * 4096
	for name, damaged := range map[string][]byte{
		"the second half is cut off":   data[:half+100],
		"the second half is zeros":     append(slices.Clone(data[:half]), make([]byte, len(data)-half)...),
		"the first half is zeros":      append(make([]byte, half), data[half:]...),
		"the pages' numbers are wrong": shifted(data),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if _, err := reopen(t, dir, damaged); err == nil {
				t.Fatal("the damaged file was opened")
			}
			n, _, err := store.Salvage(dir)
			must(t, err)
			if shift := strings.Contains(name, "numbers"); shift && n != 0 || !shift && n < 300 {
				t.Errorf("%d records were saved", n)
			}
			_, got := open(t, dir)
			if len(got) != n {
				t.Errorf("%d records, want %d", len(got), n)
			}
			for _, r := range got {
				if !same([]store.Record{r}, []store.Record{want[r.ID]}) {
					t.Errorf("%q is another", r.ID)
				}
			}
		})
	}
}

// shifted moves all pages by one, so that none is where it says.
func shifted(data []byte) []byte { return append(make([]byte, 3*4096), data[2*4096:]...) }

// TestSalvageLeavesOutTheDoubtful: of a node that two owners had, a page of before may have the wrong one.
func TestSalvageLeavesOutTheDoubtful(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := open(t, dir)
	for i := range 50 {
		must(t, s.Put(record(fmt.Sprint("node-", i), 200)))
	}
	taken := record("node-7", 200)
	taken.Owner[0]++
	must(t, s.Put(taken))
	must(t, s.Close())
	data, err := os.ReadFile(filepath.Join(dir, store.FileName))
	must(t, err)
	clear(data[:2*4096])
	dir = t.TempDir()
	if _, err := reopen(t, dir, data); err == nil {
		t.Fatal("the damaged file was opened")
	}
	n, _, err := store.Salvage(dir)
	must(t, err)
	if _, got := open(t, dir); n < 40 || slices.ContainsFunc(got, func(r store.Record) bool { return r.ID == "node-7" }) {
		t.Errorf("%d records, with node-7 perhaps", n)
	}
}

// TestFault_R6_FailedDisk: after a write that failed nothing is acknowledged any more.
func TestFault_R6_FailedDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var file *os.File
	s, _, err := store.Open(store.Options{Dir: dir, OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
		var err error
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}})
	must(t, err)
	defer s.Close()
	must(t, s.Put(record("a", 10)))
	must(t, file.Close()) // its writes fail from here on
	var failed *store.FailedError
	for range 3 {
		if err := s.Put(record("b", 10)); !errors.As(err, &failed) {
			t.Errorf("Put gave %v", err)
		}
	}
	if err := s.Remove("a"); !errors.As(err, &failed) {
		t.Errorf("Remove gave %v", err)
	}
	select {
	case <-s.Failed():
	default:
		t.Error("the store does not say that it failed")
	}
	if !errors.As(s.Err(), &failed) {
		t.Errorf("Err gave %v", s.Err())
	}
}

// TestManyAtOnce: what comes at once is written in several transactions, far fewer than there are changes, and Close leaves none of it out.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := open(t, dir)
	const writers = 1000
	var mu sync.Mutex
	var want []store.Record
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			r := record(fmt.Sprint("n", i), 100)
			switch err := s.Put(r); {
			case err == nil:
				mu.Lock()
				want = append(want, r)
				mu.Unlock()
			case !errors.Is(err, registry.ErrClosed):
				t.Error(err)
			}
		})
	}
	for s.Commits() < 4 {
		time.Sleep(time.Millisecond) // for some of them
	}
	must(t, s.Close())
	all.Wait()
	if n := int(s.Commits()); n < len(want)/64 || n > writers/2 {
		t.Errorf("%d transactions for %d changes", n, len(want))
	}
	if _, got := open(t, dir); !same(got, want) {
		t.Errorf("the file has %d records, %d were acknowledged", len(got), len(want))
	}
}
