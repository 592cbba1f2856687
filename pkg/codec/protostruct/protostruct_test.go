package protostruct_test

import (
	"encoding/json"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/codec/codectest"
	"github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/codec/protostruct"
)

type leaf struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

type base struct {
	ID string `json:"id"`
}

type every struct {
	base
	Yes     bool                     `json:"yes"`
	Text    string                   `json:"text"`
	Data    []byte                   `json:"data"`
	Array   [4]byte                  `json:"array"`
	I8      int8                     `json:"i8"`
	I16     int16                    `json:"i16"`
	I32     int32                    `json:"i32"`
	I64     int64                    `json:"i64"`
	U8      uint8                    `json:"u8"`
	U64     uint64                   `json:"u64"`
	F32     float32                  `json:"f32"`
	F64     float64                  `json:"f64"`
	Leaf    leaf                     `json:"leaf"`
	Next    *every                   `json:"next"`
	Maybe   *int                     `json:"maybe"`
	Names   []string                 `json:"names"`
	Numbers []int                    `json:"numbers"`
	Three   [3]float64               `json:"three"`
	Leaves  []*leaf                  `json:"leaves"`
	Grid    [][]int                  `json:"grid"`
	Words   map[string]string        `json:"words"`
	ByInt   map[int64]leaf           `json:"byInt"`
	Lists   map[string][]int         `json:"lists"`
	Deep    []map[string]map[int]int `json:"deep"`
	At      time.Time                `json:"at"`
	For     time.Duration            `json:"for"`
	Addr    netip.Addr               `json:"addr"`
	Any     any                      `json:"any"`
	Raw     json.RawMessage          `json:"raw"`
	Wrapped *wrapperspb.StringValue  `json:"-"`
}

func one() *int { n := 1; return &n }

func full() *every {
	return &every{
		base: base{"id"}, Yes: true, Text: "x", Data: []byte{0, 1}, Array: [4]byte{1, 2, 3, 4}, I8: -1, I16: -2, I32: math.MinInt32, I64: math.MinInt64,
		U8: 255, U64: math.MaxUint64, F32: 1.5, F64: -2.5, Leaf: leaf{"l", 1}, Next: &every{Text: "inner", Next: &every{}}, Maybe: new(int),
		Names: []string{"a", "", "b"}, Numbers: []int{0, -1, 1 << 40}, Three: [3]float64{1, 0, 3}, Leaves: []*leaf{{"a", 1}, {}},
		Grid: [][]int{{1, 2}, nil, {3}}, Words: map[string]string{"k": "v", "": ""}, ByInt: map[int64]leaf{-1: {"m", 2}},
		Lists: map[string][]int{"x": {1, 2}}, Deep: []map[string]map[int]int{{"a": {1: 2}}},
		At: time.Date(2026, 11, 23, 1, 2, 3, 4, time.UTC), For: -1500 * time.Millisecond, Addr: netip.MustParseAddr("10.0.0.1"),
		Any: map[string]any{"a": []any{1.0, "x", nil, true}}, Raw: json.RawMessage(`{"b":2}`),
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	codectest.Run(t, harness())
}

func FuzzDecode(f *testing.F) { codectest.Fuzz(f, harness()) }

func harness() codectest.Harness {
	entry := func() any { return new(every) }
	value := func(name string, v any) codectest.Value {
		return codectest.Value{Name: name, In: v, New: func() any { return reflect.New(reflect.TypeOf(v).Elem()).Interface() }, Want: v}
	}
	text, list, any := "x", []int{1, 2}, any(map[string]any{"a": 1.0})
	return codectest.Harness{
		Codec: protostruct.New(proto.New()), Equal: equal,
		Values: []codectest.Value{
			value("every kind", full()), value("a leaf", &leaf{"x", 2}), value("optional", &struct{ N *int }{one()}),
			value("a text", &text), value("a list", &list), value("anything", &any),
			value("a map", &map[string]leaf{"a": {"b", 1}}),
		},
		Foreign: []interface{}{nil, new(chan int), func() {}},
		Garbage: []codectest.Data{
			{Name: "no tag", Data: []byte{0xff}, New: entry},
			{Name: "a number too large", Data: protowire.AppendVarint(protowire.AppendTag(nil, 6, protowire.VarintType), 128), New: entry},
			{Name: "not UTF-8", Data: protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), "\xff"), New: entry},
			{Name: "five bytes for four", Data: protowire.AppendString(protowire.AppendTag(nil, 5, protowire.BytesType), "12345"), New: entry},
			{Name: "no address", Data: protowire.AppendString(protowire.AppendTag(nil, 27, protowire.BytesType), "x"), New: entry},
		},
		Nested: &codectest.Nested{Max: 100, New: entry, Make: nested},
		Huge: []codectest.Data{
			{Name: "a string", Data: append(protowire.AppendTag(nil, 3, protowire.BytesType), 0xff, 0xff, 0xff, 0xff, 0x07), New: entry},
			{Name: "a packed list", Data: append(protowire.AppendTag(nil, 18, protowire.BytesType), 0xff, 0xff, 0xff, 0xff, 0x07), New: entry},
		},
	}
}

// equal compares but for NaN, which is not equal to itself.
func equal(got, want any) bool {
	for _, v := range []any{got, want} {
		e, _ := v.(*every)
		for ; e != nil; e = e.Next {
			for _, f := range []*float64{&e.F64, &e.Three[0], &e.Three[1], &e.Three[2]} {
				if math.IsNaN(*f) {
					*f = 0
				}
			}
			if math.IsNaN(float64(e.F32)) {
				e.F32 = 0
			}
		}
	}
	return reflect.DeepEqual(got, want)
}

// nested makes messages inside each other, in the field next.
func nested(depth int) []byte {
	var heads [][]byte // the innermost first
	size := 0
	for range depth - 1 {
		head := protowire.AppendVarint(protowire.AppendTag(nil, 15, protowire.BytesType), uint64(size))
		heads = append(heads, head)
		size += len(head)
	}
	slices.Reverse(heads)
	return slices.Concat(heads...)
}

// TestMessages holds that protobuf messages go the way of their own codec.
func TestMessages(t *testing.T) {
	t.Parallel()
	c := protostruct.New(proto.New())
	data, err := c.Append(nil, wrapperspb.String("x"))
	got := new(wrapperspb.StringValue)
	if err != nil || c.Unmarshal(data, got) != nil || got.GetValue() != "x" {
		t.Errorf("got %v, %v", got, err)
	}
}
