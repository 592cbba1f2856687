package metadata_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/metadata"
)

func TestSetAndGet(t *testing.T) {
	t.Parallel()
	md := metadata.Of("Trace-Id", "42", "zone", "a")
	if md.Get("trace-id") != "42" || md.Get("TRACE-ID") != "42" || md.Get("none") != "" || md.Len() != 2 {
		t.Errorf("md %q", md)
	}
	more, err := md.Set("zone", "b")
	if err != nil || more.Get("zone") != "b" || more.Len() != 2 || md.Get("zone") != "a" {
		t.Errorf("set: %q of %q, %v", more, md, err)
	}
	if got := more.Without("zone", "none"); got.Len() != 1 || more.Len() != 2 {
		t.Errorf("without: %q of %q", got, more)
	}
}

// TestCopiesStayApart: two MDs that grew from one must not write into each other.
func TestCopiesStayApart(t *testing.T) {
	t.Parallel()
	base := metadata.Of("a", "1")
	one, err1 := base.Set("b", "one")
	two, err2 := base.Set("c", "two")
	if err1 != nil || err2 != nil || one.Get("b") != "one" || two.Get("c") != "two" || one.Get("c") != "" {
		t.Errorf("one %q, two %q", one, two)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	full := metadata.MD(nil)
	for i := range metadata.MaxPairs {
		full, _ = full.Set(fmt.Sprint("k", i), "v")
	}
	heavy := metadata.MD(nil)
	for i := range 4 {
		heavy, _ = heavy.Set(fmt.Sprint("k", i), strings.Repeat("x", 4000))
	}
	for _, tt := range []struct {
		name, key, value string
		md               metadata.MD
	}{
		{"empty key", "", "x", nil},
		{"long key", strings.Repeat("k", 129), "x", nil},
		{"space in key", "a b", "x", nil},
		{"line break", "a", "x\r\nb: y", nil},
		{"NUL", "a", "x\x00", nil},
		{"long value", "a", strings.Repeat("x", metadata.MaxValue+1), nil},
		{"pairs", "one-more", "x", full},
		{"size", "one-more", strings.Repeat("x", 1000), heavy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.md.Set(tt.key, tt.value)
			if !errors.Is(err, metadata.ErrInvalid) || !bytes.Equal(got, tt.md) {
				t.Errorf("error %v, md changed %v", err, !bytes.Equal(got, tt.md))
			}
		})
	}
}

func TestDirectionsStayApart(t *testing.T) {
	t.Parallel()
	ctx := metadata.WithIncoming(t.Context(), metadata.Of("token", "secret"))
	if metadata.Outgoing(ctx).Len() != 0 {
		t.Error("what came in goes out")
	}
	ctx, err := metadata.Append(ctx, "a", "1")
	if err != nil {
		t.Fatal(err)
	}
	inner, err := metadata.Append(ctx, "b", "2")
	if err != nil || metadata.Outgoing(inner).Len() != 2 || metadata.Outgoing(ctx).Len() != 1 {
		t.Errorf("outer %q, inner %q, %v", metadata.Outgoing(ctx), metadata.Outgoing(inner), err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(metadata.Of("a", "1", "b", "2")))
	f.Add([]byte{1, 'a', 0xff, 0xff})
	f.Add([]byte{255})
	f.Fuzz(func(t *testing.T, data []byte) {
		md, err := metadata.Parse(data)
		if err != nil {
			return
		}
		var rest metadata.MD
		for k, v := range md.All() {
			if rest, err = rest.Set(k, v); err != nil {
				t.Fatalf("parsed %q=%q, and cannot set it: %v", k, v, err)
			}
		}
		if rest.Len() > md.Len() {
			t.Errorf("%q grew to %q", md, rest)
		}
	})
}
