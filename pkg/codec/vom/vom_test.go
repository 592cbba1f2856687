package vom_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/codec/codectest"
	"github.com/cb02dfca/micro/pkg/codec/vom"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type request struct {
	Name  string
	Times int64
	Tags  []string
	Meta  map[string]string
	Data  []byte
	When  time.Time
	For   time.Duration
	Next  *request
	Any   any
	Color Color
	Shape Shape
	Set   map[int16]struct{}
	Grid  [2][3]uint16
	Err   error
	C     complex64
	P     *int32
	By    map[Inner][]float64
	PP    **One
}

func newRequest() *request {
	five, one := int32(5), &One{"x"}
	return &request{
		Name: "Ada", Times: math.MinInt64, Tags: []string{"a", ""}, Meta: map[string]string{"k": "v", "": "\x00"}, Data: []byte{0, 255},
		When: time.Date(2024, 10, 1, 2, 3, 4, 5, time.UTC), For: -1500 * time.Millisecond, Next: &request{Tags: []string{"b"}, Any: "s"},
		Any: []any{int64(1), nil, "x", map[string]any{"a": 1.5, "b": nil}, []int32{-1}, time.Second, []any{}}, Color: 2, Shape: ShapeBox{Inner{1, 2}},
		Set: map[int16]struct{}{-3: {}, 7: {}}, Grid: [2][3]uint16{{1, 2, 3}, {0, 0, 65535}}, Err: &vom.WireError{ID: "id", Retry: vom.RetryBackoff, Msg: "m", Params: []any{"p"}},
		C: complex(1, -2), P: &five, By: map[Inner][]float64{{1, 2}: {0.5}, {}: nil}, PP: &one,
	}
}

func uvarint(n int) []byte {
	if n < 0x80 {
		return []byte{byte(n)}
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(n))
	for b[0] == 0 {
		b = b[1:]
	}
	return append([]byte{byte(-len(b))}, b...)
}

// body is a body of definitions and a value message with a length.
func body(definitions string, id byte, value []byte) []byte {
	out := append([]byte{0x81}, mustHex(definitions)...)
	out = append(append(out, id), uvarint(len(value))...)
	return append(out, value...)
}

func mustHex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// nests is a Nest of lists inside each other.
func nests(depth int) []byte {
	value := append([]byte(strings.Repeat("\x01", depth-1)), 0)
	return body("51 1a 03 00 14 6578616d706c652e636f6d2f7665632e4e657374 01 29 e1", 0x52, value)
}

func harness() codectest.Harness {
	req, list, number, when, color := newRequest(), []Inner{{1, 2}, {}}, -1.5, time.Date(1, 2, 3, 4, 5, 6, 7, time.UTC), Color(1)
	var x, none any = map[string]any{"a": []any{int8(1), []byte{2}}, "b": map[int32]string{-1: "x"}}, nil
	var shape Shape = ShapeLabel{"l"}
	var fault error = &vom.WireError{ID: "a", Params: []any{int64(3)}}
	newOf := func(v any) func() any { return func() any { return reflect.New(reflect.TypeOf(v).Elem()).Interface() } }
	h := codectest.Harness{
		Codec: vom.New(),
		Values: []codectest.Value{
			{Name: "struct", In: *req, New: newOf(req), Want: req},
			{Name: "pointer", In: req, New: newOf(req), Want: req},
			{Name: "struct into pointer", In: *req, New: newOf(&req), Want: &req},
			{Name: "list", In: list, New: newOf(&list), Want: &list},
			{Name: "number", In: number, New: newOf(&number), Want: &number},
			{Name: "any", In: x, New: newOf(&x), Want: &x},
			{Name: "nil", In: nil, New: newOf(&none), Want: &none},
			{Name: "time", In: when, New: newOf(&when), Want: &when},
			{Name: "enum", In: color, New: newOf(&color), Want: &color},
			{Name: "union", In: shape, New: newOf(&shape), Want: &shape},
			{Name: "error", In: fault, New: newOf(&fault), Want: &fault},
			{Name: "recursive", In: Nest{{}, {{}}}, New: newOf(&Nest{}), Want: &Nest{nil, {nil}}},
		},
		Foreign: []any{
			make(chan int), func() {}, (chan int)(nil), [0]int{}, map[any]int{}, map[*int]int{}, map[[1]*int]int{}, struct{ a int }{}, []any{make(chan int)},
			struct{ C chan int }{}, MadeOfItself{}, new(Pointless),
		},
		Nested: &codectest.Nested{Make: nests, New: newOf(&Nest{}), Max: vom.MaxDepth},
	}
	into := newOf(&x)
	for name, data := range garbage {
		h.Garbage = append(h.Garbage, codectest.Data{Name: name, Data: mustHex(data), New: into})
	}
	for name, data := range bombs() {
		h.Huge = append(h.Huge, codectest.Data{Name: name, Data: data, New: into})
	}
	return h
}

