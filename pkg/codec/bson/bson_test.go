package bson_test

import (
	"bytes"
	"encoding/binary"
	stdjson "encoding/json"
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/codec"
	bsoncodec "github.com/cb02dfca/micro/pkg/codec/bson"
	"github.com/cb02dfca/micro/pkg/codec/codectest"
	"github.com/cb02dfca/micro/pkg/codec/json"
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

// element is a document's: its type, its key, its value.
func element(t bson.Type, key string, value ...byte) []byte {
	return append(append([]byte{byte(t)}, key+"\x00"...), value...)
}

func document(elements ...[]byte) []byte {
	body := bytes.Join(elements, nil)
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(body)+5))
	return append(append(out, body...), 0)
}

// documents gives documents inside each other, depth of them in all.
func documents(depth int) []byte {
	out := make([]byte, 0, 8*depth)
	for i := range depth {
		out = binary.LittleEndian.AppendUint32(out, uint32(8*(depth-1-i)+5))
		if i < depth-1 {
			out = append(out, element(bson.TypeEmbeddedDocument, "a")...)
		}
	}
	return append(out, make([]byte, depth)...)
}

// size gives a length as BSON has it, and what follows.
func size(n uint32, rest ...byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, n), rest...)
}

func harness(c *bsoncodec.Codec) codectest.Harness {
	req := request{
		Name: "<Ada> & \u2028 é \x00", Times: math.MinInt64, Tags: []string{"a", ""}, Meta: map[string]string{"k": "v", "": ""}, Data: []byte{0, 255},
		At: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), Next: &request{Tags: []string{}},
	}
	words, number, text, none := []string{"x"}, 1.5, "x", []byte{}
	anything := any(map[string]any{"": int64(1), "list": []any{nil, true, 0.5, []byte{1}, time.UnixMilli(-1).UTC()}})
	held, twice := any(map[string]any{"": int64(5)}), map[string]map[string]int{"": {"": 5}}
	raw := stdjson.RawMessage(`{"a":[1,2.5]}`)
	newRequest, newAny := func() any { return new(request) }, func() any { return new(any) }
	huge := func(t bson.Type) []byte { return document(element(t, "name", size(math.MaxInt32, 'x', 0)...)) }
	return codectest.Harness{
		Codec: c,
		Values: []codectest.Value{
			{Name: "struct", In: req, New: newRequest, Want: &req},
			{Name: "pointer", In: &req, New: newRequest, Want: &req},
			{Name: "list", In: words, New: func() any { return new([]string) }, Want: &words},
			{Name: "number", In: number, New: func() any { return new(float64) }, Want: &number},
			{Name: "text", In: text, New: func() any { return new(string) }, Want: &text},
			{Name: "no bytes", In: none, New: func() any { return new([]byte) }, Want: &none},
			{Name: "null", In: nil, New: newRequest, Want: new(request)},
			{Name: "anything", In: anything, New: newAny, Want: &anything},
			{Name: "the empty key", In: held, New: newAny, Want: &held},
			{Name: "the empty key twice", In: twice, New: func() any { return new(map[string]map[string]int) }, Want: &twice},
			{Name: "raw JSON", In: raw, New: func() any { return new(stdjson.RawMessage) }, Want: &raw},
		},
		Foreign: []any{make(chan int), func() {}, (chan int)(nil)},
		Garbage: []codectest.Data{
			{Name: "JSON", Data: []byte(`{"name":"x"}`), New: newRequest},
			{Name: "one byte", Data: []byte{5}, New: newRequest},
			{Name: "two documents", Data: append(document(), document()...), New: newRequest},
			{Name: "zero bytes after it", Data: append(document(), 0), New: newRequest},
			{Name: "longer than it is", Data: size(6, 0), New: newRequest},
			{Name: "without its end", Data: size(5, 1), New: newRequest},
			{Name: "a document of no size", Data: document(element(bson.TypeEmbeddedDocument, "next", size(0)...)), New: newRequest},
			{Name: "a document with a size below 0", Data: document(element(bson.TypeEmbeddedDocument, "next", size(1<<31, 0)...)), New: newRequest},
			{Name: "a document that ends too late", Data: document(element(bson.TypeEmbeddedDocument, "next", size(6, 0)...)), New: newRequest},
			{Name: "wrong type", Data: document(element(bson.TypeInt32, "name", size(1)...)), New: newRequest},
			{Name: "wrong type in a document of its own", Data: document(element(bson.TypeInt32, "", size(1)...)), New: newRequest},
			{Name: "a value without its own", Data: document(element(bson.TypeInt32, "x", size(1)...)), New: func() any { return new(int) }},
			{Name: "a key without its end", Data: size(8, byte(bson.TypeNull), 'a', 'b'), New: newAny},
			{Name: "a string without its zero byte", Data: document(element(bson.TypeString, "name", size(1, 'x')...)), New: newRequest},
			{Name: "a string of no size", Data: document(element(bson.TypeString, "name", size(0)...)), New: newRequest},
			{Name: "a string with a size below 0", Data: document(element(bson.TypeString, "name", size(1<<32-1, 'x')...)), New: newRequest},
			{Name: "not UTF-8", Data: document(element(bson.TypeString, "name", size(2, 0xff, 0)...)), New: newRequest},
			{Name: "a key that is not UTF-8", Data: document(element(bson.TypeNull, "\xff")), New: newAny},
			{Name: "a bool of 2", Data: document(element(bson.TypeBoolean, "a", 2)), New: newAny},
			{Name: "a type that is not known", Data: document(element(0x20, "a")), New: newAny},
			{Name: "a regular expression", Data: document(element(bson.TypeRegex, "a", 'x', 0, 'i', 0)), New: newAny},
			{Name: "a decimal", Data: document(element(bson.TypeDecimal128, "", make([]byte, 16)...)), New: newAny},
			{Name: "the smallest key", Data: document(element(bson.TypeMinKey, "a")), New: newAny},
		},
		Nested: &codectest.Nested{Make: documents, New: newAny, Max: bsoncodec.MaxStrictDepth},
		Huge: []codectest.Data{
			{Name: "a document of 4 GiB", Data: size(1<<32-1, 0), New: newAny},
			{Name: "a string of 2 GiB", Data: huge(bson.TypeString), New: newAny},
			{Name: "bytes of 2 GiB", Data: huge(bson.TypeBinary), New: newAny},
			{Name: "old bytes of 2 GiB", Data: document(element(bson.TypeBinary, "a", append(size(8, 2), size(math.MaxInt32, 0, 0, 0, 0)...)...)), New: newAny},
			{Name: "a list of 2 GiB", Data: huge(bson.TypeArray), New: newAny},
			{Name: "an inner document of 2 GiB", Data: huge(bson.TypeEmbeddedDocument), New: newAny},
			{Name: "a string of 2 GiB in a document of its own", Data: document(element(bson.TypeString, "", size(math.MaxInt32, 'x', 0)...)), New: newAny},
		},
	}
}

