package metadata_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/metadata"
)

func none([]byte) bool { return false }

// TestBuilderIsSet: a Builder gives what Set gives, pair by pair, whatever was in it before.
func TestBuilderIsSet(t *testing.T) {
	t.Parallel()
	var b metadata.Builder
	for _, pairs := range [][]string{
		nil, {"a", "1"}, {"a", "1", "B", "2"}, {"a", "1", "b", "2", "a", "3"}, {"ab", "1", "ba", "2", "aa", "3", "bb", "4", "ba", "5", "aa", ""},
	} {
		var want metadata.MD
		b.Reset()
		for i := 0; i < len(pairs); i += 2 {
			var err error
			if want, err = want.Set(pairs[i], pairs[i+1]); err != nil {
				t.Fatal(err)
			}
			if err := b.Set(pairs[i], pairs[i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if string(b.MD()) != string(want) || b.Len() != want.Len() {
			t.Errorf("%q: built %q, set %q", pairs, b.MD(), want)
		}
		b.Reset()
		_ = b.Set("a", "earlier")
		_ = b.Set("z", "other")
		if err := b.Merge(want, func(key []byte) bool { return string(key) == "z" }); err != nil {
			t.Fatal(err)
		}
		for k, v := range want.All() {
			if b.MD().Get(k) != v {
				t.Errorf("%q merged: %s is %q, want %q", pairs, k, b.MD().Get(k), v)
			}
		}
		if b.MD().Get("z") != "other" || b.Len() != b.MD().Len() {
			t.Errorf("%q merged into %q, of %d pairs", pairs, b.MD(), b.Len())
		}
	}
}

func TestBuilderRefuses(t *testing.T) {
	t.Parallel()
	full := func(b *metadata.Builder) error {
		for i := range metadata.MaxPairs + 1 {
			if err := b.Set(fmt.Sprint("k", i), "v"); err != nil {
				return err
			}
		}
		return nil
	}
	heavy := func(b *metadata.Builder) error {
		for i := range 5 {
			if err := b.Set(fmt.Sprint("k", i), strings.Repeat("x", 4000)); err != nil {
				return err
			}
		}
		return nil
	}
	merge := func(md metadata.MD) func(b *metadata.Builder) error {
		return func(b *metadata.Builder) error { return b.Merge(md, none) }
	}
	for name, fill := range map[string]func(b *metadata.Builder) error{
		"pairs": full, "size": heavy, "a key": func(b *metadata.Builder) error { return b.Set("a b", "") },
		"a value": func(b *metadata.Builder) error { return b.Set("a", "1\n") },
		"cut off": merge(metadata.MD{1, 'a', 0, 1}), "one byte": merge(metadata.MD{7}), "no key": merge(metadata.MD{0, 0, 0}), "upper case": merge(metadata.MD{1, 'A', 0, 0}),
		"NUL": merge(metadata.MD{1, 'a', 0, 1, 0}),
	} {
		var b metadata.Builder
		if err := fill(&b); !errors.Is(err, metadata.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := metadata.Parse(b.MD()); err != nil {
			t.Errorf("%s: what was built before: %v", name, err)
		}
	}
	// To set a key again takes no further place.
	var b metadata.Builder
	for i := range 10 * metadata.MaxPairs {
		if err := b.Set(fmt.Sprint("k", i%metadata.MaxPairs), "v"); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte(metadata.Of("a", "1", "b", "2")), []byte(metadata.Of("b", "1")))
	f.Add([]byte{1, 'a', 0, 0, 1, 'a', 0, 0}, []byte{255})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var b metadata.Builder
		if b.Merge(one, none) != nil || b.Merge(two, none) != nil {
			return
		}
		if _, err := metadata.Parse(b.MD()); err != nil {
			t.Fatalf("%q and %q are merged, and %q cannot be parsed: %v", one, two, b.MD(), err)
		}
		last := map[string]string{}
		for _, md := range [][]byte{one, two} {
			for k, v := range metadata.MD(md).All() {
				last[k] = v
			}
		}
		for k, v := range last {
			if b.MD().Get(k) != v {
				t.Errorf("%s is %q, want %q", k, b.MD().Get(k), v)
			}
		}
		if b.Len() != len(last) {
			t.Errorf("%d pairs of %d", b.Len(), len(last))
		}
	})
}

// TestBuilderAllocatesNothing: with the storage of a former use.
func TestBuilderAllocatesNothing(t *testing.T) {
	var b metadata.Builder
	md := metadata.Of("trace-id", "4bf92f3577b34da6a3ce929d0e0e4736", "tenant", "acme", "zone", "eu-1", strings.Repeat("long", 20), "x")
	n := testing.AllocsPerRun(100, func() {
		b.Reset()
		if b.Set("micro-service", "greeter") != nil || b.Merge(md, none) != nil || b.Merge(md, none) != nil || b.Len() != 5 {
			t.Fatalf("%q", b.MD())
		}
		for k, v := range b.MD().Pairs() {
			if len(k)+len(v) == 0 {
				t.Error("nothing")
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
