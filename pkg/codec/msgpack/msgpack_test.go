package msgpack_test

import (
	"bytes"
	"encoding/hex"
	stdjson "encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/codectest"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/msgpack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type request struct {
	Name  string            `json:"name"`
	Times int64             `json:"times,omitempty"`
	Tags  []string          `json:"tags"`
	Meta  map[string]string `json:"meta,omitempty"`
	Data  []byte            `json:"data,omitempty"`
	At    time.Time         `json:"at,omitzero"`
	Next  *request          `json:"next,omitempty"`
}

func lists(depth int) []byte {
	return append(bytes.Repeat([]byte{0x91}, depth-1), 0x90)
}

func harness(c *msgpack.Codec) codectest.Harness {
	req := request{
		Name: "<Ada> & \u2028 é \x00", Times: math.MinInt64, Tags: []string{"a", ""}, Meta: map[string]string{"k": "v", "": ""}, Data: []byte{0, 255},
		At: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Next: &request{Tags: []string{}},
	}
	words, number, large := []string{"x"}, 1.5, uint64(math.MaxUint64)
	anything := any(map[string]any{"": int64(1), "list": []any{nil, true, 0.5, []byte{1}, time.Unix(-1, 999).UTC()}})
	raw := stdjson.RawMessage(`{"a":[1,2.5]}`)
	newRequest, newAny := func() any { return new(request) }, func() any { return new(any) }
	return codectest.Harness{
		Codec: c,
		Values: []codectest.Value{
			{Name: "struct", In: req, New: newRequest, Want: &req},
			{Name: "pointer", In: &req, New: newRequest, Want: &req},
			{Name: "list", In: words, New: func() any { return new([]string) }, Want: &words},
			{Name: "number", In: number, New: func() any { return new(float64) }, Want: &number},
			{Name: "large number", In: large, New: func() any { return new(uint64) }, Want: &large},
			{Name: "null", In: nil, New: newRequest, Want: new(request)},
			{Name: "anything", In: anything, New: newAny, Want: &anything},
			{Name: "raw JSON", In: raw, New: func() any { return new(stdjson.RawMessage) }, Want: &raw},
		},
		Foreign: []any{make(chan int), func() {}, (chan int)(nil)},
		Garbage: []codectest.Data{
			{Name: "the byte that is not used", Data: []byte{0xc1}, New: newAny},
			{Name: "JSON", Data: []byte(`{"name":"x"}`), New: newRequest},
			{Name: "two values", Data: []byte{0x80, 0x80}, New: newRequest},
			{Name: "zero bytes", Data: []byte{0x80, 0}, New: newRequest},
			{Name: "wrong type", Data: []byte("\x81\xa4name\x01"), New: newRequest},
			{Name: "a key alone", Data: []byte("\x81\xa4name"), New: newRequest},
			{Name: "cut off in a key", Data: []byte("\x81\xa4na"), New: newRequest},
			{Name: "cut off in an integer", Data: []byte{0xcf, 0xff}, New: newAny},
			{Name: "cut off in a float", Data: []byte{0xcb, 0}, New: newAny},
			{Name: "cut off in a time", Data: []byte{0xd6, 0xff, 0}, New: newAny},
			{Name: "cut off in a length", Data: []byte{0xdb, 0}, New: newAny},
			{Name: "not UTF-8", Data: []byte{0xa1, 0xff}, New: newAny},
			{Name: "a key that is not UTF-8", Data: []byte{0x81, 0xa1, 0xff, 0}, New: newAny},
			{Name: "a key that is a list", Data: []byte{0x81, 0x90, 0}, New: newAny},
			{Name: "a key that is null", Data: []byte{0x81, 0xc0, 0}, New: newAny},
			{Name: "another extension", Data: []byte{0xd4, 5, 0}, New: newAny},
			{Name: "a timestamp of one byte", Data: []byte{0xd4, 0xff, 0}, New: newAny},
			{Name: "a JSON form of infinity", Data: []byte("\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"), New: func() any { return new(stdjson.RawMessage) }},
		},
		Nested: &codectest.Nested{Make: lists, New: newAny, Max: msgpack.MaxStrictDepth},
		Huge: []codectest.Data{
			{Name: "a string of 4 GiB", Data: []byte{0xdb, 0xff, 0xff, 0xff, 0xff, 'x'}, New: newAny},
			{Name: "bytes of 2 GiB", Data: []byte{0xc6, 0x7f, 0xff, 0xff, 0xff, 'x'}, New: newAny},
			{Name: "a list of 2^32", Data: []byte{0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0}, New: newAny},
			{Name: "a list of 2^31 strings", Data: []byte{0xdd, 0x7f, 0xff, 0xff, 0xff, 0xa0}, New: func() any { return new([]string) }},
			{Name: "a map of 2^32", Data: []byte{0xdf, 0xff, 0xff, 0xff, 0xff, 0xa0}, New: newAny},
			{Name: "a map of 2^31 strings", Data: []byte{0xdf, 0x7f, 0xff, 0xff, 0xff, 0xa0, 0xa0}, New: func() any { return new(map[string]string) }},
			{Name: "an extension of 4 GiB", Data: []byte{0xc9, 0xff, 0xff, 0xff, 0xff, 0xff, 0}, New: newAny},
			{Name: "lists in lists, each of 65535", Data: bytes.Repeat([]byte{0xdc, 0xff, 0xff}, 60), New: newAny},
		},
	}
}

func TestStrict(t *testing.T) {
	t.Parallel()
	codectest.Run(t, harness(msgpack.Strict()))
}

func TestLenient(t *testing.T) {
	t.Parallel()
	h := harness(msgpack.New())
	h.Nested.Max = msgpack.MaxDepth
	codectest.Run(t, h)
}

// byEncoding takes an empty map for none, as omitempty does, and a NaN for itself.
func byEncoding(h codectest.Harness) codectest.Harness {
	h.Equal = func(got, want any) bool {
		a, errA := h.Codec.Append(nil, got)
		b, errB := h.Codec.Append(nil, want)
		return errA == nil && errB == nil && bytes.Equal(a, b)
	}
	return h
}

func FuzzStrict(f *testing.F)  { codectest.Fuzz(f, byEncoding(harness(msgpack.Strict()))) }
func FuzzLenient(f *testing.F) { codectest.Fuzz(f, byEncoding(harness(msgpack.New()))) }

// TestForms holds the encoding against the specification: each form at the borders of its range.
func TestForms(t *testing.T) {
	t.Parallel()
	c := msgpack.New()
	for _, tc := range []struct {
		name string
		v    any
		want string // in hexadecimal; of what is long the beginning
	}{
		{"nil", nil, "c0"}, {"false", false, "c2"}, {"true", true, "c3"},
		{"fixint", 0, "00"}, {"fixint, the largest", 127, "7f"}, {"fixint, the smallest", -32, "e0"},
		{"uint 8", 128, "cc80"}, {"uint 16", 256, "cd0100"}, {"uint 32", 1 << 16, "ce00010000"}, {"uint 64", 1 << 32, "cf0000000100000000"},
		{"uint 64, the largest", uint64(math.MaxUint64), "cfffffffffffffffff"},
		{"int 8", -33, "d0df"}, {"int 16", -129, "d1ff7f"}, {"int 32", -32769, "d2ffff7fff"}, {"int 64", int64(math.MinInt64), "d38000000000000000"},
		{"float 32", float32(0.5), "ca3f000000"}, {"float 64", 0.5, "cb3fe0000000000000"},
		{"fixstr", "a", "a161"}, {"str 8", strings.Repeat("a", 32), "d92061"}, {"str 16", strings.Repeat("a", 256), "da010061"}, {"str 32", strings.Repeat("a", 1<<16), "db0001000061"},
		{"bin 8", []byte{7}, "c40107"}, {"bin 16", make([]byte, 256), "c50100"}, {"bin 32", make([]byte, 1<<16), "c600010000"},
		{"fixarray", []int{1}, "9101"}, {"array 16", make([]int, 16), "dc0010"}, {"array 32", make([]int, 1<<16), "dd00010000"},
		{"fixmap", map[string]int{"b": 1, "a": 2}, "82a16102a16201"}, {"a map by integers", map[int]bool{1: true}, "81a131c3"},
		{"timestamp 32", time.Unix(1, 0), "d6ff00000001"}, {"timestamp 64", time.Unix(1, 1), "d7ff0000000400000001"}, {"timestamp 96", time.Unix(-1, 1), "c70cff00000001ffffffffffffffff"},
		{"a struct", struct {
			A int `json:"a" msgpack:"b"`
		}{1}, "81a16101"},
	} {
		data, err := c.Append(nil, tc.v)
		if got := hex.EncodeToString(data); err != nil || !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: got %.60s, %v, want %s", tc.name, got, err, tc.want)
		}
	}
}