func TestStrict(t *testing.T) {
	t.Parallel()
	codectest.Run(t, harness(bsoncodec.Strict()))
}

func TestLenient(t *testing.T) {
	t.Parallel()
	h := harness(bsoncodec.New())
	h.Nested.Max = bsoncodec.MaxDepth
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

func FuzzStrict(f *testing.F)  { codectest.Fuzz(f, byEncoding(harness(bsoncodec.Strict()))) }
func FuzzLenient(f *testing.F) { codectest.Fuzz(f, byEncoding(harness(bsoncodec.New()))) }

// TestForms holds the encoding against the library's own.
func TestForms(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6_999_999, time.FixedZone("", 3600))
	c := bsoncodec.New()
	for _, tc := range []struct {
		name    string
		v, want any
	}{
		{"struct", struct {
			B int `json:"b" bson:"x"`
			A any `json:"a"`
		}{1, nil}, bson.D{{Key: "b", Value: int32(1)}, {Key: "a", Value: nil}}},
		{"map in order", map[string]any{"b": true, "a": "x", "": 0.5}, bson.D{{Key: "", Value: 0.5}, {Key: "a", Value: "x"}, {Key: "b", Value: true}}},
		{"map of nothing", map[string]int{}, bson.D{}},
		{"map of one", map[string]int{"a": 1}, bson.D{{Key: "a", Value: int32(1)}}},
		{"integers", []any{math.MaxInt32, math.MaxInt32 + 1, math.MinInt32, math.MinInt32 - 1, uint64(math.MaxInt64)},
			bson.D{{Key: "", Value: bson.A{int32(math.MaxInt32), int64(math.MaxInt32 + 1), int32(math.MinInt32), int64(math.MinInt32 - 1), int64(math.MaxInt64)}}}},
		{"bytes", []byte{1}, bson.D{{Key: "", Value: bson.Binary{Data: []byte{1}}}}},
		{"time", at, bson.D{{Key: "", Value: bson.NewDateTimeFromTime(at)}}},
		{"float 32", float32(0.5), bson.D{{Key: "", Value: 0.5}}},
		{"null", nil, bson.D{{Key: "", Value: nil}}},
		{"a map that looks held", map[string]int{"": 5}, bson.D{{Key: "", Value: bson.D{{Key: "", Value: int32(5)}}}}},
		{"lists and maps", map[string]any{"a": []any{[]any{}, map[string]any{"b": []int{1}}}, "b": map[string]any{"": 1}},
			bson.D{{Key: "a", Value: bson.A{bson.A{}, bson.D{{Key: "b", Value: bson.A{int32(1)}}}}}, {Key: "b", Value: bson.D{{Key: "", Value: int32(1)}}}}},
	} {
		want, err := bson.Marshal(tc.want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Append(nil, tc.v); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %v, %v, want %v", tc.name, bson.Raw(got), err, bson.Raw(want))
		}
	}
}

