// Package codectest is the suite that every codec passes: [Run] in a test, [Fuzz] in a fuzz test; RPC formats [RunEnvelope] and
// [FuzzEnvelope].
package codectest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"mime"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cb02dfca/micro/pkg/codec"
)

// Harness brings a codec to the suite, and says what it can do.
type Harness struct {
	// Codec is under test.
	Codec codec.Codec
	// Values make the round trip. At least one is needed; they should be of every kind that the codec carries.
	Values []Value
	// Foreign are values that the codec cannot encode, and pointers that it cannot decode into.
	Foreign []any
	// Garbage must be refused. A codec to which any bytes are good has none.
	Garbage []Data
	// Nested is set by a codec whose data nest.
	Nested *Nested
	// Huge is data that declares much more than follows. It must be refused before memory is taken for it.
	Huge []Data
	// Equal compares what was decoded with Value.Want; nil is [reflect.DeepEqual].
	Equal func(got, want any) bool
}

// Value makes the round trip.
type Value struct {
	Name string
	In   any        // what is encoded
	New  func() any // makes a pointer to decode into
	Want any        // what that must then be equal to
}

// Data is refused when it is decoded.
type Data struct {
	Name string
	Data []byte
	New  func() any // makes a pointer to decode into
}

// Nested makes data of any depth.
type Nested struct {
	Make func(depth int) []byte
	New  func() any // makes a pointer to decode into
	// Max is the depth that is accepted while one more is refused.
	Max int
}

func (h *Harness) equal(got, want any) bool {
	if h.Equal != nil {
		return h.Equal(got, want)
	}
	return reflect.DeepEqual(got, want)
}

// encode fails the test where v does not encode.
func (h *Harness) encode(t testing.TB, dst []byte, v Value) []byte {
	t.Helper()
	data, err := h.Codec.Append(dst, v.In)
	if err != nil {
		t.Fatalf("%s: Append: %v", v.Name, err)
	}
	return data
}

// decode reports whether data decodes to what v wants.
func (h *Harness) decode(t testing.TB, data []byte, v Value) {
	t.Helper()
	got := v.New()
	if err := h.Codec.Unmarshal(data, got); err != nil {
		t.Errorf("%s: Unmarshal(%.200q): %v", v.Name, data, err)
	} else if !h.equal(got, v.Want) {
		t.Errorf("%s: got %v, want %v", v.Name, got, v.Want)
	}
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if len(h.Values) == 0 {
		t.Fatal("codectest: no values")
	}
	for _, tc := range []struct {
		name string
		test func(*testing.T, *Harness)
	}{
		{"content type", testContentType},
		{"round trip", testRoundTrip},
		{"dst is kept", testPrefix},
		{"foreign values", testForeign},
		{"empty data", testEmpty},
		{"data is not retained", testRetained},
		{"concurrent use", testConcurrent},
		{"broken data", testBroken},
		{"garbage", testGarbage},
		{"nesting", testNested},
		{"declared lengths", testHuge},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, &h) })
	}
}

func testContentType(t *testing.T, h *Harness) {
	ct := h.Codec.ContentType()
	media, params, err := mime.ParseMediaType(ct)
	if err != nil || media != ct || len(params) > 0 {
		t.Errorf("%q is not a media type in its canonical form: %v", ct, err)
	}
	for _, form := range []string{ct, ct + "; charset=utf-8", strings.ToUpper(ct)} {
		if got, err := (codec.Set{h.Codec}).For(form); err != nil || got != h.Codec {
			t.Errorf("a set does not find it by %q: %v", form, err)
		}
	}
}

func testRoundTrip(t *testing.T, h *Harness) {
	for _, v := range h.Values {
		h.decode(t, h.encode(t, nil, v), v)
	}
}

func testPrefix(t *testing.T, h *Harness) {
	for _, v := range h.Values {
		for _, spare := range []int{0, 1, 1 << 16} {
			dst := append(make([]byte, 0, 6+spare), "prefix"...)
			out := h.encode(t, dst, v)
			rest, ok := bytes.CutPrefix(out, []byte("prefix"))
			if !ok {
				t.Fatalf("%s: with %d bytes to spare: got %.80q, want what was there before it", v.Name, spare, out)
			}
			h.decode(t, rest, v)
		}
	}
}

func testForeign(t *testing.T, h *Harness) {
	for _, v := range h.Foreign {
		dst := append(make([]byte, 0, 1<<10), "prefix"...)
		out, err := h.Codec.Append(dst, v)
		if !errors.Is(err, codec.ErrUnsupported) {
			t.Errorf("Append(%T): got %v, want an error that wraps ErrUnsupported", v, err)
		} else if text := err.Error(); !strings.HasPrefix(text, "codec/") || strings.Count(text, "codec") > 1 {
			t.Errorf("Append(%T): error %q: want it to begin with the package, and to name it once", v, text)
		}
		if !slices.Equal(out, dst) || &out[0] != &dst[0] {
			t.Errorf("Append(%T) failed and gave %q, want dst as it was", v, out)
		}
		if err := h.Codec.Unmarshal(h.encode(t, nil, h.Values[0]), v); !errors.Is(err, codec.ErrUnsupported) {
			t.Errorf("Unmarshal into %T: got %v, want an error that wraps ErrUnsupported", v, err)
		}
	}
}