// MadeOfItself and Pointless are Go types that VDL lacks.
type (
	MadeOfItself [1]*MadeOfItself
	Pointless    *Pointless
)

var garbage = map[string]string{
	"no version":           "06 01 61",
	"JSON":                 "7b 7d",
	"cut off":              "81 06 05 61",
	"no type":              "81 52 00",
	"a field too far":      "81 51 0a 06 01 01 00 01 41 01 08 e1 e1 52 03 01 02 e1",
	"a label too far":      "81 51 09 01 00 01 61 01 01 01 62 e1 52 01",
	"a kind too far":       "81 51 04 09 01 01 e1 52 01",
	"a field of no kind":   "81 51 04 03 02 09 e1 52 01 00",
	"NaN as a key":         "81 51 06 05 01 0b 02 01 e1 52 0b 01 f8 01 00 00 00 00 00 f8 7f 01",
	"not alike":            "81 51 06 05 01 03 02 09 e1 52 03 02 01 61",
	"a duration too long":  "81 51 29 06 00 0d 74696d652e4475726174696f6e 01 02 00 07 5365636f6e6473 01 09 e1 00 05 4e616e6f73 01 08 e1 e1 52 0b 00 f8 ff ff ff ff ff ff ff fe e1",
	"a name of other text": "81 51 0a 06 01 01 00 01 41 01 63 e1 e1 52 01 e1",
}

// bombs are bodies that stand for far more than they have bytes.
func bombs() map[string][]byte {
	ends := []byte(strings.Repeat("\xe1", 1<<14))
	many := func(n int) []byte { return append(uvarint(n), ends[:n]...) }
	var fields, chain, copies strings.Builder
	for i := range 200 { // a struct of 200 fields
		fmt.Fprintf(&fields, "00 02 %02x%02x 01 09 e1", 0x41+i/26, 0x41+i%26)
	}
	for i := range 30 { // structs of two structs each: 2 to the power of 30 fields
		fmt.Fprintf(&chain, "%s 10 06 01 02 00 01 41 01 %02x e1 00 01 42 01 %02x e1 e1", idOf(41+i), 40+i, 40+i)
	}
	wide := "06 01 ff c8" + fields.String() + "e1"
	copied := hex.EncodeToString(uvarint(len(mustHex(wide))))
	for i := range 2000 { // the same struct by other names
		fmt.Fprintf(&copies, "%s 07 00 00 01 4e 01 29 e1", idOf(42+i))
	}
	return map[string][]byte{
		"list":                     mustHex("81 51 04 03 01 09 e1 52 fc 40 00 00 00 fc 3f ff ff f0"),
		"list of what is there":    mustHex("81 51 04 03 01 09 e1 52 06 fc 3f ff ff f0 00"),
		"map":                      mustHex("81 51 06 05 01 03 02 09 e1 52 05 fc 10 00 00 00"),
		"text":                     mustHex("81 06 fc 3f ff ff ff 61"),
		"definition":               mustHex("81 51 fc 3f ff ff ff 03"),
		"table":                    mustHex("81 51 04 03 01 0f e1 52 fc 3f ff ff ff 09"),
		"array that is not there":  mustHex("81 53 0a 02 01 02 02 fc 3f ff ff ff e1 51 0a 06 01 01 00 01 41 01 2a e1 e1 52 01 e1"),
		"array of arrays":          mustHex("81 55 0a 02 01 02 02 fc 00 10 00 00 e1 53 0a 02 01 2b 02 fc 00 10 00 00 e1 51 0a 06 01 01 00 01 41 01 2a e1 e1 52 01 e1"),
		"empty structs":            body("53 "+copied+wide+"51 04 03 01 2a e1", 0x52, many(1<<14)),
		"structs of structs":       append(append([]byte{0x81}, mustHex(chain.String())...), append(mustHex("ff 8c"), 1, 0xe1)...),
		"one struct by many names": append(append(append([]byte{0x81}, mustHex("51 "+copied+wide)...), mustHex(copies.String())...), 0x52, 1, 0xe1),
	}
}