// TestForeignForms reads what other encoders write: wider than need be, integers as keys, lengths in each form.
func TestForeignForms(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, data string
		want       any
	}{
		{"uint 64 that fits an int64", "cf0000000000000005", int64(5)},
		{"uint 64 that does not", "cfffffffffffffffff", uint64(math.MaxUint64)},
		{"int 64", "d30000000000000005", int64(5)},
		{"float 32", "ca3f000000", 0.5},
		{"str 32", "db00000001" + "61", "a"},
		{"array 32", "dd00000001" + "c0", []any{nil}},
		{"map 32 by integers", "df00000002" + "05" + "c3" + "cfffffffffffffffff" + "c2", map[string]any{"5": true, "18446744073709551615": false}},
		{"a timestamp with a length", "c704ff00000001", time.Unix(1, 0).UTC()},
	} {
		data, err := hex.DecodeString(tc.data)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := msgpack.Strict().Unmarshal(data, &got); err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		a, errA := stdjson.Marshal(got)
		b, errB := stdjson.Marshal(tc.want)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: got %s, want %s", tc.name, a, b)
		}
	}
}

func TestErrorsSayWhere(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]string{
		"\x81\xa4name\x01":          `codec/msgpack: at offset 6: field "name": want string, got integer`,
		"\x81\xa4next\x81\xa1x\x01": `codec/msgpack: at offset 9: field "next": unknown field "x"`,
		"\x80\x01\x02":              `codec/msgpack: at offset 1: 2 bytes more after the value`,
		"\x81\xa4name\xd9\xff":      `codec/msgpack: at offset 8: field "name": unexpected end of the data`,
		"\x81\xa4tags\x95\xa0":      `codec/msgpack: at offset 7: field "tags": a list of 5 in 1 bytes`,
		"\x8f":                      `codec/msgpack: at offset 1: a map of 15 in 0 bytes`,
		"{":                         `codec/msgpack: at offset 0: want msgpack_test.request, got integer`,
		"\xc1":                      `codec/msgpack: at offset 0: the byte 0xc1 begins no value`,
	} {
		if err := msgpack.Strict().Unmarshal([]byte(data), new(request)); err == nil || err.Error() != want {
			t.Errorf("%q:\ngot  %v\nwant %s", data, err, want)
		}
	}
	if _, err := msgpack.New().Append(nil, make(chan int)); !errors.Is(err, codec.ErrUnsupported) || err.Error() != "codec/msgpack: encode chan int: a chan int has no form" {
		t.Errorf("a channel: %v", err)
	}
}