// TestForeignForms reads what the library writes, and what is a database's.
func TestForeignForms(t *testing.T) {
	t.Parallel()
	id := bson.ObjectID{1, 2}
	for _, tc := range []struct {
		name     string
		in, want any
	}{
		{"int64 that fits an int32", bson.D{{Key: "a", Value: int64(5)}}, map[string]any{"a": int64(5)}},
		{"ObjectId", bson.D{{Key: "a", Value: id}}, map[string]any{"a": id.Hex()}},
		{"symbol", bson.D{{Key: "a", Value: bson.Symbol("x")}}, map[string]any{"a": "x"}},
		{"undefined", bson.D{{Key: "a", Value: bson.Undefined{}}}, map[string]any{"a": nil}},
		{"UUID", bson.D{{Key: "a", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: []byte{1}}}}, map[string]any{"a": []byte{1}}},
		{"old bytes", bson.D{{Key: "a", Value: bson.Binary{Subtype: bson.TypeBinaryBinaryOld, Data: []byte{1}}}, {Key: "b", Value: 1.5}}, map[string]any{"a": []byte{1}, "b": 1.5}},
		{"the empty key first", bson.D{{Key: "", Value: 1.5}, {Key: "a", Value: "x"}}, map[string]any{"": 1.5, "a": "x"}},
		{"the empty key twice", bson.D{{Key: "", Value: 1.5}, {Key: "", Value: 2.5}}, map[string]any{"": 2.5}},
		{"a held document", bson.D{{Key: "", Value: bson.D{{Key: "a", Value: "x"}}}}, map[string]any{"a": "x"}},
		{"a held null", bson.D{{Key: "", Value: nil}}, nil},
	} {
		data, err := bson.Marshal(tc.in)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := bsoncodec.Strict().Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %#v, %v, want %#v", tc.name, got, err, tc.want)
		}
	}
}

func TestUnsupported(t *testing.T) {
	t.Parallel()
	c := bsoncodec.New()
	for text, v := range map[string]any{
		"codec/bson: encode uint64: 18446744073709551615 is above the largest integer, an int64":     uint64(math.MaxUint64),
		`codec/bson: encode map[string]int: the key "a\x00b" has a zero byte in it`:                  map[string]int{"a\x00b": 1},
		`codec/bson: encode map[string]map[string]int: the key "\x00" has a zero byte in it`:         map[string]map[string]int{"a": {"\x00": 1}},
		"codec/bson: encode []uint64: 9223372036854775808 is above the largest integer, an int64":    []uint64{1 << 63},
		"codec/bson: encode json.Number: 9223372036854775808 is above the largest integer, an int64": stdjson.Number("9223372036854775808"),
	} {
		dst := []byte("prefix")
		out, err := c.Append(dst, v)
		if !errors.Is(err, codec.ErrUnsupported) || err.Error() != text || string(out) != "prefix" {
			t.Errorf("got %q, %v, want %s", out, err, text)
		}
	}
}

func TestErrorsSayWhere(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		data []byte
		want string
	}{
		{document(element(bson.TypeEmbeddedDocument, "next", document(element(bson.TypeInt32, "name", size(1)...))...)), `codec/bson: field "next.name": want string, got integer`},
		{document(element(bson.TypeNull, "x")), `codec/bson: unknown field "x"`},
		{append(document(), 0), `codec/bson: the document says that it has 5 bytes, and 6 came`},
		{[]byte{5, 0}, `codec/bson: unexpected end of the data`},
		{document(element(bson.TypeString, "name", size(9, 'x', 0)...)), `codec/bson: field "name": unexpected end of the data`},
		{document(element(bson.TypeRegex, "name", 'x', 0, 0)), `codec/bson: field "name": a value of the type regex is not taken`},
		{document(element(0x20, "name")), `codec/bson: field "name": the type 0x20 is not known`},
	} {
		if err := bsoncodec.Strict().Unmarshal(tc.data, new(request)); err == nil || err.Error() != tc.want {
			t.Errorf("got  %v\nwant %s", err, tc.want)
		}
	}
}

// TestManyElements: whether a body stands in a document of its own is found out at no cost where it does not.
func TestManyElements(t *testing.T) {
	t.Parallel()
	in := map[string]int{}
	for i := range 10_000 {
		in[strconv.Itoa(i)] = i
	}
	in[""] = 1
	c := bsoncodec.Strict()
	data, err := c.Append(nil, in)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	if err := c.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, in) {
		t.Errorf("%d entries, %v", len(got), err)
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
		}{{"bson", bsoncodec.Strict()}, {"json", json.Strict()}} {
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
