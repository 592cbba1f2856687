package metadata_test

import (
	"bytes"
	"context"
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
		{"line break late in a long value", "a", strings.Repeat("x", 100) + "\n", nil},
		{"NUL late in a long value", "a", strings.Repeat("x", 100) + "\x00", nil},
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

func TestParse(t *testing.T) {
	t.Parallel()
	pair := func(key, value string) []byte { return metadata.Of(key, value) }
	many := func(n int) (data []byte) {
		for i := range n {
			data = append(data, pair(fmt.Sprintf("k%d", i), "v")...)
		}
		return data
	}
	for _, tt := range []struct {
		name string
		data []byte
		want string // of the error
	}{
		{"empty", nil, ""},
		{"pairs", append(pair("a", "1"), pair("b", "2")...), ""},
		{"a tab, and bytes above ASCII", pair("a", "\tj\xf6hn"), ""},
		{"as many as may be", many(metadata.MaxPairs), ""},
		{"one more", many(metadata.MaxPairs + 1), "more than 64 pairs"},
		{"cut off", pair("a", "1")[:4], "cut off"},
		{"a key twice", append(append(pair("a", "1"), pair("b", "2")...), pair("a", "3")...), `key "a" stands twice`},
		{"upper case", []byte{1, 'A', 0, 0}, "holds more than"},
		{"no key", []byte{0, 0, 0}, "key of 0 bytes"},
		{"line break", []byte{1, 'a', 0, 1, '\n'}, "line break"},
		{"too long", make([]byte, metadata.MaxSize+1), "limit 16384"},
	} {
		md, err := metadata.Parse(tt.data)
		if tt.want == "" && (err != nil || !bytes.Equal(md, tt.data)) {
			t.Errorf("%s: %q, %v", tt.name, md, err)
		}
		if tt.want != "" && (!errors.Is(err, metadata.ErrInvalid) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestExcept(t *testing.T) {
	t.Parallel()
	md := metadata.Of("a", "1", "b", "2", "c", "3")
	for _, drop := range []string{"", "a", "b", "c", "ab", "ac", "bc", "abc"} {
		got := md.Except(func(key []byte) bool { return strings.Contains(drop, string(key)) })
		want := md.Without(strings.Split(drop, "")...)
		if !bytes.Equal(got, want) || got.Len() != 3-len(drop) {
			t.Errorf("without %q: %q and %q", drop, got, want)
		}
		if len(got) > 0 && &got[0] == &md[0] {
			t.Errorf("without %q: the storage is md's", drop)
		}
	}
}

// TestAllocations: one for what is made, none for what is read.
func TestAllocations(t *testing.T) {
	md := metadata.Of("micro-service", "greeter", "micro-endpoint", "Say.Hello", "content-type", "application/json", "trace-id", "42", "user", "ada")
	for _, tt := range []struct {
		name string
		want float64
		run  func()
	}{
		{"Set", 1, func() { _, _ = md.Set("tenant", "acme") }},
		{"Set anew", 1, func() { _, _ = md.Set("micro-service", "orders") }},
		{"Parse", 0, func() { _, _ = metadata.Parse(md) }},
		{"Bytes", 0, func() { _, _ = md.Bytes("user") }},
		{"Get of none", 0, func() { _ = md.Get("none") }},
		{"Len", 0, func() { _ = md.Len() }},
		{"Without none", 0, func() { _ = md.Without("none") }},
		{"Without", 1, func() { _ = md.Without("micro-service", "user") }},
		{"Except all", 0, func() { _ = md.Except(func([]byte) bool { return true }) }},
	} {
		if got := testing.AllocsPerRun(100, tt.run); got != tt.want {
			t.Errorf("%s: %v allocations, want %v", tt.name, got, tt.want)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	md := metadata.Of("micro-service", "greeter", "micro-endpoint", "Say.Hello", "content-type", "application/json",
		"trace-id", "4bf92f3577b34da6a3ce929d0e0e4736", "user", "ada", "tenant", "acme", "authorization", strings.Repeat("x", 500))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := metadata.Parse(md); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSet(b *testing.B) {
	for _, pairs := range []int{4, 64} {
		b.Run(fmt.Sprint(pairs), func(b *testing.B) {
			keys := make([]string, pairs)
			for i := range keys {
				keys[i] = fmt.Sprint("key-", i)
			}
			b.ReportAllocs()
			for b.Loop() {
				var md metadata.MD
				for _, k := range keys {
					md, _ = md.Set(k, "value")
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(metadata.Of("a", "1", "b", "2")))
	f.Add([]byte{1, 'a', 0xff, 0xff})
	f.Add([]byte{1, 'a', 0, 0, 1, 'a', 0, 0})
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
		if !bytes.Equal(rest, md) {
			t.Errorf("%q became %q", md, rest)
		}
	})
}

// carrier is a context of another package that carries what came with a call.
type carrier struct {
	context.Context
	md metadata.MD
}

func (c *carrier) Value(key any) any {
	if metadata.IsIncoming(key) {
		return &c.md
	}
	return c.Context.Value(key)
}

func TestIncomingOfAnotherContext(t *testing.T) {
	outer := metadata.WithOutgoing(context.Background(), metadata.Of("way", "out"))
	ctx := &carrier{outer, metadata.Of("way", "in")}
	if in, out := metadata.Incoming(ctx).Get("way"), metadata.Outgoing(ctx).Get("way"); in != "in" || out != "out" {
		t.Errorf("incoming %q, outgoing %q", in, out)
	}
	if inner := metadata.WithIncoming(ctx, metadata.Of("way", "inner")); metadata.Incoming(inner).Get("way") != "inner" {
		t.Error("a context in front of it does not count")
	}
	if n := testing.AllocsPerRun(100, func() { _ = metadata.Incoming(ctx) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