// TestRegistered: the content type that is registered leads to the codec as well.
func TestRegistered(t *testing.T) {
	t.Parallel()
	c := msgpack.New()
	set := codec.Set{c, codec.Alias(c, msgpack.Registered)}
	cd, err := set.For("application/vnd.msgpack")
	if err != nil || cd.ContentType() != msgpack.Registered {
		t.Fatalf("got %v, %v", cd, err)
	}
	if data, err := cd.Append(nil, 5); err != nil || string(data) != "\x05" {
		t.Errorf("got %q, %v", data, err)
	}
}

// BenchmarkCodecs is beside JSON's, of the same values.
func BenchmarkCodecs(b *testing.B) {
	small := &request{Name: "Ada", Times: 3, Tags: []string{"a"}}
	list := &request{Name: "Ada", Tags: strings.Split(strings.Repeat("word ", 100), " "), Meta: map[string]string{"a": "b", "c": "d"}, Data: make([]byte, 256)}
	for _, value := range []struct {
		name string
		v    *request
	}{{"small", small}, {"kilobyte", &request{Name: strings.Repeat("x", 960), Times: 3, Tags: []string{"a"}}}, {"list", list}} {
		for _, c := range []struct {
			name string
			codec.Codec
		}{{"msgpack", msgpack.Strict()}, {"json", json.Strict()}} {
			dst := make([]byte, 0, 4<<10)
			data, err := c.Append(nil, value.v)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(value.name+"/Append/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Append(dst, value.v); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(len(data)), "bytes")
			})
			b.Run(value.name+"/Unmarshal/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := c.Unmarshal(data, new(request)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