func testEmpty(t *testing.T, h *Harness) {
	for _, v := range h.Values {
		got := v.New()
		if err := h.Codec.Unmarshal(h.encode(t, nil, v), got); err != nil {
			t.Fatal(err)
		}
		for _, empty := range [][]byte{nil, {}} {
			if err := h.Codec.Unmarshal(empty, got); err != nil || !h.equal(got, v.Want) {
				t.Errorf("%s: after empty data: %v, %v; want no error, and the value as it was", v.Name, got, err)
			}
		}
	}
}

func testRetained(t *testing.T, h *Harness) {
	for _, v := range h.Values {
		data := h.encode(t, nil, v)
		before := slices.Clone(data)
		got := v.New()
		if err := h.Codec.Unmarshal(data, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, before) {
			t.Errorf("%s: Unmarshal changed the data", v.Name)
		}
		for i := range data {
			data[i] = 0xaa
		}
		if !h.equal(got, v.Want) {
			t.Errorf("%s: the value changed with the data: %v", v.Name, got)
		}
	}
}

func testConcurrent(t *testing.T, h *Harness) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				for _, v := range h.Values {
					data, err := h.Codec.Append(nil, v.In)
					if err != nil {
						t.Errorf("%s: %v", v.Name, err)
						return
					}
					h.decode(t, data, v)
				}
			}
		})
	}
	wg.Wait()
}

// testBroken decodes what is cut off or has a bit wrong. It may pass for something else, but must not panic.
func testBroken(t *testing.T, h *Harness) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, v := range h.Values {
		data := h.encode(t, nil, v)
		if len(data) == 0 {
			continue
		}
		for range 300 {
			bad := slices.Clone(data[:r.IntN(len(data))+1])
			bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
			if err := h.Codec.Unmarshal(bad, v.New()); err != nil && err.Error() == "" {
				t.Errorf("%q: an error without a text", bad)
			}
		}
	}
}

func testGarbage(t *testing.T, h *Harness) {
	if h.Garbage == nil {
		t.Skip("any bytes are good to this codec")
	}
	for _, g := range h.Garbage {
		err := h.Codec.Unmarshal(g.Data, g.New())
		if err == nil {
			t.Errorf("%s: taken", g.Name)
			continue
		}
		if text := err.Error(); !strings.HasPrefix(text, "codec/") || strings.Contains(text, "\u00a0") {
			t.Errorf("%s: error %q: want it to begin with the package, and to be plain", g.Name, text)
		}
	}
}

func testNested(t *testing.T, h *Harness) {
	n := h.Nested
	if n == nil {
		t.Skip("nothing nests in this codec's data")
	}
	if err := h.Codec.Unmarshal(n.Make(n.Max), n.New()); err != nil {
		t.Errorf("depth %d: %v", n.Max, err)
	}
	for _, depth := range []int{n.Max + 1, 100_000} {
		if err := h.Codec.Unmarshal(n.Make(depth), n.New()); err == nil {
			t.Errorf("depth %d: taken", depth)
		}
	}
}

func testHuge(t *testing.T, h *Harness) {
	const most = 64 << 20 // other tests run beside this one; the declared lengths are far above it
	var before, after runtime.MemStats
	for _, d := range h.Huge {
		runtime.ReadMemStats(&before)
		err := h.Codec.Unmarshal(d.Data, d.New())
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: taken", d.Name)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > most {
			t.Errorf("%s: took %d bytes of memory for %d bytes of data", d.Name, took, len(d.Data))
		}
	}
}

// Fuzz decodes any data into each of the harness's types. What decodes must encode, and decode to the same again.
func Fuzz(f *testing.F, h Harness) {
	for _, v := range h.Values {
		f.Add(h.encode(f, nil, v))
	}
	for _, d := range append(slices.Clone(h.Garbage), h.Huge...) {
		f.Add(d.Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return // which leaves a value as it is
		}
		for _, v := range h.Values {
			once := v.New()
			if h.Codec.Unmarshal(data, once) != nil {
				continue
			}
			again, err := h.Codec.Append(nil, once)
			if err != nil {
				t.Fatalf("%s: decoded from %q, but does not encode: %v", v.Name, data, err)
			}
			twice := v.New()
			if err := h.Codec.Unmarshal(again, twice); err != nil {
				t.Fatalf("%s: %q became %q, which does not decode: %v", v.Name, data, again, err)
			}
			if !h.equal(twice, once) {
				t.Fatalf("%s: %q became %q: %v and %v", v.Name, data, again, once, twice)
			}
		}
	})
}