// idOf is the id of a type message.
func idOf(id int) string { return hex.EncodeToString(uvarint(2*id - 1)) }

func TestCodec(t *testing.T) {
	t.Parallel()
	codectest.Run(t, harness())
}

// byEncoding takes a nil list or map for an empty one, and a NaN for a NaN.
func byEncoding(h codectest.Harness) codectest.Harness {
	h.Equal = func(got, want any) bool {
		a, errA := h.Codec.Append(nil, got)
		b, errB := h.Codec.Append(nil, want)
		return errA == nil && errB == nil && string(a) == string(b)
	}
	return h
}

// FuzzUnmarshal decodes any bytes into each of the suite's types. What decodes must encode, and decode to the same again.
func FuzzUnmarshal(f *testing.F) {
	for _, name := range []string{"vectors.json", "lenient.json", "invalid.json"} {
		for _, v := range load(f, name) {
			f.Add(v.data(f))
		}
	}
	codectest.Fuzz(f, byEncoding(harness()))
}

// FuzzRoundTrip encodes values of all kinds, as themselves and inside an any.
func FuzzRoundTrip(f *testing.F) {
	f.Add("a", int64(-1), 1.5, []byte{1}, uint8(3), true)
	f.Add("", int64(0), 0.0, []byte(nil), uint8(0), false)
	c := vom.New()
	f.Fuzz(func(t *testing.T, s string, i int64, x float64, b []byte, n uint8, yes bool) {
		if x == 0 || math.IsNaN(x) {
			x = 0 // -0 is not told apart, and a NaN is not itself
		}
		if len(b) == 0 {
			b = nil
		}
		in := &request{Name: s, Times: i, Data: b, For: time.Duration(i), When: time.Unix(i>>20, int64(n)).UTC(), Color: Color(n % 3),
			Shape: ShapeCircle{x}, Any: []any{s, i, x, n, yes, nil, map[string]any{s: i}, []float64{x}}, C: complex(float32(int16(i)), 0)}
		if yes {
			in.Next = &request{Any: map[string]float64{s: x}, Set: map[int16]struct{}{int16(i): {}}}
			in.Tags, in.Meta = []string{s, ""}, map[string]string{s: s}
			in.By = map[Inner][]float64{{int32(i), 0}: {x, 1}}
		}
		if x == 0 {
			in.Shape = nil // which the zero value of its first field is read as
		}
		for _, v := range []any{in, Box{in}, []any{Box{in}}} {
			data, err := c.Append(nil, v)
			if err != nil {
				t.Fatal(err)
			}
			got := new(request)
			into := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "V", Type: reflect.TypeFor[*request]()}}))
			into.Elem().Field(0).Set(reflect.ValueOf(got))
			switch v.(type) {
			case *request:
				err = c.Unmarshal(data, got)
			case Box:
				if err = c.Unmarshal(data, into.Interface()); err == nil {
					got = into.Elem().Field(0).Interface().(*request)
				}
			default:
				var list []struct{ V request }
				if err = c.Unmarshal(data, &list); err == nil {
					got = &list[0].V
				}
			}
			if err != nil || !reflect.DeepEqual(got, in) {
				t.Fatalf("%x: got %+v, %v, want %+v", data, got, err, in)
			}
		}
	})
}

// FuzzMemory decodes any bytes, which must not take more memory than the limits say. A list is made anew as it grows, and what a
// map has is more than its entries: hence the factor.
func FuzzMemory(f *testing.F) {
	for _, data := range bombs() {
		f.Add(data)
	}
	f.Add(nests(vom.MaxDepth))
	c := vom.New()
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range []any{new(any), new([]Wide), new(map[string]*request)} {
			checkMemory(t, c, data, v)
		}
	})
}

func checkMemory(t *testing.T, c *vom.Codec, data []byte, v any) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_ = c.Unmarshal(data, v)
	runtime.ReadMemStats(&after)
	most := uint64(4 * (vom.BaseMemory + vom.MaxMemory*len(data)))
	if took := after.TotalAlloc - before.TotalAlloc; took > most {
		t.Errorf("%d bytes of data took %d bytes of memory, want %d at most", len(data), took, most)
	}
}
